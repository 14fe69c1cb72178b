"""Every tuned example reaches its bar (`pytest -m learning`), and a report says how.

The bars with their controls take minutes each. The report goes to `results/learning/report.md`.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from common.envs import TMaze
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import use_attention
from tests.benchmarks.learning.controls.one_run import MODULE
from tests.benchmarks.learning.controls.outcomes import closing_line_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tuned_examples"
REPORT = ROOT / "results" / "learning" / "report.md"
RunScript = Callable[..., subprocess.CompletedProcess]

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]

# Each script as its docstring shows it.
BARS = [
    "ppo_repeat_previous.py",
    "ppo_repeat_previous.py --difficulty=medium",
    "ppo_stateless_cartpole.py",
    "ppo_t_maze.py --corridor-length=10",
    "ppo_t_maze.py --corridor-length=30",
    "ppo_t_maze.py --corridor-length=100",
    "ppo_bandit_meta_rl.py",
    "ppo_minigrid_memory.py",
    "ppo_multi_agent.py",
    "appo_stateless_cartpole.py",
    "dqn_repeat_previous.py",
    "sac_masked_pendulum.py",
    "bc_from_memory_policy.py",
    "iql_from_memory_policy.py",
    "old_stack_ppo.py",
    "tune_sweep.py --num-samples=4",
]
# Without memory no training helps: these must miss the bar.
CONTROLS = [
    "--task=repeat_previous --stop-timesteps=100000",
    "--task=stateless_cartpole --stop-timesteps=100000",
    "--task=t_maze_10 --stop-timesteps=50000",
]


@pytest.fixture(scope="module")
def report() -> Iterator[list[str]]:
    """Collects rows of the report and writes it after the last run."""
    rows = ["| command | return | env steps | seconds | bar |", "|---|---|---|---|---|"]
    yield rows
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(rows) + "\n")
    print(f"report: {REPORT}")


def row_of(command: str, line: re.Match[str]) -> str:
    cells = [line["value"], line["steps"], line["seconds"], f"{line['bar']} {line['verdict']}"]
    return f"| `python {command}` | {' | '.join(cells)} |"


def run_to_the_end(
    command: str, run_script: RunScript, tmp_path: Path, report: list[str]
) -> subprocess.CompletedProcess:
    done = run_script(*command.split(), "--as-test", timeout=3600)
    (tmp_path / "log.txt").write_text(done.stdout)
    line = closing_line_of(tmp_path / "log.txt")
    report.append(row_of(command, line) if line else f"| `python {command}` | failed | | | |")
    assert line, done.stderr
    return done


@pytest.mark.parametrize("command", BARS)
def test_bar_is_reached(
    command: str, run_script: RunScript, tmp_path: Path, report: list[str]
) -> None:
    done = run_to_the_end(f"{EXAMPLES}/{command}", run_script, tmp_path, report)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("command", CONTROLS)
def test_control_without_memory_misses_the_bar(
    command: str, run_script: RunScript, tmp_path: Path, report: list[str]
) -> None:
    command = f"-m {MODULE} --model=mlp --results-dir=out {command}"
    done = run_to_the_end(command, run_script, tmp_path, report)
    assert done.returncode == 1, done.stdout.splitlines()[-1]


def best_return(config: AlgorithmConfig, *, env_steps: int, enough: float) -> float:
    """Trains until the mean return is `enough` or the steps are spent; returns the best mean."""
    algo = config.debugging(seed=0).build_algo()
    best, steps = -np.inf, 0.0
    while steps < env_steps and best < enough:
        result = algo.train()
        best = max(best, result["env_runners"]["episode_return_mean"])
        steps = result["num_env_steps_sampled_lifetime"]
    algo.stop()
    return float(best)


def maze(config: dict) -> gym.Env:
    return TMaze({"corridor_length": 10})


@pytest.mark.parametrize("env", [maze])
def test_defaults_learn_what_needs_memory(env: Callable[[dict], gym.Env]) -> None:
    """Nothing is set but the environment: neither PPO's options nor attention's."""
    from ray import tune

    tune.register_env("memory_task", env)
    attention = use_attention(PPOConfig().environment("memory_task"))
    mlp = PPOConfig().environment("memory_task")
    assert best_return(attention, env_steps=100_000, enough=0.8) >= 0.8
    # 100 episodes make up the mean: guessing is 0, and 0.5 is five deviations away.
    assert best_return(mlp, env_steps=50_000, enough=0.8) < 0.5
