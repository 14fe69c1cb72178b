"""`use_attention` on RLlib's new API stack: composes with what the config holds already."""

import copy
import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_attention.encoder.catalog import ATTENTION, WINDOWED, attention_catalog
from rllib_attention.new_stack.algorithms import Path, algorithm_path, catalog_for
from rllib_attention.new_stack.checks import (
    check_before,
    check_built,
    is_connected,
    known_modules,
    module_options,
)
from rllib_attention.new_stack.chunk_length import with_chunk_length
from rllib_attention.new_stack.connectors import (
    AddRolloutContext,
    AddWindowsToTrainBatch,
    BootstrapVTraceAtFragmentEnds,
)
from rllib_attention.new_stack.connectors.factories import AppendPieces, MakeContextPiece, as_list
from rllib_attention.new_stack.offline import is_offline, set_offline_data
from rllib_attention.new_stack.replay_buffers import upgrade_replay_buffer
from rllib_attention.search_space import SearchSpace, longest_history


def use_attention_on_new_stack(
    config: AlgorithmConfig, space: SearchSpace, module_ids: Collection[str] | None
) -> AlgorithmConfig:
    """Sets modules, connectors, lookback and replay of a new-stack config.

    Args:
        config: A config of the new API stack; changed in place.
        space: The options.
        module_ids: Which modules of a multi-agent set-up get attention; None for all.

    Returns:
        `config`.

    Raises:
        TypeError: If `module_ids` is a string.
        ValueError: If the algorithm cannot use attention, or the config holds settings that cannot
            work with it.
    """
    path = algorithm_path(config)
    set_offline_data(config, path, longest_history(space))
    space = with_chunk_length(config, space)
    check_before(config, space, path, module_ids)
    _set_modules(config, space, path, module_ids)
    if not is_connected(config):  # by an earlier call, for other modules
        _set_connectors(config, path)
    _set_lookback(config, space)
    return config


def on_algorithm_init(algorithm: Algorithm, **kwargs: Any) -> None:
    """Upgrades the replay buffer and checks the final config. A callback for RLlib.

    RLlib accepts replay buffers by a few literal names only, hence here.

    Args:
        algorithm: The built algorithm.
        **kwargs: Whatever else RLlib hands to callbacks.

    Raises:
        ValueError: If the config was changed, after `use_attention`, to something that cannot
            work with it.
    """
    options = module_options(algorithm.config)
    check_built(algorithm, options)
    # CQL has a replay buffer too, but samples from recorded episodes.
    is_replayed = not is_offline(algorithm.config)
    buffer = getattr(algorithm, "local_replay_buffer", None) if is_replayed else None
    if buffer is not None and any(windowed for _, windowed in options.values()):
        history_len = max(attention.history_len for attention, _ in options.values())
        run_len = {mid: attention.max_seq_len or 1 for mid, (attention, _) in options.items()}
        num_shards = max(1, algorithm.config.num_learners)
        upgrade_replay_buffer(
            buffer, history_len=history_len, run_len=run_len, num_shards=num_shards
        )


def _set_modules(
    config: AlgorithmConfig,
    space: SearchSpace,
    path: Path,
    module_ids: Collection[str] | None,
) -> None:
    """Puts catalogs into the module spec and options into `model_config`."""
    options = space.to_dict() | {WINDOWED: path is Path.WINDOW}
    model_config: dict[str, Any] = {
        "max_seq_len": options.pop("max_seq_len"),
        ATTENTION: options,
    }
    spec = config._rl_module_spec
    if module_ids is None and not isinstance(spec, MultiRLModuleSpec):
        config.rl_module(rl_module_spec=_with_catalog(config, spec))
    else:
        own = None if module_ids is None or space.is_searched else model_config
        config.rl_module(rl_module_spec=_multi_spec(config, module_ids, own))
    if module_ids is None or space.is_searched:
        config.rl_module(model_config=_as_dict(config._model_config) | model_config)


def _multi_spec(
    config: AlgorithmConfig,
    module_ids: Collection[str] | None,
    model_config: dict[str, Any] | None,
) -> MultiRLModuleSpec:
    """Returns a copy of the user's specs in which some modules have the attention catalog.

    Args:
        config: The user's config.
        module_ids: These modules; None for all.
        model_config: Options to put into these modules' own `model_config`, if any.
    """
    given = config._rl_module_spec
    multi = given if isinstance(given, MultiRLModuleSpec) else None
    # RLlib looks for all modules in a multi spec, also for those that it describes by default.
    base = given if isinstance(given, RLModuleSpec) else RLModuleSpec()
    specs = {module_id: copy.deepcopy(base) for module_id in known_modules(config)}
    specs |= multi.rl_module_specs if multi else {}
    for module_id in sorted(module_ids if module_ids is not None else known_modules(config)):
        spec = _with_catalog(config, specs.get(module_id))
        if model_config is not None:
            merged = spec._get_model_config() | model_config
            spec = dataclasses.replace(spec, model_config=merged)
        specs[module_id] = spec
    # Not `dataclasses.replace`: a deprecated field of the class refuses it.
    result = copy.copy(multi) if multi else MultiRLModuleSpec(rl_module_specs={})
    result.rl_module_specs = specs
    return result


def _with_catalog(config: AlgorithmConfig, spec: RLModuleSpec | None) -> RLModuleSpec:
    """Returns a user's module spec (or an empty one) with the attention catalog."""
    spec = spec or RLModuleSpec()
    catalog_class = attention_catalog(catalog_for(config, spec))
    return dataclasses.replace(spec, catalog_class=catalog_class)


def _set_connectors(config: AlgorithmConfig, path: Path) -> None:
    """Puts our connector pieces behind the user's."""
    config._env_to_module_connector = AppendPieces(
        config._env_to_module_connector, AddRolloutContext
    )
    if path is Path.WINDOW:
        train_piece: Callable[..., ConnectorV2] = AddWindowsToTrainBatch
    else:
        train_piece = MakeContextPiece(path is Path.OFFLINE_SEQUENCE)
    config._learner_connector = AppendPieces(config._learner_connector, train_piece)
    if isinstance(config, IMPALAConfig):
        config._learner_connector = AppendPieces(
            config._learner_connector, BootstrapVTraceAtFragmentEnds
        )
    config.callbacks_on_algorithm_init = [
        *as_list(config.callbacks_on_algorithm_init),
        on_algorithm_init,
    ]


def _set_lookback(config: AlgorithmConfig, space: SearchSpace) -> None:
    """Lets fragments carry the observations that their first chunk looks back to."""
    history_len = longest_history(space)
    config.episode_lookback_horizon = max(config.episode_lookback_horizon, history_len)


def _as_dict(model_config: Any) -> dict[str, Any]:
    return (
        dataclasses.asdict(model_config)
        if dataclasses.is_dataclass(model_config) and not isinstance(model_config, type)
        else dict(model_config)
    )
