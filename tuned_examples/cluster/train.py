"""The training job for a Ray cluster: remote runners, a remote learner, checkpoints, resume.

This example:
    - runs as a Ray job on any cluster (see `submit.py`): env runners are spread over the nodes, the
      learner is an actor of its own.
    - stores checkpoints where all nodes can reach them (`--storage-path`: a shared folder, or
      `s3://...`), and goes on from the latest one when the job is submitted again under the same
      `--name`.
    - survives lost nodes: env runners are restarted, a failed trial is retried from its checkpoint.

How to run this script
----------------------
`python submit.py --address=http://HEAD:8265 -- --num-env-runners=16 --storage-path=s3://bucket/runs`

`--help` names all options.

Results to expect
-----------------
PPO on CartPole without velocities reaches a mean return of 350; a policy without memory stays below
about 100. The last line of the job's log names return, environment steps and seconds.
"""

import argparse
import sys
from typing import Any

import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.examples.envs.classes.stateless_cartpole import StatelessCartPole

from rllib_attention import use_attention

RETURN = "env_runners/episode_return_mean"
STEPS = "num_env_steps_sampled_lifetime"


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="attention", help="name of the run, also for resuming")
    parser.add_argument(
        "--storage-path", required=True, help="folder or bucket that all nodes can reach"
    )
    parser.add_argument("--num-env-runners", type=int, default=4, help="remote env runners (4)")
    parser.add_argument("--num-envs-per-env-runner", type=int, default=8, help="envs in each (8)")
    parser.add_argument("--num-learners", type=int, default=1, help="remote learners (1)")
    parser.add_argument("--num-gpus-per-learner", type=float, default=0, help="GPUs for each (0)")
    parser.add_argument("--stop-reward", type=float, default=350.0, help="return to reach (350)")
    parser.add_argument("--stop-timesteps", type=int, default=500_000, help="step budget (500,000)")
    parser.add_argument(
        "--checkpoint-every", type=int, default=5, help="iterations between checkpoints (5)"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="also show what all workers of the job print"
    )
    parser.add_argument("--as-test", action="store_true", help="fail if the return is not reached")
    return parser.parse_args()


def make_config(args: argparse.Namespace) -> AlgorithmConfig:
    """Returns the algorithm's config."""
    config = (
        PPOConfig()
        .environment(StatelessCartPole)
        .env_runners(
            num_env_runners=args.num_env_runners,
            num_envs_per_env_runner=args.num_envs_per_env_runner,
        )
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        # Runners on as many nodes as there are, so that no node's CPUs are the bottleneck.
        .resources(placement_strategy="SPREAD")
        .fault_tolerance(restart_failed_env_runners=True)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64], vf_share_layers=True))
        .training(
            lr=5e-4,
            # For each learner; two learners train on twice as many steps per iteration.
            train_batch_size_per_learner=4096,
            minibatch_size=512,
            num_epochs=6,
            vf_loss_coeff=0.05,
        )
        .debugging(log_level="WARN" if args.verbose else "ERROR")
    )
    return use_attention(config, num_layers=2, dim=64, num_heads=4, window=16, max_seq_len=32)


def make_tuner(config: AlgorithmConfig, args: argparse.Namespace) -> tune.Tuner:
    """Returns the Tuner of an earlier job with the same name and storage, or a new one."""
    path = f"{args.storage_path.rstrip('/')}/{args.name}"
    if tune.Tuner.can_restore(path):
        print(f"going on with {path}")
        return tune.Tuner.restore(
            path,
            trainable=config.algo_class,
            param_space=config,
            resume_unfinished=True,
            resume_errored=True,
        )
    return tune.Tuner(
        config.algo_class,
        param_space=config,
        run_config=tune.RunConfig(
            name=args.name,
            storage_path=args.storage_path,
            stop={RETURN: args.stop_reward, STEPS: args.stop_timesteps},
            failure_config=tune.FailureConfig(max_failures=3),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=2,
                checkpoint_frequency=args.checkpoint_every,
                checkpoint_at_end=True,
            ),
            callbacks=[ProgressLine()],
            verbose=0,
        ),
    )


class ProgressLine(tune.Callback):
    """Prints one line per training iteration to the job's log, and one for each retry."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says that training goes on after a failure."""
        print("training was cut off and goes on from its latest checkpoint", flush=True)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Prints return, steps, time and the nodes that are alive."""
        value = result["env_runners"].get("episode_return_mean", float("nan"))
        steps, seconds = result.get(STEPS, 0), result["time_total_s"]
        nodes = sum(node["Alive"] for node in ray.nodes())
        line = f"return {value:8.3f}  env_steps {steps:>9,.0f}  {seconds:7.1f} s"
        print(f"{line}  nodes {nodes}", flush=True)


def main() -> None:
    """Runs the job."""
    args = parse_args()
    ray.init(log_to_driver=args.verbose)
    result = make_tuner(make_config(args), args).fit()[0]
    if result.error:
        raise result.error
    metrics = result.metrics
    value = metrics["env_runners"].get("episode_return_mean", float("nan"))
    reached = value >= args.stop_reward
    print(f"checkpoint: {result.checkpoint.path}")
    print(
        f"return={value:.3f}  env_steps={metrics[STEPS]:.0f}  "
        f"seconds={metrics['time_total_s']:.1f}  bar={args.stop_reward:g} "
        f"{'reached' if reached else 'not reached'}"
    )
    if args.as_test and not reached:
        sys.exit(1)


if __name__ == "__main__":
    main()
