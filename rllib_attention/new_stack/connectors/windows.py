"""The learner piece of the window path: replayed runs, or a window for each step.

Shapes: B transitions, T time, C context, K tokens in a row, P packed token, S steps of all runs,
A size of a step's stacked previous actions and rewards.
"""

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
)
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import (
    AddNextObservationsFromEpisodesToTrainBatch,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.typing import EpisodeType

from rllib_attention.encoder.host_tags import COLUMN, tags_column
from rllib_attention.encoder.packed_window import pack_tokens, tags_of
from rllib_attention.encoder.prev_inputs import PrevInputs
from rllib_attention.encoder.run_tags import MAX_ROWS, stream_tags, window_tags
from rllib_attention.new_stack.connectors.attention_module import (
    AttentionModule,
    episodes_with_attention,
    find_attention,
)
from rllib_attention.new_stack.connectors.batch_items import (
    as_rows,
    batch_key,
    replace_batch_items,
    run_pieces,
)
from rllib_attention.new_stack.connectors.step_inputs import training_inputs
from rllib_attention.new_stack.replay_buffers.sampled_runs import RunSteps, SampledRuns
from rllib_attention.nn.packing import ranges


class AddWindowsToTrainBatch(ConnectorV2):
    """Packs `OBS` and `NEXT_OBS` of modules with attention, one tensor each.

    Where: the last of the custom learner pieces.
    Reads: the runs that our replay buffers sample, or fragments of episodes and their lookback.
    Writes: all columns of replayed runs; of fragments, `OBS` and `NEXT_OBS` of modules with
    attention. RLlib's pieces behind find them and return early. Runs of `max_seq_len` > 1 become
    a stream of tokens in rows (B, K, P), see `packed_runs.py`; all else windows (B, C + 1, P).
    What tokens are (`run_tags.py`) is also in a column that stays on the host.
    Leaves alone: modules without attention, but that their replayed transitions become columns.

    Args:
        input_observation_space: As for every ConnectorV2.
        input_action_space: As for every ConnectorV2.
        is_offline: Whether the batch is of recorded episodes. Ray Data then hands it to the learner
            as tensors, and encoders wait for what tokens are.

    .. code-block:: python

        from ray.rllib.algorithms.sac import SACConfig
        from rllib_attention.new_stack.connectors import AddWindowsToTrainBatch

        config = SACConfig().learners(
            learner_connector=lambda obs_space, action_space: AddWindowsToTrainBatch()
        )
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        *,
        is_offline: bool = False,
        **kwargs: Any,
    ):
        super().__init__(input_observation_space, input_action_space, **kwargs)
        self._is_offline = is_offline
        self._pieces: list[ConnectorV2] = [
            AddObservationsFromEpisodesToBatch(as_learner_connector=True),
            AddNextObservationsFromEpisodesToTrainBatch(),
        ]

    def __call__(
        self,
        *,
        rl_module: RLModule,
        batch: dict[str, Any],
        episodes: list[EpisodeType],
        explore: bool | None = None,
        shared_data: dict | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Builds the columns. See the class docstring."""
        known = find_attention(rl_module)
        sampled = [episode for episode in episodes if isinstance(episode, SampledRuns)]
        for runs in sampled:
            _add_runs(batch, runs, known.get(runs.module_id), with_tags=not self._is_offline)
        if sampled:
            return batch
        batch = run_pieces(
            self._pieces,
            rl_module=rl_module,
            batch=batch,
            episodes=episodes,
            explore=explore,
            shared_data=shared_data,
            **kwargs,
        )
        found = episodes_with_attention(self, episodes, known)
        windows = [(e, *fragment_windows(_checked(e), module)) for e, module in found]
        replace_batch_items(batch, Columns.OBS, [(e, as_rows(obs)) for e, obs, _ in windows])
        replace_batch_items(batch, Columns.NEXT_OBS, [(e, as_rows(obs)) for e, _, obs in windows])
        return batch


def _add_runs(
    batch: dict[str, Any],
    sampled: SampledRuns,
    module: AttentionModule | None,
    *,
    with_tags: bool,
) -> None:
    """Adds all columns of replayed runs, but those that pieces before have added."""
    runs, names, key = sampled.runs, (Columns.OBS, Columns.NEXT_OBS), batch_key(sampled)
    if module is not None:
        module.check_finite(module.observation(runs.obs), functools.partial(_step_of, runs))
    if module is None:
        at, ahead = runs.transitions, np.repeat(runs.n_step, runs.length)
        obs, next_obs = (
            tree.map_structure(lambda leaf, at=at: leaf[at], runs.obs) for at in (at, at + ahead)
        )
    elif runs.run_len == 1:
        obs, next_obs = run_windows(runs, module)
    else:
        obs, next_obs = run_streams(runs, module)
    columns = dict(zip(names, (obs, next_obs), strict=True)) | sampled.columns
    if module is not None and with_tags and not any(key in batch.get(name, {}) for name in names):
        columns[COLUMN] = {
            name: tags_column(_tags(column, runs.run_len))
            for name, column in zip(names, (obs, next_obs), strict=True)
        }
    for name, column in columns.items():
        rows = tree.map_structure(as_rows, column)
        batch.setdefault(name, {}).setdefault(key, [rows])


def _step_of(runs: RunSteps, index: int) -> str:
    run = int(np.searchsorted(runs.start, index, side="right")) - 1
    step = index - int(runs.start[run] + runs.num_past[run])
    return f"step {step} of replayed run {run}, counted from its first transition"


def _tags(packed: np.ndarray, run_len: int) -> np.ndarray:
    """Returns the tags of which a layout is made: of windows, the last ones say it all."""
    return tags_of(packed if run_len > 1 else packed[:, -1:])


def _checked(episode: SingleAgentEpisode) -> SingleAgentEpisode:
    """Raises for what RLlib's own replay buffers sample: it has no past."""
    if {"n_step", "weights"} <= set(episode.extra_model_outputs):
        raise ValueError(
            "A replayed transition has no past: its buffer was not upgraded, because "
            "`config.callbacks(on_algorithm_init=...)` was set after `use_attention`. Call "
            "`use_attention(config)` last: it keeps your callbacks."
        )
    return episode


def run_streams(runs: RunSteps, module: AttentionModule) -> tuple[np.ndarray, np.ndarray]:
    """Returns the streams of tokens of replayed runs and of their next observations.

    Args:
        runs: The runs, with B transitions.
        module: The module that acted in them.

    Returns:
        `obs` and `next_obs`, (B, K, P) each. K is the same in nearly every batch: enough for full
        runs with full contexts.

    Raises:
        ValueError: If there are more transitions than tags can count.
    """
    num_rows, context = int(runs.length.sum()), module.attention.context_len
    if num_rows > MAX_ROWS:
        raise ValueError(
            f"A batch of replayed runs must hold at most {MAX_ROWS} transitions, got {num_rows}. "
            "Use `config.training(train_batch_size_per_learner=...)`."
        )
    obs, prev = module.observation(runs.obs), _stacked(runs, module.prev_inputs)
    before = [np.minimum(runs.num_past + ahead, context) for ahead in (0, runs.n_step)]
    slots = -(-num_rows // runs.run_len)
    most = slots * (context + min(runs.run_len, num_rows) + int(runs.n_step.max()))
    row_size = -(-max(most, *(num_rows + int(n.sum()) for n in before)) // num_rows)
    streams = []
    for num_context, ahead in zip(before, (None, runs.n_step), strict=True):
        first = runs.start + runs.num_past + (0 if ahead is None else ahead) - num_context
        at = ranges(first, first + num_context + runs.length)
        tags = stream_tags(num_context, runs.length, row_size, ahead=ahead)
        steps = np.zeros(len(tags), at.dtype)  # padding repeats the first
        steps[: len(at)] = at
        tokens = pack_tokens(obs[steps], prev[steps], tags)
        streams.append(tokens.reshape(num_rows, row_size, -1))
    return streams[0], streams[1]


def run_windows(runs: RunSteps, module: AttentionModule) -> tuple[np.ndarray, np.ndarray]:
    """Returns the windows of replayed transitions and of their next observations.

    Args:
        runs: The runs, with B transitions.
        module: The module that acted in them.

    Returns:
        `obs` and `next_obs`, (B, C + 1, P) each.
    """
    obs, prev = module.observation(runs.obs), _stacked(runs, module.prev_inputs)
    at, start = runs.transitions, np.repeat(runs.start, runs.length)
    ahead = np.repeat(runs.n_step, runs.length)
    context = module.attention.context_len
    return (
        _windows(obs, prev, at, start, context, is_next=False),
        _windows(obs, prev, at + ahead, start, context, is_next=True),
    )


def fragment_windows(
    episode: SingleAgentEpisode, module: AttentionModule
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the windows of each step of a fragment, and of the step after.

    Args:
        episode: A fragment of an episode.
        module: The module that acts in it.

    Returns:
        Windows of `obs` and `next_obs`, (T, C + 1, P) each.
    """
    # One step more than the fragment has actions: the last observation.
    inputs = training_inputs(episode, module, len(episode) + 1)
    prev = module.prev_inputs.stack(inputs.rows) if module.prev_inputs.size else inputs.rows
    at = inputs.num_past + np.arange(len(episode))
    start, context = np.zeros_like(at), module.attention.context_len
    return (
        _windows(inputs.obs, prev, at, start, context, is_next=False),
        _windows(inputs.obs, prev, at + 1, start, context, is_next=True),
    )


def _windows(
    obs: np.ndarray,
    prev: np.ndarray,
    at: np.ndarray,
    start: np.ndarray,
    context: int,
    *,
    is_next: bool,
) -> np.ndarray:
    """Returns the windows that end at steps `at` and reach back to `start` at most, (B, C + 1, P).

    Args:
        obs: (S, *obs).
        prev: Stacked previous actions and rewards, (S, A).
        at: (B,).
        start: (B,).
        context: Steps C before the last one of each window.
        is_next: Whether these are next observations.
    """
    steps = at[:, None] + np.arange(-context, 1)
    is_real = steps >= start[:, None]
    steps = np.where(is_real, steps, at[:, None]).ravel()
    # Padding shows no step: what is masked should not be there at all.
    tags = window_tags(is_real.ravel(), is_next=is_next)
    tokens = pack_tokens(obs[steps], prev[steps], tags)
    tokens[~is_real.ravel()] = 0
    return tokens.reshape(len(at), context + 1, -1)


def _stacked(runs: RunSteps, prev: PrevInputs) -> np.ndarray:
    """Returns the stacked previous actions and rewards of all steps, (S, A)."""
    num_steps = len(runs.rewards)
    if not prev.size:
        return np.zeros((num_steps, 0), np.float32)
    rows = prev.rows(runs.actions, runs.rewards, num_steps)
    # How far back each of a step's rows lies. None reaches from one run into the one before it.
    back = np.arange(prev.depth, 0, -1)
    step = np.arange(num_steps) - np.repeat(runs.start, runs.size)
    reached = rows[np.maximum(np.arange(num_steps)[:, None] - back, 0)]
    reached[step[:, None] < back] = prev.none
    return prev.stack(reached)[:, 0]
