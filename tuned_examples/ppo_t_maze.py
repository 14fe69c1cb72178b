"""PPO in a T-maze: one cue, a long corridor, one reward at its end.

This example:
    - trains PPO on a task that is memory and nothing else: the cue is shown at the first step, the
      reward comes `--corridor-length` steps later and depends on it.
    - picks the window so that the junction sees the cue directly, and training chunks that hold a
      whole episode, so that an LSTM's gradient reaches the cue as well.
    - logs the success rate from a callback that follows the step's info.

How to run this script
----------------------
`python ppo_t_maze.py --corridor-length=30`

`--help` names all options. RLlib's own models on the same task and options are trained by
`python -m tests.benchmarks.learning.controls`.

Results to expect
-----------------
Without memory the best success rate is 0.5 (a mean return of 0), for any length. With attention,
seed 0 reached a return of 0.9 after 28,672, 40,960 and 65,536 environment steps with corridors of
10, 30 and 100, in 11, 15 and 26 CPU seconds. With `position="rotary", dropout=0.0, lr_factor=1.0`,
for tasks in which one cue of the distant past is all that counts, the corridor of 100 took 65,536
steps and 20 CPU seconds. `docs/controls.md` has the other models and seeds.
"""

import argparse

from common import example_parser, run_example
from common.envs import TMaze, log_success
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import use_attention

parser = example_parser(__doc__, stop_reward=0.9, stop_timesteps=300_000)
parser.add_argument(
    "--corridor-length", type=int, default=10, help="steps from the cue to the choice (10, 30, 100)"
)


def make_config(args: argparse.Namespace) -> PPOConfig:
    """Returns the task and PPO's options, for a model of any kind."""
    return (
        PPOConfig()
        .environment(TMaze, env_config={"corridor_length": args.corridor_length})
        .env_runners(num_env_runners=args.num_env_runners, num_envs_per_env_runner=16)
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64], vf_share_layers=True))
        .training(
            lr=5e-4,
            # The one choice that counts is rewarded at once; what is long is the memory.
            gamma=0.99,
            train_batch_size_per_learner=4096,
            minibatch_size=512,
            num_epochs=6,
            entropy_coeff=0.01,
            vf_loss_coeff=0.5,
        )
        .debugging(seed=args.seed)
    )


if __name__ == "__main__":
    args = parser.parse_args()
    config = make_config(args).callbacks(on_episode_end=log_success)
    # The junction is `corridor_length` steps after the cue; the window counts both ends.
    window = args.corridor_length + 1
    use_attention(
        config, num_layers=1, dim=64, num_heads=4, window=window, max_seq_len=max(32, window)
    )
    run_example(config, args, success="env_runners/success_rate")
