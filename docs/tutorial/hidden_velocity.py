"""The tutorial's run: CartPole without velocities, from the environment to the attention map.

`python docs/tutorial/hidden_velocity.py` writes `results.json`, `learning_curve.png` and
`attention.png` beside this script; `--out` writes them elsewhere. It takes minutes on one core.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import (
    AttentionConfig,
    AttentionPolicy,
    plot_attention,
    record_attention,
    use_attention,
)

ATTENTION = AttentionConfig(num_layers=2, window=16, max_seq_len=32)
# Env steps and mean returns, one of each for an iteration.
Curve = list[tuple[int, float]]


class HiddenVelocity(gym.ObservationWrapper):
    """Shows where the cart and the pole are, and hides how fast they move."""

    def __init__(self, config: dict):
        super().__init__(gym.make("CartPole-v1"))
        low, high = self.env.observation_space.low, self.env.observation_space.high
        self.observation_space = gym.spaces.Box(low[::2], high[::2])

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Returns the position of the cart and the angle of the pole."""
        return observation[::2]


def make_config() -> PPOConfig:
    """Returns PPO's options, for a model with and one without memory."""
    return (
        PPOConfig()
        .environment(HiddenVelocity)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64], vf_share_layers=True))
        .training(
            lr=5e-4,
            train_batch_size_per_learner=4096,
            minibatch_size=512,
            num_epochs=6,
            vf_loss_coeff=0.05,
        )
        .debugging(seed=0, log_level="ERROR")
    )


def train(algo: Algorithm, *, bar: float, max_steps: int) -> Curve:
    """Trains until the mean return is at the bar, or the steps are spent."""
    curve: Curve = []
    while not curve or (curve[-1][1] < bar and curve[-1][0] < max_steps):
        result = algo.train()
        steps = int(result["num_env_steps_sampled_lifetime"])
        curve.append((steps, float(result["env_runners"]["episode_return_mean"])))
        print(f"{steps:>9,} env steps   return {curve[-1][1]:6.1f}", flush=True)
    return curve


def mean_return(policy: AttentionPolicy, *, episodes: int, forget: bool) -> float:
    """Plays without exploration; `forget` takes the past away before each step."""
    returns = []
    for seed in range(1000, 1000 + episodes):
        env = HiddenVelocity({})
        (obs, _), done, total = env.reset(seed=seed), False, 0.0
        policy.reset()
        while not done:
            if forget:
                policy.reset()
            obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
            done, total = terminated or truncated, total + float(reward)
        returns.append(total)
    return float(np.mean(returns))


def draw_curves(curves: dict[str, Curve], bar: float, path: Path) -> None:
    """Draws mean returns over env steps."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for label, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker=".", label=label)
    axes.axhline(bar, linestyle="--", color="grey", label="bar")
    axes.set(xlabel="environment steps", ylabel="mean episode return")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(out: Path, *, bar: float, max_steps: int, episodes: int) -> dict:
    """Runs the tutorial and returns its numbers."""
    began = time.process_time()
    algo = use_attention(make_config(), ATTENTION).build_algo()
    with_memory = train(algo, bar=bar, max_steps=max_steps)
    seconds = time.process_time() - began

    control = make_config().build_algo()
    without_memory = train(control, bar=bar, max_steps=with_memory[-1][0])
    control.stop()
    draw_curves({"attention": with_memory, "MLP": without_memory}, bar, out / "learning_curve.png")

    record = record_attention(algo, seed=0)
    plot_attention(record, out / "attention.png", max_steps=100)

    with tempfile.TemporaryDirectory() as folder:
        policy = AttentionPolicy.from_checkpoint(algo.save_to_path(folder))
    algo.stop()
    results = {
        "bar": bar,
        "env_steps": with_memory[-1][0],
        "cpu_seconds": round(seconds),
        "return": round(with_memory[-1][1], 1),
        "mlp_return": round(without_memory[-1][1], 1),
        "mlp_best": round(max(value for _, value in without_memory), 1),
        "policy_return": round(mean_return(policy, episodes=episodes, forget=False), 1),
        "forgetful_return": round(mean_return(policy, episodes=episodes, forget=True), 1),
        "context_len": ATTENTION.context_len,
        "steps_recorded": len(record),
        "mean_lag": [round(record.mean_lag(layer=layer), 2) for layer in range(2)],
        "entropy": [round(record.entropy(layer=layer), 2) for layer in range(2)],
        "share_by_lag": {
            str(lag): [round(record.share(lag, layer=layer), 2) for layer in range(2)]
            for lag in range(4)
        },
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--bar", type=float, default=350.0)
    parser.add_argument("--max-steps", type=int, default=200_000)
    parser.add_argument("--episodes", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    options = {"bar": args.bar, "max_steps": args.max_steps, "episodes": args.episodes}
    print(json.dumps(main(args.out, **options), indent=2))
