"""What an env step costs at long contexts: dilated stacks beside the plain one.

How to run this script
----------------------
`python -m tests.benchmarks.long_context`, on a machine that does nothing else.

`--profile` prints, after the table, where the time of each half of an iteration goes.

Results to expect
-----------------
A table: milliseconds of a rollout and of a learner's update for each env step, and their ratios to
the plain stack, medians of interleaved rounds. Episodes never end, contexts are full, and each
sub-environment's fragment is one chunk: twice the context, which is the package's default, and
1,000 steps at least.
"""

import argparse
import copy
import cProfile
import dataclasses
import io
import pstats
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm

from tests.benchmarks import phases
from tests.benchmarks.labels import ATTENTION
from tests.benchmarks.models import ppo_config
from tests.benchmarks.options import Options, Size
from tests.benchmarks.rollout_growth import FOREVER
from tests.benchmarks.timing import interleave, ratio, seconds, spread

# Fields of `AttentionConfig`, by the context that they reach.
STACKS: dict[int, dict[str, int]] = {
    62: {"num_layers": 2, "window": 32},
    1_023: {"num_layers": 2, "window": 32, "dilation": 32},
    10_647: {"num_layers": 3, "window": 22, "dilation": 22},
}
PLAIN = min(STACKS)


@dataclasses.dataclass(frozen=True)
class Case:
    """One stack, with an algorithm around it.

    Attributes:
        algo: Trains on one fragment of `chunk` steps from each sub-environment.
        chunk: Steps of a training chunk.
    """

    algo: Algorithm
    chunk: int

    @property
    def steps(self) -> int:
        """Env steps of an iteration."""
        return int(self.algo.config.train_batch_size_per_learner)


def make_case(context: int, num_envs: int, factor: float) -> Case:
    """Builds an algorithm whose contexts are full.

    Args:
        context: A key of `STACKS`.
        num_envs: Sub-environments.
        factor: Length of a chunk, in contexts.
    """
    chunk = max(int(factor * context), 1_000)
    steps = num_envs * chunk
    options = Options(num_envs=num_envs, batch=steps, minibatch=steps, num_epochs=1)
    size = Size(dim=64, window=STACKS[context]["window"])
    # RLlib's artificial step at the end of a fragment must not open a row of its own.
    config = ppo_config(ATTENTION, size, options, max_seq_len=chunk + 1, **STACKS[context])
    algo = config.environment(env_config={"length": FOREVER}).build_algo()
    phases.rollout(algo, steps)  # from here on there is a past
    return Case(algo, chunk)


def rollout(case: Case, steps: int) -> float:
    """Returns the seconds of an env step in a rollout, after a warm-up that rebuilds the cache."""
    phases.rollout(case.algo, 2 * int(case.algo.config.num_envs_per_env_runner))
    return seconds(lambda: phases.rollout(case.algo, steps)) / steps


def update(case: Case, episodes: Any) -> float:
    """Returns the seconds of an env step in a learner's update."""
    episodes = copy.deepcopy(episodes)
    return seconds(lambda: phases.update(case.algo, episodes)) / case.steps


def table(figures: dict[int, dict[str, list[float]]]) -> str:
    """Returns the Markdown table.

    Args:
        figures: By context, the seconds of each round under "rollout" and "update".
    """
    lines = [
        "| context | rollout, ms | to plain | update, ms | to plain |",
        "|---|---|---|---|---|",
    ]
    for context, found in figures.items():
        cells = [f"{context:,}"]
        for name in ("rollout", "update"):
            cells += [
                spread(found[name]).text(3, 1e3),
                ratio(found[name], figures[PLAIN][name]).text(),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def profile(action: Callable[[], object], rows: int = 25) -> str:
    """Returns where the time of a call goes, by function.

    Args:
        action: What to call.
        rows: Functions to list, the dearest first.
    """
    profiler = cProfile.Profile()
    profiler.runcall(action)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(rows)
    lines = [line for line in text.getvalue().splitlines() if line.strip()]
    # A function's file, without the folders that only this machine has.
    return "\n".join(_shortened(line) for line in lines)


def _shortened(line: str) -> str:
    head, _, place = line.rpartition(" ")
    return f"{head} {'/'.join(Path(place).parts[-3:])}" if "/" in place else line


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.long_context")
    parser.add_argument("--contexts", nargs="+", type=int, choices=STACKS, default=list(STACKS))
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--factor", type=float, default=2.0, help="a chunk's length, in contexts")
    parser.add_argument("--rollout-steps", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    cases = {n: make_case(n, args.num_envs, args.factor) for n in sorted({PLAIN, *args.contexts})}
    data = {n: phases.rollout(case.algo, case.steps) for n, case in cases.items()}

    def turn(context: int) -> dict[str, float]:
        case = cases[context]
        return {
            "rollout": rollout(case, args.rollout_steps),
            "update": update(case, data[context]),
        }

    figures = interleave({n: partial(turn, n) for n in cases}, args.rounds)
    print(table(figures))
    for context, case in cases.items() if args.profile else ():
        for action in (
            partial(phases.rollout, case.algo, args.rollout_steps),
            partial(phases.update, case.algo, copy.deepcopy(data[context])),
        ):
            print(f"\n## {action.func.__name__}, context {context:,}\n\n{profile(action)}")


if __name__ == "__main__":
    main()
