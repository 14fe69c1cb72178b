"""What `use_attention` will set on a config of the new API stack, worked out before it is set."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner import EnvRunner

from rllib_attention.compat import as_dict, connector_factory, user_model_config
from rllib_attention.encoder.catalog import ATTENTION, WINDOWED
from rllib_attention.new_stack.algorithm_init import PrepareAlgorithm
from rllib_attention.new_stack.algorithms import (
    AlgorithmTraits,
    DataPath,
    algorithm_traits,
    trains_offline,
)
from rllib_attention.new_stack.chunk_length import with_chunk_length
from rllib_attention.new_stack.connectors import (
    AddContextToTrainBatch,
    AddRolloutContext,
    AddWindowsToTrainBatch,
    BootstrapVTraceAtFragmentEnds,
)
from rllib_attention.new_stack.connectors.factories import AppendPieces, as_list
from rllib_attention.new_stack.env_runner import attention_env_runner
from rllib_attention.new_stack.learner import attention_learner
from rllib_attention.new_stack.module_specs import (
    MAX_SEQ_LEN,
    known_modules,
    with_attention,
)
from rllib_attention.new_stack.offline import OfflineSampling, offline_sampling
from rllib_attention.search_space import SearchSpace, longest_history

# From here on, steps of the past are cheaper carried as one array than as RLlib's lookback.
_LONG_PAST = 256


@dataclass(frozen=True)
class AttentionPlan:
    """Everything that one call of `use_attention` sets.

    Attributes:
        traits: What is special to the algorithm.
        space: The options, with a `max_seq_len`.
        rl_module_spec: The user's module specs, with the attention catalog in some or all.
        model_config: That of all modules.
        env_to_module_connector: Factory of the user's pieces, then ours.
        learner_connector: Factory of the user's pieces, then ours.
        env_runner_cls: RLlib's, or the user's, whose errors reach the driver.
        learner_class: The algorithm's, or the user's, with quicker steps; None where there is none.
        on_algorithm_init: The user's callbacks, then ours.
        episode_lookback_horizon: Steps of the past that travel with a fragment.
        offline: How recorded episodes are sampled; None for algorithms that read none.
    """

    traits: AlgorithmTraits
    space: SearchSpace
    rl_module_spec: RLModuleSpec | MultiRLModuleSpec
    model_config: dict[str, Any] | DefaultModelConfig
    env_to_module_connector: Callable[..., Any]
    learner_connector: Callable[..., Any]
    env_runner_cls: type[EnvRunner]
    learner_class: type[Learner] | None
    on_algorithm_init: list[Callable[..., None]]
    episode_lookback_horizon: int
    offline: OfflineSampling | None

    def apply(self, config: AlgorithmConfig) -> None:
        """Sets it all.

        Args:
            config: The config that the plan was made for; changed in place.
        """
        config.rl_module(rl_module_spec=self.rl_module_spec, model_config=self.model_config)
        config.env_runners(
            env_runner_cls=self.env_runner_cls,
            env_to_module_connector=self.env_to_module_connector,
            episode_lookback_horizon=self.episode_lookback_horizon,
        )
        config.learners(learner_connector=self.learner_connector, learner_class=self.learner_class)
        config.callbacks(on_algorithm_init=self.on_algorithm_init)
        if self.offline is not None:
            self.offline.apply(config)


def make_plan(
    config: AlgorithmConfig, space: SearchSpace, module_ids: Collection[str] | None
) -> AttentionPlan:
    """Works out what to set.

    Args:
        config: The user's config; left as it is.
        space: The options.
        module_ids: Which modules of a multi-agent set-up get attention; None for all.

    Raises:
        ValueError: If the algorithm or a module cannot use attention, or there are two different
            `max_seq_len`.
    """
    traits = algorithm_traits(config)
    wanted = known_modules(config) if module_ids is None else module_ids
    space = with_chunk_length(config, space, traits, wanted)
    history_len = longest_history(space)
    options = _model_options(space, traits)
    # Tune resolves search spaces in the `model_config` of all modules, not those inside of specs.
    shared = module_ids is None or space.is_searched
    given = user_model_config(config)
    return AttentionPlan(
        traits=traits,
        space=space,
        rl_module_spec=with_attention(config, module_ids, {} if shared else options),
        model_config=as_dict(given) | options if shared else given,
        env_to_module_connector=_appended(config, "env_to_module_connector", AddRolloutContext),
        learner_connector=_appended(config, "learner_connector", *_train_pieces(config, traits)),
        env_runner_cls=attention_env_runner(config),
        learner_class=_learner_class(config),
        on_algorithm_init=_callbacks(config, module_ids),
        episode_lookback_horizon=_lookback_horizon(config, traits, history_len),
        offline=_offline(config, space, traits) if trains_offline(config) else None,
    )


def _lookback_horizon(config: AlgorithmConfig, traits: AlgorithmTraits, history_len: int) -> int:
    """Returns how much of its past RLlib keeps with a fragment.

    RLlib turns a lookback into arrays step by step, and not observations alone. A long past is
    much cheaper in the one array that `carry_context` puts into a fragment. But what splits
    fragments (several learners) or stores them (replay, recordings) leaves the lookback only.
    """
    own = config.episode_lookback_horizon
    stays_whole = traits.data_path is DataPath.SEQUENCE and config.num_learners <= 1
    if history_len > _LONG_PAST and stays_whole and not trains_offline(config):
        return own
    return max(own, history_len)


def _offline(
    config: AlgorithmConfig, space: SearchSpace, traits: AlgorithmTraits
) -> OfflineSampling:
    # In a sweep, the shortest runs: rows of any length are read by what their tags say.
    run_len = min(attention.max_seq_len or 1 for attention in space.candidates())
    return offline_sampling(config, traits, longest_history(space), run_len)


def _model_options(space: SearchSpace, traits: AlgorithmTraits) -> dict[str, Any]:
    """Returns the keys of a module's `model_config` that describe its attention."""
    options = space.to_dict() | {WINDOWED: traits.data_path is DataPath.WINDOW}
    return {MAX_SEQ_LEN: options.pop(MAX_SEQ_LEN), ATTENTION: options}


def _train_pieces(
    config: AlgorithmConfig, traits: AlgorithmTraits
) -> list[Callable[[], ConnectorV2]]:
    is_offline = trains_offline(config)
    if traits.data_path is DataPath.WINDOW:
        return [partial(AddWindowsToTrainBatch, is_offline=is_offline)]
    add_context = partial(
        AddContextToTrainBatch, next_observations=traits.next_obs, is_offline=is_offline
    )
    pieces: list[Callable[[], ConnectorV2]] = [add_context]
    return [*pieces, BootstrapVTraceAtFragmentEnds] if traits.vtrace else pieces


def _appended(
    config: AlgorithmConfig, name: str, *makers: Callable[[], ConnectorV2]
) -> Callable[..., Any]:
    """Returns a factory with our pieces; the same one if an earlier call appended them."""
    given = connector_factory(config, name)
    if isinstance(given, AppendPieces):
        return given
    return AppendPieces(given, makers)


def _learner_class(config: AlgorithmConfig) -> type[Learner] | None:
    try:
        return attention_learner(config.learner_class)
    except NotImplementedError:  # in algorithms that leave the learner to the user
        return None


def _callbacks(
    config: AlgorithmConfig, module_ids: Collection[str] | None
) -> list[Callable[..., None]]:
    given = as_list(config.callbacks_on_algorithm_init)
    ours = PrepareAlgorithm(None if module_ids is None else frozenset(module_ids))
    for callback in given:
        if isinstance(callback, PrepareAlgorithm):
            ours = ours.joined_with(callback)
    return [*(c for c in given if not isinstance(c, PrepareAlgorithm)), ours]
