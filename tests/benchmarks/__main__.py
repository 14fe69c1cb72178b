"""Measures speed, bytes and memory against RLlib's own models, and writes a report.

How to run this script
----------------------
`python -m tests.benchmarks --out results/benchmarks`

Nothing else should run on the machine. `--quick` shows in about a minute that everything works, and
`--parts ppo limit` measures some parts only.

Results to expect
-----------------
A Markdown table of ratios beside their aims, then what they come from; in the output folder
`results.md`, `results.json` (every round's figure) and `results.png`.
"""

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import ray

from tests.benchmarks.acting import decision_seconds
from tests.benchmarks.aims import figures
from tests.benchmarks.comparison import compare_ppo
from tests.benchmarks.footprint import shipped_bytes, stored_bytes
from tests.benchmarks.learner_growth import encoder_growth, short_episodes, update_growth
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.map_callback import evaluation_seconds
from tests.benchmarks.options import Options, Size, parse_options
from tests.benchmarks.peak_memory import peak_memory
from tests.benchmarks.physical_limit import measure_limit
from tests.benchmarks.plot import plot
from tests.benchmarks.replay import compare_replay
from tests.benchmarks.report import render
from tests.benchmarks.rollout_growth import rollout_growth


def measure(options: Options) -> dict[str, Any]:
    """Measures the parts that were asked for.

    Args:
        options: The command line.

    Returns:
        The results by part, with the machine and the options.
    """
    first = options.sizes[0]

    def each(measure_size: Callable[[Size, Options], Any]) -> dict[str, Any]:
        return {str(size): measure_size(size, options) for size in options.sizes}

    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "ppo": lambda: each(compare_ppo),
        "replay": lambda: {str(first): compare_replay(first, options)},
        "rollout": lambda: dict(rollout_growth(options)),
        "learner": lambda: {
            "encoder": encoder_growth(options),
            "update": update_growth(options),
            "short episodes": short_episodes(options),
        },
        "bytes": lambda: {
            "shipped": shipped_bytes(first, options),
            "stored": stored_bytes(first, options),
        },
        "memory": lambda: each(peak_memory),
        "limit": lambda: each(measure_limit),
        "acting": lambda: {str(first): decision_seconds(first, options)},
        "callback": lambda: dict(evaluation_seconds(options)),
    }
    results: dict[str, Any] = {"machine": describe_machine(), "options": options.to_dict()}
    for part in options.parts:
        start = time.perf_counter()
        print(part, end=" ", file=sys.stderr, flush=True)
        results[part] = parts[part]()
        print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return results


def main() -> None:
    """Measures, prints the tables, and writes the results."""
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    # RLlib's hints about API stacks, and Gymnasium's about registering one environment often.
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    results = measure(options)
    results["figures"] = [
        figure._asdict() | {"value": figure.value._asdict(), "verdict": figure.verdict}
        for figure in figures(results)
    ]
    ray.shutdown()
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report = render(results)
    (options.out / "results.md").write_text(report)
    plot(results, options.out / "results.png")
    print(report)


if __name__ == "__main__":
    main()
