"""A PPO learner that shows what its epochs do: to trained episodes, and to held-out ones.

A quarter of each iteration's rows is not trained on. After each epoch both parts are looked at:

- `surrogate`: the mean of (ratio - 1) * advantage, in standard deviations of the advantage. What
  is gained on trained rows and not on held-out ones is memorised.
- `kl`: mean KL divergence from the behaviour policy.
- `explained`: variance of the value targets that the value head explains.
- `entropy` of the policy.

Beside them the mean gradient norm by part of the model, before clipping.

`python -m tests.benchmarks.learning.diagnostics --task higher_lower_easy --model lstm` prints a
table of them.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import ray
import torch
import tree
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.torch_utils import explained_variance

from tests.benchmarks.learning.models import make_config
from tests.benchmarks.learning.tasks import TASKS

HELD_OUT = 0.25
PARTS = ("tokenizer", "memory", "pi", "vf")


class DiagnosticLearner(PPOTorchLearner):
    """Holds rows out and keeps a record per iteration in `records`."""

    def build(self) -> None:
        """Starts without records."""
        super().build()
        self.records: list[dict[str, Any]] = []

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Runs all epochs and looks at both parts after each."""
        self._norms: dict[str, list[float]] = defaultdict(list)
        self._seen_rows, self._epochs = 0, []
        result = super().update(*args, **kwargs)
        norms = {part: sum(values) / len(values) for part, values in self._norms.items()}
        self.records.append({"epochs": self._epochs, "gradients": norms})
        return result

    def _make_batch_if_necessary(self, training_data: Any) -> MultiAgentBatch:
        whole = super()._make_batch_if_necessary(training_data)
        batch = whole.policy_batches[DEFAULT_MODULE_ID]
        # Rows are in the order of their episodes: at most one episode lies on both sides.
        num_rows = len(batch[Columns.LOSS_MASK])
        cut = num_rows - int(num_rows * HELD_OUT)
        self._trained = _rows(batch, slice(0, cut))
        self._held_out = _rows(batch, slice(cut, num_rows))
        self._num_rows = cut
        self._epochs.append(self._look())
        return MultiAgentBatch({DEFAULT_MODULE_ID: self._trained}, len(self._trained))

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        result = super()._update(batch, **kwargs)
        self._seen_rows += len(batch[DEFAULT_MODULE_ID][Columns.LOSS_MASK])
        if self._seen_rows >= self._num_rows * len(self._epochs):
            self._epochs.append(self._look())
        return result

    def compute_gradients(self, loss_per_module: Any, **kwargs: Any) -> Any:
        """Computes gradients and notes their norms."""
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        squares: dict[str, float] = defaultdict(float)
        for name, weight in self.module[DEFAULT_MODULE_ID].named_parameters():
            if weight.grad is not None:
                squares[part_of(name)] += float(weight.grad.square().sum())
        for part, square in squares.items():
            self._norms[part].append(math.sqrt(square))
        return gradients

    def _look(self) -> dict[str, dict[str, float]]:
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        parts = {"trained": self._trained, "held out": self._held_out}
        return {part: evaluate(module, batch) for part, batch in parts.items()}


@torch.no_grad()
def evaluate(module: Any, batch: SampleBatch) -> dict[str, float]:
    """Compares a module with the policy that sampled a batch.

    Args:
        module: PPO's module.
        batch: Rows of a train batch, GAE done.

    Returns:
        The figures that the head of this file explains.
    """
    module.eval()  # no dropout
    out = module._forward_train(batch)
    mask = batch[Columns.LOSS_MASK].bool()
    distribution = module.get_train_action_dist_cls()
    now = distribution.from_logits(out[Columns.ACTION_DIST_INPUTS])
    before = distribution.from_logits(batch[Columns.ACTION_DIST_INPUTS])
    ratio = torch.exp(now.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP])
    values = module.compute_values(batch, embeddings=out.get(Columns.EMBEDDINGS))
    advantages = batch[Postprocessing.ADVANTAGES]
    figures = {
        "surrogate": ((ratio - 1.0) * advantages)[mask].mean(),
        "kl": before.kl(now)[mask].mean(),
        "entropy": now.entropy()[mask].mean(),
        "explained": explained_variance(batch[Postprocessing.VALUE_TARGETS][mask], values[mask]),
    }
    return {name: round(float(value), 5) for name, value in figures.items()}


def part_of(name: str) -> str:
    """Returns which of `PARTS` a weight belongs to.

    Args:
        name: As `named_parameters` gives it.
    """
    head = name.split(".", 1)[0]
    if head in ("pi", "vf"):
        return head
    return "tokenizer" if "tokenizer" in name else "memory"


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns the means over iterations, after each epoch, as Markdown.

    Args:
        records: Of a `DiagnosticLearner`.
    """
    epochs = len(records[0]["epochs"])
    lines = [
        f"| rows | figure | {' | '.join(f'epoch {i}' for i in range(epochs))} |",
        f"|---|---|{'---|' * epochs}",
    ]
    for part in ("trained", "held out"):
        for figure in ("surrogate", "kl", "entropy", "explained"):
            values = [[epoch[part][figure] for epoch in r["epochs"]] for r in records]
            cells = " | ".join(f"{value:.4f}" for value in np.mean(values, axis=0))
            lines.append(f"| {part} | {figure} | {cells} |")
    norms = {part: np.mean([r["gradients"][part] for r in records]) for part in PARTS}
    return "\n".join([*lines, "", f"gradients: { ({k: round(v, 3) for k, v in norms.items()}) }"])


def main(arguments: Iterable[str] | None = None) -> None:
    """Trains some iterations and prints the table.

    Args:
        arguments: The command line; None for the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.learning.diagnostics")
    parser.add_argument("--task", choices=list(TASKS), default="higher_lower_easy")
    parser.add_argument("--model", choices=("attention", "lstm"), default="attention")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fields", type=json.loads, default={}, help="AttentionConfig, as JSON")
    args = parser.parse_args(None if arguments is None else list(arguments))
    ray.init(include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    training = {"learner_class": DiagnosticLearner}
    algo = make_config(args.task, args.model, args.seed, args.fields, training).build_algo()
    for _ in range(args.iterations):
        algo.train()
    print(table(algo.learner_group._learner.records))
    algo.stop()


def _rows(batch: SampleBatch, rows: slice) -> SampleBatch:
    columns = tree.map_structure(lambda column: column[rows], dict(batch))
    return SampleBatch(columns, _zero_padded=batch.zero_padded)


if __name__ == "__main__":
    main()
