"""Measures what one decision of an `AttentionPolicy` costs, by the number of sessions in a batch.

How to run this script
----------------------
`python -m tests.benchmarks.acting`

Results to expect
-----------------
A line for each number of sessions: CPU time of a call of `act`, and of each decision in it.
"""

import time

import gymnasium as gym
import numpy as np
import torch

from rllib_attention import AttentionConfig, AttentionPolicy

SESSIONS = (1, 64, 1024)
DECISIONS = 2000  # of each size, at least
OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (8,), np.float32)


def call_seconds(num_sessions: int) -> float:
    """Returns the CPU seconds of one call of `act`, once the windows are full.

    Args:
        num_sessions: Sessions in the batch.
    """
    attention = AttentionConfig(dim=64, num_heads=4, num_layers=2, window=32)
    policy = AttentionPolicy.from_spaces(attention, OBSERVATIONS, gym.spaces.Discrete(4))
    obs = dict.fromkeys(range(num_sessions), OBSERVATIONS.sample())
    for _ in range(attention.context_len + 1):
        policy.act(obs)
    calls = max(10, DECISIONS // num_sessions)
    start = time.process_time()
    for _ in range(calls):
        policy.act(obs)
    return (time.process_time() - start) / calls


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    print("sessions   ms per call   ms per decision")
    for number in SESSIONS:
        seconds = call_seconds(number)
        print(f"{number:8}   {1e3 * seconds:11.2f}   {1e3 * seconds / number:15.3f}")


if __name__ == "__main__":
    main()
