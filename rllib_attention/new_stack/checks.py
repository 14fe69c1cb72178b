"""Settings that cannot work with attention, found before they cost an hour."""

from collections.abc import Collection
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.common.frame_stacking import FrameStacking
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from rllib_attention.config import DEFAULT_CHUNK, AttentionConfig
from rllib_attention.encoder.catalog import (
    ATTENTION,
    WINDOWED,
    AttentionCatalogMixin,
    attention_config,
)
from rllib_attention.new_stack.algorithms import Path
from rllib_attention.new_stack.connectors.factories import AppendPieces
from rllib_attention.new_stack.offline import check_offline_data
from rllib_attention.new_stack.replay_buffers import check_replay_config
from rllib_attention.new_stack.vtrace_checks import check_vtrace
from rllib_attention.search_space import SearchSpace, known_setting, longest_history

_CONNECTORS = ("_env_to_module_connector", "_learner_connector")
# RLlib computes how many of B full chunks of T steps make a minibatch of M steps as
# int(B * (M / (B * T))), which with M = T is 0 for B = 49 and some larger B, and fails.
_ROUNDED_AWAY = 49
_RLLIB_LOOKBACK = AlgorithmConfig().episode_lookback_horizon


def check_before(
    config: AlgorithmConfig,
    space: SearchSpace,
    path: Path,
    module_ids: Collection[str] | None,
) -> None:
    """Checks a config before attention is added.

    Args:
        config: The user's config.
        space: The attention options.
        path: The algorithm's path.
        module_ids: Modules that get attention; None for all.

    Raises:
        TypeError: If `module_ids` is a string.
        ValueError: If the config cannot work with attention.
    """
    _check_module_ids(config, module_ids)
    _check_first_use(config, module_ids)
    if not is_connected(config):  # else the lookback is ours
        _check_lookback(config, longest_history(space))
    _check_settings(config, space.candidates(), path)


def check_built(algorithm: Algorithm, options: dict[str, tuple[AttentionConfig, bool]]) -> None:
    """Checks a built algorithm, in case its config was changed after `use_attention`.

    Args:
        algorithm: The algorithm.
        options: From `module_options`.

    Raises:
        ValueError: If settings cannot work with attention, or its connectors, its options or its
            catalogs are gone.
    """
    config = algorithm.config
    _check_still_there(config, options)
    _check_pieces(algorithm)
    for attention, windowed in options.values():
        path = Path.WINDOW if windowed else Path.SEQUENCE
        _check_settings(config, [attention], path)


def module_options(config: AlgorithmConfig) -> dict[str, tuple[AttentionConfig, bool]]:
    """Returns the options of each module with attention, and whether it takes the window path.

    Args:
        config: A config without open search spaces.
    """
    configs: dict[str, dict[str, Any]] = {DEFAULT_MODULE_ID: {}}
    spec = config._rl_module_spec
    if isinstance(spec, MultiRLModuleSpec):
        configs = {mid: s._get_model_config() for mid, s in spec.rl_module_specs.items()}
    elif spec is not None:
        configs = {DEFAULT_MODULE_ID: spec._get_model_config()}
    found = {}
    for module_id, own in configs.items():
        merged = config.model_config | own
        attention = attention_config(merged)
        if attention is not None:
            found[module_id] = (attention, merged[ATTENTION].get(WINDOWED, False))
    return found


def is_connected(config: AlgorithmConfig) -> bool:
    """Returns whether `use_attention` has put its connectors into a config already."""
    return all(isinstance(getattr(config, name), AppendPieces) for name in _CONNECTORS)


def known_modules(config: AlgorithmConfig) -> set[str]:
    """Returns the ids of all modules that a multi-agent config names."""
    spec = config._rl_module_spec
    ids = set(config.policies) if config.is_multi_agent else set()
    return ids | set(spec.rl_module_specs if isinstance(spec, MultiRLModuleSpec) else ())


def _check_still_there(
    config: AlgorithmConfig, options: dict[str, tuple[AttentionConfig, bool]]
) -> None:
    """Raises if something that `use_attention` sets was replaced after it."""
    for name in _CONNECTORS:
        if not isinstance(getattr(config, name), AppendPieces):
            raise ValueError(
                f"The connectors of `use_attention` are gone: `config.{name.strip('_')}` was set "
                "after it. Call `use_attention(config)` last: it keeps your connectors."
            )
    spec = config._rl_module_spec
    specs = dict.fromkeys(options, spec)
    if isinstance(spec, MultiRLModuleSpec):
        specs = {module_id: spec.rl_module_specs[module_id] for module_id in options}
    catalogs = [getattr(spec, "catalog_class", None) for spec in specs.values()]
    if not any(isinstance(c, type) and issubclass(c, AttentionCatalogMixin) for c in catalogs):
        raise ValueError(
            "The modules of `use_attention` are gone: `config.rl_module(model_config=...)` or "
            "`config.rl_module(rl_module_spec=...)` was set after it. Call `use_attention(config)` "
            "last: it keeps your model config and your specs."
        )


def _check_pieces(algorithm: Algorithm) -> None:
    """Raises for connector pieces that show the module other observations than the episode."""
    runner = algorithm.env_runner_group.local_env_runner if algorithm.env_runner_group else None
    pipeline = getattr(runner, "_env_to_module", None)
    if any(isinstance(piece, FrameStacking) for piece in getattr(pipeline, "connectors", ())):
        raise ValueError(
            "Attention reads past observations from episodes, but FrameStacking writes its stacks "
            "elsewhere. Leave it out (`config.env_runners(env_to_module_connector=None)`): "
            "attention looks back itself, with `window` steps for each layer."
        )


def _check_module_ids(config: AlgorithmConfig, module_ids: Collection[str] | None) -> None:
    if module_ids is None:
        return
    if isinstance(module_ids, str):
        raise TypeError(
            f"`module_ids` must be a list or set of module ids, got the string {module_ids!r}. Use "
            f"`use_attention(config, module_ids=[{module_ids!r}])`."
        )
    known = known_modules(config)
    unknown = set(module_ids) - known
    if unknown or not module_ids:
        raise ValueError(
            "`module_ids` must name modules of this multi-agent config, one of "
            f"{sorted(known)}, got {sorted(module_ids)}. Set them up first: "
            "`config.multi_agent(policies={...})`."
        )


def _check_first_use(config: AlgorithmConfig, module_ids: Collection[str] | None) -> None:
    spec = config._rl_module_spec
    model_configs = [config.model_config]
    if isinstance(spec, MultiRLModuleSpec):
        wanted = module_ids if module_ids is not None else spec.rl_module_specs
        own = [spec.rl_module_specs[mid] for mid in wanted if mid in spec.rl_module_specs]
        model_configs += [config.model_config | s._get_model_config() for s in own]
    elif spec is not None:
        model_configs = [config.model_config | spec._get_model_config()]
    if any(ATTENTION in model_config for model_config in model_configs):
        raise ValueError(
            "This config uses attention already: expected one call of `use_attention` (for each "
            "module), got a second. Pass all options in one: `use_attention(config, window=32)`."
        )
    for key in ("use_lstm", "use_attention"):
        if any(model_config.get(key) for model_config in model_configs):
            raise ValueError(
                f"`model_config` asks for `{key}=True`, but attention takes the place of the "
                f"encoder. Use `config.rl_module(model_config={{'{key}': False}})`, or leave it "
                "out of the module's spec."
            )


def _check_lookback(config: AlgorithmConfig, history_len: int) -> None:
    lookback = config.episode_lookback_horizon
    if lookback != _RLLIB_LOOKBACK and lookback < history_len:
        raise ValueError(
            f"`episode_lookback_horizon` must be at least the {history_len} steps that attention "
            f"looks back, got {lookback}. Leave it to `use_attention`, or use "
            f"`config.env_runners(episode_lookback_horizon={history_len})`."
        )


def _check_settings(config: AlgorithmConfig, candidates: list[AttentionConfig], path: Path) -> None:
    check_offline_data(config, path, max(attention.history_len for attention in candidates))
    if path is Path.WINDOW:
        buffer_config = known_setting(config, "replay_buffer_config")
        if buffer_config and not config.is_offline:
            n_step = known_setting(config, "n_step") or 1
            check_replay_config(buffer_config, n_step, multi_agent=config.is_multi_agent)
        return
    lengths = [attention.max_seq_len or DEFAULT_CHUNK for attention in candidates]
    check_vtrace(config, min(lengths))
    _check_minibatch(config, max(lengths))


def _check_minibatch(config: AlgorithmConfig, max_seq_len: int) -> None:
    size, smallest = known_setting(config, "minibatch_size"), max_seq_len
    train_batch_size = known_setting(config, "train_batch_size_per_learner") or 0
    if train_batch_size >= _ROUNDED_AWAY * max_seq_len:
        smallest += 1
    if size is not None and size < smallest:
        raise ValueError(
            f"`minibatch_size` must be at least {smallest} with `max_seq_len` {max_seq_len}, since "
            f"a minibatch is made of whole chunks, got {size}. Use "
            f"`config.training(minibatch_size={smallest})` or "
            f"`use_attention(config, max_seq_len={size - smallest + max_seq_len})`."
        )
