"""What is checked of a built algorithm: its config may have changed after `use_attention`."""

from collections.abc import Collection

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.common.frame_stacking import FrameStacking

from rllib_attention.compat import CONNECTORS, connector_factory, env_to_module_pieces
from rllib_attention.new_stack.algorithms import algorithm_traits, trains_offline
from rllib_attention.new_stack.connectors.factories import AppendPieces
from rllib_attention.new_stack.module_specs import known_modules, module_options
from rllib_attention.new_stack.offline import OfflineSampling
from rllib_attention.new_stack.settings_checks import check_settings, warn_of_dropout_in_kl


def check_built(algorithm: Algorithm, module_ids: Collection[str] | None) -> None:
    """Checks that what `use_attention` has set is still there, and still fits the settings.

    Args:
        algorithm: The built algorithm.
        module_ids: The modules that were to get attention; None for all.

    Raises:
        ImportError: If recorded episodes cannot be read, because msgpack-numpy is missing.
        ValueError: If settings cannot work with attention, or its connectors, its options or its
            catalogs are gone.
    """
    config = algorithm.config
    _check_connectors(config)
    options = module_options(config)
    wanted = known_modules(config) if module_ids is None else module_ids
    _check_modules(lost=sorted(set(wanted) - set(options)))
    _check_pieces(algorithm)
    offline = OfflineSampling.of(config) if trains_offline(config) else None
    if offline is not None or config.num_learners > 1:
        _check_lookback(config, max(attention.history_len for attention in options.values()))
    check_settings(config, algorithm_traits(config), list(options.values()), offline)
    warn_of_dropout_in_kl(config, list(options.values()))


def _check_connectors(config: AlgorithmConfig) -> None:
    for name in CONNECTORS:
        if not isinstance(connector_factory(config, name), AppendPieces):
            raise ValueError(
                f"The connectors of `use_attention` are gone: `config.{name}` was set "
                "after it. Call `use_attention(config)` last: it keeps your connectors."
            )


def _check_modules(lost: list[str]) -> None:
    if lost:
        raise ValueError(
            f"The attention of modules {lost} is gone: `config.rl_module(model_config=...)`, "
            "`config.rl_module(rl_module_spec=...)` or `config.multi_agent(policies=...)` was set "
            "after `use_attention`. Call `use_attention(config)` last: it keeps your model config "
            "and your specs."
        )


def _check_lookback(config: AlgorithmConfig, history_len: int) -> None:
    """Raises if parts of episodes would come without their past; a rollout's bring it along."""
    lookback = config.episode_lookback_horizon
    if lookback < history_len:
        raise ValueError(
            f"`episode_lookback_horizon` must be at least the {history_len} steps that attention "
            f"looks back where episodes are recorded, or split between learners, got {lookback}. "
            "Use "
            f"`config.env_runners(episode_lookback_horizon={history_len})`."
        )


def _check_pieces(algorithm: Algorithm) -> None:
    """Raises for connector pieces that show the module other observations than the episode."""
    runner = algorithm.env_runner_group.local_env_runner if algorithm.env_runner_group else None
    if any(isinstance(piece, FrameStacking) for piece in env_to_module_pieces(runner)):
        raise ValueError(
            "Attention reads past observations from episodes, but FrameStacking writes its stacks "
            "elsewhere. Leave it out (`config.env_runners(env_to_module_connector=None)`): "
            "attention looks back itself, with `window` steps for each layer."
        )
