"""PPO in a T-maze of a thousand cells: a memory of thousands of steps from dilated windows.

This example:
    - trains PPO on the task of `ppo_t_maze.py` where the cue lies 1,000 steps and more before the
      one choice that it decides.
    - picks the fewest layers and the smallest window whose dilated context reaches the cue: two
      layers of 32 keys see 1,023 steps back, three layers of 22 see 10,647.
    - gives each iteration whole episodes, in one training chunk each.

How to run this script
----------------------
`python ppo_long_t_maze.py --corridor-length=1000`

`--help` names all options.

Results to expect
-----------------
Without memory the best mean return is 0, for any length. On one core of a shared machine a mean
return of 0.9 was reached with a corridor of 300 after 67,424, 120,400 and 183,008 environment steps
(seeds 0 to 2, 94 to 123 seconds), with one of 1,000 after 368,368, 592,592 and 400,400 (202, 322
and 213 seconds), with one of 1,500 after 408,272 (seed 0, 306 seconds), with one of 10,000 after
6,400,640 (seed 0, 53 minutes; `--stop-timesteps=12000000`). With recency positions, the
default dropout and a width of 32, a corridor of 300 was not learned within 300,000 steps.
"""

import argparse

from common import example_parser, run_example
from common.envs import TMaze, log_success
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import AttentionConfig, use_attention

parser = example_parser(__doc__, stop_reward=0.9, stop_timesteps=1_000_000)
parser.add_argument(
    "--corridor-length", type=int, default=1000, help="steps from the cue to the choice"
)


def make_config(args: argparse.Namespace) -> PPOConfig:
    """Returns the task and PPO's options, for a model of any kind."""
    episode = args.corridor_length + 1
    return (
        PPOConfig()
        .environment(TMaze, env_config={"corridor_length": args.corridor_length})
        .env_runners(num_env_runners=args.num_env_runners, num_envs_per_env_runner=16)
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32], vf_share_layers=True))
        .training(
            lr=1e-3,
            gamma=0.99,
            train_batch_size_per_learner=16 * episode,
            minibatch_size=4 * episode,
            num_epochs=6,
            entropy_coeff=0.01,
            vf_loss_coeff=0.5,
        )
        .debugging(seed=args.seed)
    )


def make_attention(corridor_length: int) -> AttentionConfig:
    """Returns the fewest layers of at most 40 keys whose context holds the whole corridor."""
    for num_layers in (2, 3, 4):
        for window in range(2, 41):
            # Each layer's stride is the reach of all layers below it: no step is left out.
            attention = AttentionConfig(
                dim=64,
                num_heads=4,
                num_layers=num_layers,
                window=window,
                dilation=window,
                ffn_dim=0,
                # Only the far past counts, and nothing in it is noise.
                position="rotary",
                dropout=0.0,
                lr_factor=1.0,
                token_size=0.0,
                start_embedding=False,
                max_seq_len=corridor_length + 1,
            )
            if attention.context_len >= corridor_length:
                return attention
    raise ValueError(f"no such context for a corridor of {corridor_length}")


if __name__ == "__main__":
    args = parser.parse_args()
    config = make_config(args).callbacks(on_episode_end=log_success)
    use_attention(config, make_attention(args.corridor_length))
    run_example(config, args, success="env_runners/success_rate")
