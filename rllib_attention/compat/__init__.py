"""What this package needs of Ray that Ray does not promise: the versions, and private names.

Everything else goes through RLlib's public extension points. A private name is used here and
nowhere else, with the place in Ray where it lives (below `ray/`, as of 2.60). What this package
assumes about RLlib's behaviour is stated, one by one, in `tests/rllib_contract`.

Ray is imported inside functions only, so that this can be read without Ray.
"""

from rllib_attention.compat.components import (
    catalog_model_config,
    child_distributions,
    env_to_module_pieces,
)
from rllib_attention.compat.configs import (
    CONNECTORS,
    as_dict,
    connector_factory,
    is_frozen,
    spec_model_config,
    steps_otherwise,
    user_model_config,
    user_module_spec,
)
from rllib_attention.compat.registry import (
    call_after_each_init,
    register_custom_model,
    registered_env,
)
from rllib_attention.compat.replay_buffers import (
    num_stored_steps,
    position_of_leaf,
    restore_sample_indices,
    sample_indices,
    segment_trees,
    set_last_sampled,
    update_sample_metrics,
)
from rllib_attention.compat.versions import (
    ALLOW_UNTESTED_RAY,
    MAX_RAY_VERSION,
    MIN_RAY_VERSION,
    RAY_REQUIREMENT,
    check_ray_version,
    has_supported_ray,
)

__all__ = [
    "ALLOW_UNTESTED_RAY",
    "CONNECTORS",
    "MAX_RAY_VERSION",
    "MIN_RAY_VERSION",
    "RAY_REQUIREMENT",
    "as_dict",
    "call_after_each_init",
    "catalog_model_config",
    "check_ray_version",
    "child_distributions",
    "connector_factory",
    "env_to_module_pieces",
    "has_supported_ray",
    "is_frozen",
    "num_stored_steps",
    "position_of_leaf",
    "register_custom_model",
    "registered_env",
    "restore_sample_indices",
    "sample_indices",
    "segment_trees",
    "set_last_sampled",
    "spec_model_config",
    "steps_otherwise",
    "update_sample_metrics",
    "user_model_config",
    "user_module_spec",
]
