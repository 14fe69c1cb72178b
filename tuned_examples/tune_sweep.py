"""A Ray Tune sweep over the fields of the attention model.

This example:
    - searches layers, window, heads, width, learning rates, token sizes in the package's space,
      `use_attention(config, **attention_search_space())`, and over the learning rate.
    - lets ASHA stop weak trials early, so that the step budget goes to the good ones.
    - goes on after an interruption with `--resume`.
    - ends with a table of all trials, best first, and a plot of their learning curves.

How to run this script
----------------------
`python tune_sweep.py --num-samples=12 --max-concurrent-trials=2`

Go on with `python tune_sweep.py --resume=results/tune_sweep-...`. Needs
`pip install "rllib-attention[examples]"`. `--help` names all options.

Results to expect
-----------------
On POPGym's RepeatPreviousEasy (returns from -1 to 1, guessing gives -0.5), the bar for the best
trial is 0.7. With `--num-samples=4 --max-concurrent-trials=1 --stop-timesteps=30000
--checkpoint-every=3` on one core, three trials got there, the best with 0.770 after 14,336 steps,
and ASHA stopped the fourth after 6,144 at -0.475. The sweep was killed on the way and resumed.
"""

import argparse
import enum
import sys
import time
from pathlib import Path
from typing import Any

import ray
from common import example_parser, make_results_dir, require, start_ray
from common.envs import make_repeat_previous
from common.plots import plot_curves
from common.run import RETURN, STEPS, closing_line, metric
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from rllib_attention import attention_search_space, use_attention

parser = example_parser(__doc__, stop_reward=0.7, stop_timesteps=150_000)
parser.add_argument("--num-samples", type=int, default=12, help="trials to draw")
parser.add_argument("--max-concurrent-trials", type=int, default=2, help="trials at a time")
parser.add_argument("--checkpoint-every", type=int, default=0, help="iterations between; 0: at end")
parser.add_argument("--resume", default=None, metavar="DIR", help="results folder to go on from")


class ProgressLine(tune.Callback):
    """Prints one line per training iteration of any trial."""

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Prints trial, return and steps."""
        value, steps = metric(result, RETURN), metric(result, STEPS)
        line = f"trial {trial.trial_id}  return {value:8.3f}  env_steps {steps:>9,.0f}"
        open_trials = sum(not other.is_finished() for other in trials)
        print(f"{line}  {open_trials} of {len(trials)} trials open", flush=True)


def make_config(args: argparse.Namespace) -> AlgorithmConfig:
    """Returns PPO's config with search spaces in it."""
    config = (
        PPOConfig()
        .environment("repeat_previous")
        .env_runners(
            num_env_runners=args.num_env_runners,
            num_envs_per_env_runner=16,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64], vf_share_layers=True))
        .training(
            lr=tune.loguniform(1e-4, 2e-3),
            gamma=0.5,  # Each answer is rewarded at once and changes nothing later.
            train_batch_size_per_learner=2048,
            minibatch_size=256,
            num_epochs=6,
            vf_loss_coeff=0.5,
        )
        .debugging(seed=args.seed, log_level="ERROR")
    )
    space = attention_search_space(max_layers=2, max_window=32, max_dim=64)
    return use_attention(config, max_seq_len=32, **space)


def make_tuner(config: AlgorithmConfig, args: argparse.Namespace) -> tune.Tuner:
    """Returns a new Tuner, or the interrupted one of `--resume`."""
    if args.resume:
        path = str(Path(args.resume).absolute())
        return tune.Tuner.restore(
            path, trainable=config.algo_class, param_space=config, resume_errored=True
        )
    folder = make_results_dir(args)
    print(f"results in {folder} (go on with --resume={folder})")
    stop = {RETURN: args.stop_reward, STEPS: args.stop_timesteps}
    if args.stop_iters:
        stop["training_iteration"] = args.stop_iters
    # The first rung comes after a sixth of the budget: memory shows late in a run.
    asha = ASHAScheduler(
        time_attr=STEPS, max_t=args.stop_timesteps, grace_period=args.stop_timesteps // 6
    )
    return tune.Tuner(
        config.algo_class,
        param_space=config,
        tune_config=tune.TuneConfig(
            metric=RETURN,
            mode="max",
            scheduler=asha,
            num_samples=args.num_samples,
            max_concurrent_trials=args.max_concurrent_trials,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            stop=stop,
            verbose=0,
            callbacks=[ProgressLine()],
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=True, checkpoint_frequency=args.checkpoint_every
            ),
        ),
    )


def flatten(config: Any, name: str = "") -> dict[str, Any]:
    """Lists the plain values in a nested config by their path."""
    if isinstance(config, dict):
        items = [
            flatten(value, f"{name}/{key}" if name else str(key)) for key, value in config.items()
        ]
        return {path: value for item in items for path, value in item.items()}
    if isinstance(config, enum.Enum):
        config = config.value  # A restored trial has the plain value.
    return {name: config} if isinstance(config, int | float | str) else {}


def differences(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reduces configs to the values that are not the same in all of them.

    Args:
        configs: The trials' configs, nested.

    Returns:
        For each config, its own values by the last part of their path.
    """
    flat = [flatten(config) for config in configs]
    paths = {path for config in flat for path in config}
    varying = sorted(path for path in paths if len({str(c.get(path)) for c in flat}) > 1)
    return [{path.rpartition("/")[2]: c.get(path) for path in varying} for c in flat]


def report(results: tune.ResultGrid, folder: Path, bar: float) -> tuple[float, float]:
    """Prints the table of trials, best first, and plots their curves.

    Args:
        results: The finished sweep.
        folder: Where the plot goes.
        bar: The return to reach.

    Returns:
        The best trial's return, and the environment steps of all trials together.
    """
    done = [result for result in results if result.metrics and STEPS in result.metrics]
    frames = [result.metrics_dataframe for result in done]
    if not done or any(RETURN not in frame for frame in frames):
        print("no trial has finished an episode yet")
        return float("nan"), 0.0
    settings = differences([result.config for result in done])
    rows = sorted(
        zip([frame[RETURN].iloc[-1] for frame in frames], frames, settings, strict=True),
        key=lambda row: -row[0],
    )
    curves, lines = {}, ["return    env_steps  settings"]
    for value, frame, setting in rows:
        label = ", ".join(
            f"{k}={v:.2g}" if isinstance(v, float) else f"{k}={v}" for k, v in setting.items()
        )
        lines.append(f"{value:7.3f}  {frame[STEPS].iloc[-1]:>9,.0f}  {label}")
        curves[label] = list(zip(frame[STEPS], frame[RETURN], strict=True))
    print("\n".join(lines))
    (folder / "trials.txt").write_text("\n".join(lines) + "\n")
    plot_curves(curves, folder / "trials.png", bar=bar)
    print(f"table and plot: {folder / 'trials.txt'}, trials.png")
    return rows[0][0], sum(frame[STEPS].iloc[-1] for frame in frames)


def main() -> None:
    """Runs the sweep from the command line."""
    args = parser.parse_args()
    if args.restore:
        parser.error("--restore is for a single run: go on with a sweep by --resume=DIR")
    require("popgym", "RepeatPrevious")
    start_ray(args)
    tune.register_env("repeat_previous", make_repeat_previous)
    started = time.perf_counter()
    results = make_tuner(make_config(args), args).fit()
    best, steps = report(results, Path(results.experiment_path), args.stop_reward)
    ray.shutdown()
    print(closing_line(best, steps, time.perf_counter() - started, bar=args.stop_reward))
    if args.as_test and not best >= args.stop_reward:
        sys.exit(1)


if __name__ == "__main__":
    main()
