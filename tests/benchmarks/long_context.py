"""What an env step costs at long contexts: dilated stacks beside the plain one.

How to run this script
----------------------
`python -m tests.benchmarks.long_context`, on a machine that does nothing else.

`--profile` prints, after the table, where the time of each half of an iteration goes.

Results to expect
-----------------
A table: milliseconds of a rollout and of a learner's update for each env step, and their ratios to
the plain stack, medians of interleaved rounds. Episodes never end, contexts are full, and each
sub-environment's fragment is one chunk: twice the context, and 1,000 steps at least.
"""

import argparse
import copy
import cProfile
import io
import pstats
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm

from tests.benchmarks import phases
from tests.benchmarks.learner_growth import one_chunk_each
from tests.benchmarks.options import Options, Size
from tests.benchmarks.timing import interleave, ratio, seconds, spread

# Fields of `AttentionConfig`, by the context that they reach.
STACKS: dict[int, dict[str, int]] = {
    62: {"num_layers": 2, "window": 32},
    1_023: {"num_layers": 2, "window": 32, "dilation": 32},
    10_647: {"num_layers": 3, "window": 22, "dilation": 22},
}
PLAIN = min(STACKS)


def make_algo(context: int, num_envs: int, factor: float) -> Algorithm:
    """Builds an algorithm whose contexts are full.

    Args:
        context: A key of `STACKS`.
        num_envs: Sub-environments.
        factor: Length of a chunk, in contexts.
    """
    chunk = max(int(factor * context), 1_000)
    options, size = Options(num_envs=num_envs, num_epochs=1), Size(64, STACKS[context]["window"])
    algo = one_chunk_each(size, chunk, options, **STACKS[context]).build_algo()
    phases.rollout(algo, num_envs * chunk)  # from here on there is a past
    return algo


def rollout(algo: Algorithm, steps: int) -> float:
    """Returns the seconds of an env step in a rollout, after a warm-up that rebuilds the cache."""
    phases.rollout(algo, 2 * int(algo.config.num_envs_per_env_runner))
    return seconds(lambda: phases.rollout(algo, steps)) / steps


def update(algo: Algorithm, episodes: Any) -> float:
    """Returns the seconds of an env step in a learner's update."""
    steps, episodes = phases.count_steps(episodes), copy.deepcopy(episodes)
    return seconds(lambda: phases.update(algo, episodes)) / steps


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
    stats = pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime")
    stats.print_stats(rows)
    return text.getvalue()


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
    algos = {n: make_algo(n, args.num_envs, args.factor) for n in sorted({PLAIN, *args.contexts})}
    data = {
        n: phases.rollout(algo, int(algo.config.train_batch_size_per_learner))
        for n, algo in algos.items()
    }

    def turn(context: int) -> dict[str, float]:
        algo = algos[context]
        return {
            "rollout": rollout(algo, args.rollout_steps),
            "update": update(algo, data[context]),
        }

    figures = interleave({n: partial(turn, n) for n in algos}, args.rounds)
    print(table(figures))
    for context, algo in algos.items() if args.profile else ():
        for action in (
            partial(phases.rollout, algo, args.rollout_steps),
            partial(phases.update, algo, copy.deepcopy(data[context])),
        ):
            print(f"\n## {action.func.__name__}, context {context:,}\n\n{profile(action)}")


if __name__ == "__main__":
    main()
