"""DQN in a T-maze that must be walked without a wrong step, and remembered to its end.

This example:
    - trains DQN on the passive T-maze of Ni et al. 2023, "When Do Transformers Shine in RL?": the
      cue is seen at the first step only, and each step behind schedule costs.
    - replays runs of consecutive transitions with their whole past, by priority: of an episode's
      steps the last one alone tells whether the cue was remembered.
    - explores less the longer the corridor is: one wrong step in an episode spoils it.

How to run this script
----------------------
`python dqn_passive_t_maze.py --corridor-length=100`

`--help` names all options.

Results to expect
-----------------
Standing still returns -1, walking on without memory 0.5, and the best is 1. With a corridor of 100
and seed 0 the mean return was -0.33 after 106,496 environment steps and -0.095, with a success rate
of 0.25, after 278,528 steps, where the run was ended (1,380 seconds on a machine full of other
work): it has not been run to its bar. Without the previous action and reward in its input the
policy stayed at -0.99 for 80,000 steps.
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
            rollout_fragment_length=32,
        )
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64]))
        .training(
            lr=5e-4,
            gamma=0.99,
            n_step=1,
            double_q=True,
            dueling=True,
            train_batch_size_per_learner=256,
            training_intensity=4,
            target_network_update_freq=2_000,
            num_steps_sampled_before_learning_starts=5_000,
            epsilon=[(0, 1.0), (300 * length, 1 / length)],
            replay_buffer_config={
                "type": "PrioritizedEpisodeReplayBuffer",
                "capacity": 1_000 * length,
                "alpha": 0.6,
                "beta": 0.4,
            },
        )
        .reporting(min_sample_timesteps_per_iteration=4_000)
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
    # Whether it is behind schedule the agent can tell by what it did and was paid.
    use_attention(
        config,
        num_layers=2,
        window=window,
        dilation=window,
        position="rotary",
        prev_actions=1,
        prev_rewards=1,
    )
    run_example(config, args, success="env_runners/success_rate")
