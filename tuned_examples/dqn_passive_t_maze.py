"""DQN in a T-maze that must be walked without a wrong step, and remembered to its end.

This example:
    - trains DQN on the passive T-maze of Ni et al. 2023, "When Do Transformers Shine in RL?": the
      cue is seen at the first step only, and each step behind schedule costs.
    - replays whole episodes, as runs of consecutive transitions that share one context.
    - discounts much: each step's cost follows at once, and so does the reward for the last one.
    - explores less and less, and the less the longer the corridor is: one wrong step spoils an
      episode. The bar is on episodes without exploration.

How to run this script
----------------------
`python dqn_passive_t_maze.py --corridor-length=100`

`--help` names all options.

Results to expect
-----------------
Standing still returns -1, walking on without memory 0.5, and the best is 1. It depends on luck:
few explored steps fall on the one choice at the junction. With a corridor of 100 and these options,
but shorter iterations, seed 0 had a return of 1.0 without exploration after 363,600 env steps (121
CPU seconds), with gamma 0.97 after 799,920; with these iterations it stood at -0.63 after 567,000,
and seed 1 was at 0.25 after 684,000. A corridor of 250 was walked to its end after 690,000 steps
with rewards times 25, and the cue was not used within 1,900,000.
"""

import argparse

from common import example_parser, run_example
from common.envs import PassiveTMaze, log_success
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import use_attention

parser = example_parser(__doc__, stop_reward=0.9, stop_timesteps=1_000_000)
parser.add_argument("--corridor-length", type=int, default=100, help="steps to the junction")


def make_config(args: argparse.Namespace) -> DQNConfig:
    """Returns the task and DQN's options."""
    length = args.corridor_length
    return (
        DQNConfig()
        .environment(PassiveTMaze, env_config={"corridor_length": length})
        .env_runners(
            num_env_runners=args.num_env_runners,
            num_envs_per_env_runner=16,
            rollout_fragment_length=length + 1,
        )
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32]))
        .training(
            lr=1e-3,
            gamma=0.9,
            n_step=1,
            # Four episodes, each of them one run.
            train_batch_size_per_learner=4 * (length + 1),
            training_intensity=2,
            target_network_update_freq=500,
            num_steps_sampled_before_learning_starts=2_000,
            epsilon=[
                (0, 1.0),
                (50 * length, 0.3),
                (200 * length, 0.1),
                (600 * length, 0.03),
                (1_200 * length, 1 / length),
            ],
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 500 * length},
        )
        .evaluation(
            evaluation_interval=1,
            evaluation_duration=32,
            evaluation_config={"explore": False},
        )
        .reporting(min_sample_timesteps_per_iteration=200 * length)
        .debugging(seed=args.seed)
        .callbacks(on_episode_end=log_success)
    )


if __name__ == "__main__":
    args = parser.parse_args()
    config = make_config(args)
    # Two layers of which the second looks at every window-th step reach the first step.
    window = 2
    while window * window - 1 < args.corridor_length:
        window += 1
    use_attention(
        config,
        num_layers=2,
        window=window,
        dilation=window,
        ffn_dim=0,
        position="rotary",
        # Whether it is behind schedule the agent can tell by what it did and was paid.
        prev_actions=1,
        prev_rewards=1,
        max_seq_len=args.corridor_length + 1,
    )
    run_example(
        config,
        args,
        return_key="evaluation/env_runners/episode_return_mean",
        success="evaluation/env_runners/success_rate",
        exploring="env_runners/episode_return_mean",
    )
