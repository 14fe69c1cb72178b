"""What `use_attention` refuses before it sets anything."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_attention.compat import is_frozen
from rllib_attention.encoder.catalog import ATTENTION
from rllib_attention.new_stack.connectors.factories import is_connected
from rllib_attention.new_stack.module_specs import (
    has_many_modules,
    known_modules,
    model_config_of,
    uses_attention,
)
from rllib_attention.new_stack.plan import AttentionPlan
from rllib_attention.new_stack.settings_checks import check_settings
from rllib_attention.rllib_keys import KNOWN
from rllib_attention.search_space import SearchSpace, longest_history

_RLLIB_LOOKBACK = AlgorithmConfig().episode_lookback_horizon


def checked_module_ids(config: AlgorithmConfig, module_ids: Any) -> list[str] | None:
    """Returns the ids of the modules that are to get attention, None for all.

    Args:
        config: The user's config.
        module_ids: What the user passed.

    Raises:
        TypeError: If it is a string, or no collection.
        ValueError: If it is empty, or names a module that is not there.
    """
    if module_ids is None:
        return None
    if isinstance(module_ids, str) or not isinstance(module_ids, Collection):
        raise TypeError(
            "`module_ids` must be a list or set of module ids, got "
            f"{module_ids!r} ({type(module_ids).__name__}). Use "
            f"`use_attention(config, module_ids=[{module_ids!r}])`."
        )
    known, given = known_modules(config), sorted(module_ids)
    if not has_many_modules(config):
        if given == [DEFAULT_MODULE_ID]:
            return None
        raise ValueError(
            "`module_ids` chooses among the modules of a multi-agent config, but this one has a "
            f"single module, got {given}. Use `use_attention(config)`, or set up several first: "
            "`config.multi_agent(policies={...})`."
        )
    if not given or not set(given) <= set(known):
        raise ValueError(
            f"`module_ids` must name modules of this config, one of {known}, got {given}. Use "
            f"`use_attention(config, module_ids=[{known[0]!r}])`, or set the others up first: "
            "`config.multi_agent(policies={...})`."
        )
    return given


def check_config(
    config: AlgorithmConfig, space: SearchSpace, module_ids: Collection[str] | None
) -> None:
    """Checks that a config can be changed, and that nothing else takes attention's place.

    Args:
        config: The user's config.
        space: The options.
        module_ids: Modules that get attention; None for all.

    Raises:
        ValueError: If the config is frozen or of another stack or framework, uses attention
            already, or asks for an LSTM or for options of RLlib's own attention.
    """
    _check_changeable(config)
    wanted = known_modules(config) if module_ids is None else module_ids
    _check_first_use(config, space, wanted)
    model_configs = {module_id: model_config_of(config, module_id) for module_id in wanted}
    _check_old_keys(model_configs)
    for key in ("use_lstm", "use_attention"):
        asking = [mid for mid, model_config in model_configs.items() if model_config.get(key)]
        if asking:
            others = [mid for mid in wanted if mid not in asking]
            raise ValueError(_asks_for_other_encoder(key, asking, others))


def check_plan(config: AlgorithmConfig, plan: AttentionPlan) -> None:
    """Checks that the rest of a config can work with what is going to be set.

    Args:
        config: The user's config.
        plan: What is going to be set.

    Raises:
        ImportError: If recorded episodes cannot be read, because msgpack-numpy is missing.
        ValueError: If a setting cannot work with attention.
    """
    if not is_connected(config):  # else the lookback is that of an earlier call
        _check_lookback(config, longest_history(plan.space))
    check_settings(config, plan.traits, plan.space.candidates(), plan.offline)


def _check_changeable(config: AlgorithmConfig) -> None:
    if is_frozen(config):
        raise ValueError(
            "`config` must not be frozen, got one that belongs to a built algorithm. Use "
            "`use_attention(config.copy(copy_frozen=False))`, before `build_algo()`."
        )
    if not config.enable_env_runner_and_connector_v2:
        raise ValueError(
            "RLlib's new API stack needs `enable_rl_module_and_learner` and "
            "`enable_env_runner_and_connector_v2` both True, got only the first. Use "
            "`config.api_stack(enable_rl_module_and_learner=True, "
            "enable_env_runner_and_connector_v2=True)`."
        )
    if config.framework_str != "torch":
        raise ValueError(
            f"Attention needs framework 'torch', got {config.framework_str!r}. Use "
            '`config.framework("torch")`.'
        )


def _check_first_use(config: AlgorithmConfig, space: SearchSpace, wanted: Iterable[str]) -> None:
    if any(uses_attention(config, module_id) for module_id in wanted):
        raise ValueError(
            "This config uses attention already: expected one call of `use_attention` (for each "
            "module), got a second. Pass all options in one: `use_attention(config, window=32)`."
        )
    if space.is_searched and ATTENTION in config.model_config:
        raise ValueError(
            "An earlier call of `use_attention` has search spaces, and Ray Tune knows one set of "
            f"them for all modules: expected plain values, got {space.searched}. Use one call for "
            "all modules with search spaces: `use_attention(config, module_ids=[...], "
            "window=tune.grid_search([16, 64]))`."
        )


def _check_old_keys(model_configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises for options of RLlib's old attention, which nothing reads on the new stack."""
    for module_id, model_config in model_configs.items():
        given = {key: value for key, value in model_config.items() if key in KNOWN}
        if given:
            raise ValueError(
                f"Nothing reads {sorted(given)} in the `model_config` of module {module_id!r} on "
                "RLlib's new API stack. Use `use_attention(config, "
                f"AttentionConfig.from_rllib({given}))`, and leave them out of `model_config`."
            )


def _asks_for_other_encoder(key: str, asking: list[str], others: list[str]) -> str:
    """Returns what to say when modules ask for RLlib's own memory.

    Args:
        key: What `model_config` asks for.
        asking: The modules that do.
        others: Those that were to get attention, too, and do not.
    """
    where = f" of {', '.join(map(repr, asking))}" if others else ""
    message = f"`model_config`{where} asks for `{key}=True`, but attention takes the place of the "
    message += "encoder. Use "
    if others:
        message += f"`use_attention(config, module_ids={others})` to leave it there, or "
    return (
        f"{message}`config.rl_module(model_config={{'{key}': False}})`, or leave it out of the "
        "module's spec."
    )


def _check_lookback(config: AlgorithmConfig, history_len: int) -> None:
    lookback = config.episode_lookback_horizon
    if lookback != _RLLIB_LOOKBACK and lookback < history_len:
        raise ValueError(
            f"`episode_lookback_horizon` must be at least the {history_len} steps that attention "
            f"looks back, got {lookback}. Leave it to `use_attention`, or use "
            f"`config.env_runners(episode_lookback_horizon={history_len})`."
        )
