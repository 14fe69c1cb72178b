"""Buffers through which recorded episodes are sampled (BC, MARWIL, CQL, IQL)."""

from typing import Any

from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer

from rllib_attention.new_stack.replay_buffers.buffers import HistoryEpisodeReplayBuffer


class OfflineHistoryBuffer(HistoryEpisodeReplayBuffer):
    """Buffer for offline algorithms that train on recorded episodes, in runs with their past.

    Example:
        >>> from ray.rllib.algorithms.cql import CQLConfig
        >>> from rllib_attention.new_stack.replay_buffers import OfflineHistoryBuffer
        >>> config = CQLConfig().offline_data(
        ...     input_read_episodes=True,
        ...     prelearner_buffer_class=OfflineHistoryBuffer,
        ...     prelearner_buffer_kwargs={"history_len": 30, "run_len": 8},
        ... )
    """

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Samples as `HistoryEpisodeReplayBuffer` does.

        Args:
            *args: Positional arguments of RLlib's `sample`.
            **kwargs: Keyword arguments of RLlib's `sample`.

        Returns:
            A list of one `SampledRuns`.

        Raises:
            ValueError: If `n_step` is not 1, as the losses of CQL and IQL discount by one step.
        """
        n_step = kwargs.get("n_step", 1)
        if n_step not in (1, None):
            raise ValueError(
                f"`n_step` must be 1 for offline data, but got {n_step!r}: the losses of CQL and "
                "IQL discount by one step. Call `config.training(n_step=1)`."
            )
        # RLlib asks for a lookback, which runs have anyway.
        return super().sample(*args, **kwargs)


class OfflineChunkBuffer(EpisodeReplayBuffer):
    """Buffer for offline algorithms that train on chunks: samples as many as one batch needs.

    RLlib's `OfflinePreLearner` asks for `train_batch_size_per_learner` env steps, cuts them into a
    few chunks, and RLlib's learners take `train_batch_size_per_learner` chunks for a batch: that is
    one batch from each `max_seq_len` calls, and on a small data set less than one in each epoch.
    """

    def sample(
        self,
        num_items: int | None = None,
        *,
        batch_length_T: int | None = None,  # noqa: N803
        **kwargs: Any,
    ) -> Any:
        """Samples as RLlib's buffer does, but `num_items` chunks (or a few more).

        Args:
            num_items: Number of chunks.
            batch_length_T: Longest chunk.
            **kwargs: As for `EpisodeReplayBuffer.sample`.

        Returns:
            A list of chunks with their lookback.
        """
        if num_items is not None and batch_length_T:
            # RLlib counts one step more for each chunk than it has.
            num_items *= batch_length_T + 1
        return super().sample(num_items, batch_length_T=batch_length_T, **kwargs)
