"""What `AttentionMapCallback` costs: CPU seconds of evaluations with and without it.

`python -m tests.benchmarks.map_callback` evaluates PPO over 2 episodes of 500 steps, several
times in turns, and prints the best time of each and their ratio.
"""

import time
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionConfig, AttentionMapCallback
from tests.harness import RandomEnv, build, prepare

OPTIONS = {
    "window 32, 2 layers": AttentionConfig(),
    "window 22, 3 layers, dilation 22": AttentionConfig(num_layers=3, window=22, dilation=22),
}
ROUNDS = 3


def make(attention: AttentionConfig, **callbacks: Any) -> Algorithm:
    """Builds an algorithm that can evaluate."""
    config = prepare(PPOConfig(), RandomEnv, lengths=(500, 501)).callbacks(**callbacks)
    config.env_runners(num_envs_per_env_runner=1)
    return build(config.evaluation(evaluation_interval=1, evaluation_duration=2), attention)


def seconds(algo: Algorithm) -> float:
    """Returns the CPU seconds of one evaluation."""
    start = time.process_time()
    algo.evaluate()
    return time.process_time() - start


def main() -> None:
    """Prints a row for each model."""
    print("| model | evaluation | with the callback | ratio |\n|---|---|---|---|")
    for name, attention in OPTIONS.items():
        plain, logged = make(attention), make(attention, callbacks_class=AttentionMapCallback)
        times = [(seconds(plain), seconds(logged)) for _ in range(ROUNDS)]
        without, with_callback = (min(column) for column in zip(*times, strict=True))
        print(
            f"| {name} | {without:.2f} s | {with_callback:.2f} s | {with_callback / without:.2f} |"
        )
        plain.stop()
        logged.stop()


if __name__ == "__main__":
    main()
