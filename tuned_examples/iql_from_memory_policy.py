"""Offline RL with memory: IQL on episodes that a policy with memory has recorded.

This example:
    - trains a policy with memory by SAC on the pendulum without angular velocity (or takes the one
      of `--expert`), and records its episodes as it explores.
    - trains IQL on them, for continuous actions. Each sampled step comes with its true past, since
      whole episodes are read (`input_read_episodes=True`).
    - evaluates the result online after each iteration; the return shown is that of the evaluation.

How to run this script
----------------------
`python iql_from_memory_policy.py`

Needs `pip install "rllib-attention[examples]"`. `--help` names all options. `--expert` takes a
checkpoint of `sac_masked_pendulum.py`.

Results to expect
-----------------
Returns are negative costs: about -1,200 for a random policy and -150 for a very good one. The bar
is -300. With attention, seed 0 got there (-253.9) after five iterations of 200 updates, in 157
seconds on one core, from 100 recorded episodes with a mean return of -319 (`--expert`: SAC at
-230).
"""

import argparse
from pathlib import Path

from common import example_parser, make_results_dir, require, run_example, start_ray
from common.recording import record_episodes, train_expert
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from sac_masked_pendulum import make_config as expert_config

from rllib_attention import use_attention

parser = example_parser(__doc__, stop_reward=-300.0, stop_timesteps=5_000_000)
parser.set_defaults(stop_iters=20)
parser.add_argument("--expert", default=None, metavar="CHECKPOINT", help="unset: train one first")
parser.add_argument("--episodes", type=int, default=100, help="episodes to record")


def make_config(args: argparse.Namespace, folder: Path) -> AlgorithmConfig:
    """Returns IQL's config, reading the episodes recorded in a folder."""
    config = (
        IQLConfig()
        .environment("masked_pendulum")
        .offline_data(
            input_=[str(folder)],
            input_read_episodes=True,
            # A training batch for each episode that is read, sampled from all read so far: Ray Data
            # starts anew at each pass over the data.
            input_read_batch_size=1,
            dataset_num_iters_per_learner=200,
            map_batches_kwargs={"concurrency": 1},
            iter_batches_kwargs={"prefetch_batches": 1},
        )
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[128],
                fcnet_activation="relu",
                head_fcnet_hiddens=[128],
                head_fcnet_activation="relu",
            )
        )
        .training(
            actor_lr=5e-4,
            critic_lr=5e-4,
            value_lr=5e-4,
            # Set above instead; RLlib refuses to have both.
            lr=None,
            beta=0.3,
            expectile=0.8,
            tau=0.005,
            target_network_update_freq=1,
            train_batch_size_per_learner=256,
        )
        .evaluation(
            evaluation_interval=1,
            evaluation_duration=20,
            evaluation_config=IQLConfig.overrides(explore=False),
        )
        .debugging(seed=args.seed)
    )
    return use_attention(config, num_layers=1, dim=64, num_heads=4, window=4)


if __name__ == "__main__":
    args = parser.parse_args()
    require("msgpack_numpy", "Recording episodes")
    results = make_results_dir(args)
    start_ray(args)
    config = expert_config(args).debugging(log_level="ERROR")
    if args.expert:
        expert = Path(args.expert).absolute()
    else:
        expert = train_expert(config, results / "expert", enough=-250.0, iterations=30)
    recorded = record_episodes(
        config, expert, results / "episodes", episodes=args.episodes, explore=True
    )
    run_example(
        make_config(args, recorded),
        args,
        return_key="evaluation/env_runners/episode_return_mean",
        steps_key="learners/__all_modules__/num_env_steps_trained_lifetime",
    )
