"""`use_attention` on RLlib's old API stack: sets `custom_model` in the model dict."""

from collections.abc import Collection
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.policy.policy import PolicySpec

from rllib_attention.config import DEFAULT_CHUNK
from rllib_attention.old_stack.model import NEW_STACK
from rllib_attention.old_stack.registration import MODEL_NAME
from rllib_attention.search_space import SearchSpace

# Why each of RLlib's other algorithms cannot train a model with a state on the old API stack.
_REASONS = {
    "BCConfig": "reads recorded rows without states or sequences",
    "MARWILConfig": "reads recorded rows without states or sequences",
    "CQLConfig": "gives its networks neither states nor past observations",
    "SACConfig": "gives its networks neither states nor past observations",
    "DQNConfig": "cannot build its replay buffer on the old API stack in this version of RLlib",
}


def use_attention_on_old_stack(
    config: AlgorithmConfig, space: SearchSpace, module_ids: Collection[str] | None
) -> AlgorithmConfig:
    """Sets the attention model as custom model of an old-stack config.

    Args:
        config: A config of the old API stack; changed in place.
        space: The options.
        module_ids: Which policies of a multi-agent set-up get attention; None for all.

    Returns:
        `config`.

    Raises:
        ValueError: If the algorithm, the framework or the model dict cannot work with attention,
            or a policy is not there.
    """
    _check_stack(config)
    _check_algorithm(config)
    _check_model(config.model)
    options = space.to_dict()
    model = {
        "max_seq_len": options.pop("max_seq_len") or DEFAULT_CHUNK,
        "custom_model": MODEL_NAME,
        "custom_model_config": options,
    }
    if module_ids is None:
        config.training(model=model)
    else:
        config.multi_agent(policies=_policies(config, model, module_ids))
    return config


def _check_stack(config: AlgorithmConfig) -> None:
    if config.enable_env_runner_and_connector_v2:
        raise ValueError(
            "RLlib's old API stack needs `enable_rl_module_and_learner` and "
            "`enable_env_runner_and_connector_v2` both False, got only the first. Use "
            "`config.api_stack(enable_rl_module_and_learner=False, "
            "enable_env_runner_and_connector_v2=False)`, or the new API stack: "
            f"{NEW_STACK}."
        )
    if config.framework_str != "torch":
        raise ValueError(
            f"Attention needs framework 'torch', got {config.framework_str!r}. Use "
            '`config.framework("torch")`.'
        )


def _check_algorithm(config: AlgorithmConfig) -> None:
    if isinstance(config, PPOConfig | IMPALAConfig):  # APPO derives from IMPALA
        return
    names = [cls.__name__ for cls in type(config).__mro__]
    reason = next(
        (_REASONS[name] for name in names if name in _REASONS),
        "is not known to train models with a state",
    )
    raise ValueError(
        f"{names[0].removesuffix('Config')} cannot use attention on RLlib's old API stack, where "
        f"it {reason}: expected PPO, APPO or IMPALA. On the new API stack it can: {NEW_STACK}."
    )


def _check_model(model: dict[str, Any]) -> None:
    """Raises if the model dict asks for another memory or model."""
    custom_model = model.get("custom_model")
    if custom_model == MODEL_NAME:
        raise ValueError(
            "This config uses attention already: expected one call of `use_attention` (for each "
            "policy), got a second. Pass all options in one: `use_attention(config, window=32)`."
        )
    if custom_model:
        raise ValueError(
            f"The model dict asks for custom_model={custom_model!r}, but attention takes its "
            'place. Use `config.training(model={"custom_model": None})`.'
        )
    for key in ("use_lstm", "use_attention"):
        if model.get(key):
            raise ValueError(
                f"The model dict asks for {key}=True, but attention takes its place. Use "
                f'`config.training(model={{"{key}": False}})`; '
                "`AttentionConfig.from_rllib(model)` reads the sizes of RLlib's own attention "
                "out of a model dict."
            )


def _policies(
    config: AlgorithmConfig, model: dict[str, Any], module_ids: Collection[str]
) -> dict[str, PolicySpec]:
    """Returns the config's policies, with attention in some."""
    policies = config.policies
    if not isinstance(policies, dict):
        policies = {policy_id: PolicySpec() for policy_id in policies or ()}
    unknown = sorted(set(module_ids) - set(policies))
    if unknown:
        raise ValueError(
            f"`module_ids` must be policies of the config, {sorted(policies)}, got {unknown}. Use "
            "`config.multi_agent(policies=...)` before `use_attention(config, module_ids=...)`."
        )
    return {
        policy_id: _with_model(spec, model) if policy_id in module_ids else spec
        for policy_id, spec in policies.items()
    }


def _with_model(spec: PolicySpec | tuple, model: dict[str, Any]) -> PolicySpec:
    """Returns a policy's spec with attention added to its own config."""
    spec = PolicySpec(*spec) if isinstance(spec, tuple) else spec
    own = spec.config or {}
    if isinstance(own, AlgorithmConfig):  # complete, and taken as it is
        _check_model(own.model)
        merged: Any = own.copy(copy_frozen=False).training(model=model)
    else:
        _check_model(own.get("model", {}))
        merged = {**own, "model": {**own.get("model", {}), **model}}
    return PolicySpec(spec.policy_class, spec.observation_space, spec.action_space, merged)
