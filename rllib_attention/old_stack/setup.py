"""`use_attention` on RLlib's old API stack: sets `custom_model` in the model dict.

A plan is made and checked first, and then applied: a refused call leaves the config as it was.
"""

from collections.abc import Collection, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.models.catalog import MODEL_DEFAULTS
from ray.rllib.policy.policy import PolicySpec

from rllib_attention.config import DEFAULT_CHUNK
from rllib_attention.old_stack import MODEL_NAME, NEW_STACK
from rllib_attention.old_stack.model import AttentionModelV2
from rllib_attention.search_space import SearchSpace

# Which algorithms train a model with a state on the old API stack; of the others, why they cannot.
# By name, so that the classes need not be imported.
_OBSTACLES: dict[str, str | None] = {
    "PPOConfig": None,
    "IMPALAConfig": None,  # also APPO's base
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

    Without a `max_seq_len` among the options, a model dict's own is kept, unless it is RLlib's
    default.

    Args:
        config: A config of the old API stack; changed in place.
        space: The options.
        module_ids: Which policies of a multi-agent set-up get attention; None for all.

    Returns:
        `config`.

    Raises:
        TypeError: If `module_ids` is a string.
        ValueError: If the algorithm, the framework or a model dict cannot work with attention, or
            a policy is not there. The config is then as it was.
    """
    _check_stack(config)
    _check_algorithm(config)
    _check_module_ids(config, module_ids)
    policies = _policies(config, space, module_ids)
    model = None if module_ids is not None else _attention_model(config.model, space)
    # Checked: from here on the config changes.
    config.multi_agent(policies=policies)
    if model is not None:
        config.training(model=model)
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
    names = [cls.__name__ for cls in type(config).__mro__]
    known = [_OBSTACLES[name] for name in names if name in _OBSTACLES]
    obstacle = known[0] if known else "is not known to train models with a state"
    if obstacle is None:
        return
    raise ValueError(
        f"{names[0].removesuffix('Config')} cannot use attention on RLlib's old API stack, where "
        f"it {obstacle}: expected PPO, APPO or IMPALA. On the new API stack it can: {NEW_STACK}."
    )


def _check_module_ids(config: AlgorithmConfig, module_ids: Collection[str] | None) -> None:
    if module_ids is None:
        return
    if isinstance(module_ids, str):
        raise TypeError(
            f"`module_ids` must be a list or set of policy ids, got the string {module_ids!r}. Use "
            f"`use_attention(config, module_ids=[{module_ids!r}])`."
        )
    known = set(config.policies)
    if not module_ids or not known.issuperset(module_ids):
        raise ValueError(
            f"`module_ids` must be policies of the config, {sorted(known)}, got "
            f"{sorted(module_ids)}. Use `config.multi_agent(policies=...)` before "
            "`use_attention(config, module_ids=...)`."
        )


def _attention_model(
    given: dict[str, Any], space: SearchSpace, policy_id: str | None = None
) -> dict[str, Any]:
    """Returns what attention sets in a model dict.

    Args:
        given: The model dict as it is.
        space: The options.
        policy_id: The policy whose model dict it is; None for that of the whole config.

    Raises:
        ValueError: If it asks for another memory, model or chunk length.
    """
    _check_model(given, policy_id)
    options = space.to_dict()
    max_seq_len, own = options.pop("max_seq_len"), given["max_seq_len"]
    if own != MODEL_DEFAULTS["max_seq_len"]:
        if max_seq_len not in (None, own) and "max_seq_len" not in space.searched:
            raise ValueError(
                f"{_whose(policy_id)} asks for max_seq_len={own}, `use_attention` for "
                f"{max_seq_len}: expected the same. Use `use_attention(config, max_seq_len={own})`."
            )
        max_seq_len = max_seq_len or own
    return {
        "max_seq_len": max_seq_len or DEFAULT_CHUNK,
        "custom_model": AttentionModelV2,  # found without a registry, also in checkpoints
        "custom_model_config": options,
    }


def _check_model(model: dict[str, Any], policy_id: str | None) -> None:
    """Raises if a model dict asks for another memory or model."""
    custom_model = model["custom_model"]
    if custom_model in (MODEL_NAME, AttentionModelV2):
        raise ValueError(
            "This config uses attention already: expected one call of `use_attention` (for each "
            "policy), got a second. Pass all options in one: `use_attention(config, window=32)`."
        )
    other = (
        ""
        if policy_id is None
        else (
            ", or name the policies that get attention: `use_attention(config, module_ids=[...])`"
        )
    )
    if custom_model:
        raise ValueError(
            f"{_whose(policy_id)} asks for custom_model={custom_model!r}, but attention takes its "
            f'place. Use `config.training(model={{"custom_model": None}})`{other}.'
        )
    for key in ("use_lstm", "use_attention"):
        if model[key]:
            raise ValueError(
                f"{_whose(policy_id)} asks for {key}=True, but attention takes its place. Use "
                f'`config.training(model={{"{key}": False}})`{other}; '
                "`AttentionConfig.from_rllib(model)` reads the sizes of RLlib's own attention "
                "out of a model dict."
            )


def _whose(policy_id: str | None) -> str:
    return "The model dict" if policy_id is None else f"The model dict of policy {policy_id!r}"


def _policies(
    config: AlgorithmConfig, space: SearchSpace, module_ids: Collection[str] | None
) -> dict[str, Any]:
    """Returns the config's policies, with attention in the configs of their own."""
    specs = {policy_id: _as_spec(spec) for policy_id, spec in config.policies.items()}
    if module_ids is None:  # those without own settings take the whole config's model dict
        module_ids = [policy_id for policy_id, spec in specs.items() if spec.config]
    attended = {
        policy_id: _with_attention(specs[policy_id], config, space, policy_id)
        for policy_id in module_ids
    }
    return config.policies | attended


def _as_spec(spec: PolicySpec | Sequence) -> PolicySpec:
    return spec if isinstance(spec, PolicySpec) else PolicySpec(*spec)


def _with_attention(
    spec: PolicySpec, config: AlgorithmConfig, space: SearchSpace, policy_id: str
) -> PolicySpec:
    """Returns a policy's spec with attention added to its own config."""
    own: Any = spec.config or {}
    if isinstance(own, AlgorithmConfig):  # complete, and taken as it is
        own = own.copy(copy_frozen=False)
        own.training(model=_attention_model(own.model, space, policy_id))
    else:
        model = own.get("model", {})
        model = model | _attention_model(config.model | model, space, policy_id)
        own = {**own, "model": model}
    return PolicySpec(spec.policy_class, spec.observation_space, spec.action_space, own)
