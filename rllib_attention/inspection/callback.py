"""Logs what a policy attends to, at each evaluation of a training."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_attention.inspection.map_image import map_image
from rllib_attention.inspection.play import agent_episodes
from rllib_attention.inspection.record import AttentionRecord
from rllib_attention.inspection.recording import record_episode
from rllib_attention.log import get_logger
from rllib_attention.new_stack.connectors.attention_module import find_attention

logger = get_logger(__name__)

# The key below which everything is logged.
_ATTENTION = "attention"
# Where a runner keeps its newest maps until the algorithm takes them.
_MAPS = "rllib_attention_maps"


class AttentionMapCallback(RLlibCallback):
    """Logs attention of evaluation episodes: numbers to RLlib's metrics, maps to TensorBoard.

    Numbers are means over the episodes of an evaluation, below
    `evaluation/env_runners/attention/<module>`: `context_fill` (the part of the context that
    episodes filled), and for each layer, from 0, `layer_<l>/entropy` (in nats),
    `layer_<l>/mean_lag` (steps) and `layer_<l>/share_on_current_step`. Tune and its loggers for
    TensorBoard, W&B and MLflow see them as any other metric. A map of one episode of each module
    is written for TensorBoard to `attention` in the algorithm's `logdir`, which Tune keeps with
    `RunConfig(sync_config=SyncConfig(sync_artifacts=True))`; it needs pillow. Pictures are not put
    into results: loggers that write JSON would write each of their pixels.

    The weights are computed once more for each evaluation episode; training episodes cost nothing.
    Whatever fails in here is logged once, as a warning, and training goes on.

    .. code-block:: python

        from ray.rllib.algorithms.ppo import PPOConfig
        from rllib_attention import AttentionMapCallback, use_attention

        config = PPOConfig().environment("CartPole-v1").callbacks(AttentionMapCallback)
        config.evaluation(evaluation_interval=5, evaluation_duration=3)
        use_attention(config)
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_warned = False

    def on_algorithm_init(self, *, algorithm: Algorithm, **kwargs: Any) -> None:
        """Checks that there will be something to log.

        Args:
            algorithm: The algorithm.
            **kwargs: Not read.

        Raises:
            ValueError: If it is of RLlib's old API stack.
        """
        if not algorithm.config.enable_env_runner_and_connector_v2:
            raise ValueError(
                "AttentionMapCallback expects RLlib's new API stack, got the old one. Fix: "
                "`config.api_stack(True, True)`, or leave the callback out."
            )
        if algorithm.eval_env_runner_group is None:
            logger.warning(
                "AttentionMapCallback logs at evaluation, but none is planned. Fix: "
                "`config.evaluation(evaluation_interval=5)`."
            )

    def on_episode_end(
        self,
        *,
        episode: Any,
        env_runner: Any = None,
        metrics_logger: MetricsLogger | None = None,
        rl_module: Any = None,
        **kwargs: Any,
    ) -> None:
        """Logs the numbers of an evaluation episode, and keeps its maps.

        Args:
            episode: The episode, or its last fragment.
            env_runner: The runner.
            metrics_logger: The runner's.
            rl_module: The runner's module.
            **kwargs: Not read.
        """
        if env_runner is None or not env_runner.config.in_evaluation:
            return
        with self._warns():
            known = find_attention(rl_module)
            maps = vars(env_runner).setdefault(_MAPS, {})
            for single in agent_episodes(episode).values():
                module_id = single.module_id
                if module_id in known and len(single):
                    record = record_episode(known[module_id], single)
                    name = module_id or DEFAULT_MODULE_ID
                    _log(record, (_ATTENTION, name), metrics_logger)
                    maps[name] = map_image(record)

    def on_evaluate_end(self, *, algorithm: Algorithm, **kwargs: Any) -> None:
        """Writes the maps of the newest episodes for TensorBoard.

        Args:
            algorithm: The algorithm.
            **kwargs: Not read.
        """
        group = algorithm.eval_env_runner_group
        if group is None:
            return
        with self._warns():
            taken = group.foreach_env_runner(
                _take_maps, local_env_runner=group.num_remote_env_runners() == 0
            )
            maps: dict[str, np.ndarray] = {}
            for found in taken:
                maps = found | maps
            if maps:
                _write(maps, algorithm)

    @contextlib.contextmanager
    def _warns(self) -> Iterator[None]:
        """Turns an error into a warning, the first time, and into nothing later."""
        try:
            yield
        except Exception:
            if not self._has_warned:
                logger.warning(
                    "AttentionMapCallback failed. Training goes on; later failures are not logged.",
                    exc_info=True,
                )
            self._has_warned = True


def _log(record: AttentionRecord, key: tuple[str, ...], metrics: MetricsLogger | None) -> None:
    """Logs a record's numbers."""
    values = {(*key, "context_fill"): record.context_fill}
    for layer in range(record.num_layers):
        below = (*key, f"layer_{layer}")
        values[(*below, "entropy")] = record.entropy(layer=layer)
        values[(*below, "mean_lag")] = record.mean_lag(layer=layer)
        values[(*below, "share_on_current_step")] = record.share(0, layer=layer)
    if metrics is not None:
        for name, value in values.items():
            metrics.log_value(name, value, reduce="mean")


def _write(maps: dict[str, np.ndarray], algorithm: Algorithm) -> None:
    """Writes maps into an event file of their own, which is complete then, whatever comes."""
    from tensorboardX import SummaryWriter

    step = algorithm.iteration + 1  # RLlib counts an iteration when it is over
    folder = f"{algorithm.logdir}/{_ATTENTION}"
    with SummaryWriter(folder, filename_suffix=f".{step}") as writer:
        for name, image in maps.items():
            writer.add_image(f"{_ATTENTION}/{name}", image, step, dataformats="HWC")


def _take_maps(env_runner: Any) -> dict[str, np.ndarray]:
    """Takes a runner's newest maps out of it."""
    return vars(env_runner).pop(_MAPS, {})
