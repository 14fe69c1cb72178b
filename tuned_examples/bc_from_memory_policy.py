"""Behaviour cloning of a policy with memory, from recorded episodes.

This example:
    - trains an expert with memory by PPO on a T-maze (or takes the one of `--expert`), and records
      its episodes.
    - clones it with BC: training chunks come with the context that the expert had, since whole
      episodes are read (`input_read_episodes=True`).
    - evaluates the clone online after each iteration; the return shown is that of the evaluation.

How to run this script
----------------------
`python bc_from_memory_policy.py`

Needs `pip install "rllib-attention[examples]"`. Add `--no-attention` for a clone without memory
(the expert keeps its own), and `--help` for all options. `--expert` takes a checkpoint of
`ppo_t_maze.py`.

Results to expect
-----------------
The bar is a mean return of 0.9. Without memory the expectation is 0: the recorded actions at the
junction look random. The clone of seed 0 got every choice right (1.0) after its first iteration,
33 seconds of which most is Ray Data's start; expert and recording take half a minute before it.
"""

import argparse
from pathlib import Path

from common import example_parser, require, run_example, start_ray
from common.envs import TMaze
from common.models import set_model
from common.recording import record_episodes, train_expert
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

parser = example_parser(
    __doc__,
    controls=("mlp",),
    stop_reward=0.9,
    stop_timesteps=500_000,
    stop_iters=20,
    num_layers=1,
    window=11,
)
parser.add_argument("--expert", default=None, metavar="CHECKPOINT", help="unset: train one first")
parser.add_argument("--episodes", type=int, default=500, help="episodes to record")


def expert_config(args: argparse.Namespace) -> AlgorithmConfig:
    """Returns the expert's config: PPO with memory, whatever model the clone gets."""
    config = (
        PPOConfig()
        .environment(TMaze)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64], vf_share_layers=True))
        .training(lr=5e-4, train_batch_size_per_learner=4096, minibatch_size=512, num_epochs=6)
        .training(entropy_coeff=0.01, vf_loss_coeff=0.5)
        .debugging(seed=args.seed, log_level="ERROR")
    )
    return set_model(config, argparse.Namespace(**{**vars(args), "model": "attention"}))


def clone_config(folder: Path) -> AlgorithmConfig:
    """Returns BC's config, reading the episodes recorded in a folder."""
    return (
        BCConfig()
        .environment(TMaze)
        .offline_data(
            input_=[str(folder)],
            input_read_episodes=True,
            dataset_num_iters_per_learner=10,
            map_batches_kwargs={"concurrency": 1},
            iter_batches_kwargs={"prefetch_batches": 1},
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64]))
        .training(lr=1e-3, train_batch_size_per_learner=64)
        .evaluation(
            evaluation_interval=1,
            evaluation_duration=100,
            evaluation_config=BCConfig.overrides(explore=False),
        )
    )


if __name__ == "__main__":
    args = parser.parse_args()
    require("msgpack_numpy", "Recording episodes")
    start_ray(args)
    args.results_dir = str(Path(args.results_dir or "results/bc_from_memory_policy").absolute())
    results = Path(args.results_dir)
    config = expert_config(args)
    if args.expert:
        expert = Path(args.expert).absolute()
    else:
        expert = train_expert(config, results / "expert", enough=0.95, iterations=20)
    recorded = record_episodes(
        config, expert, results / "episodes", episodes=args.episodes, explore=False
    )
    run_example(
        clone_config(recorded),
        args,
        return_key="evaluation/env_runners/episode_return_mean",
        steps_key="learners/__all_modules__/num_env_steps_trained_lifetime",
    )
