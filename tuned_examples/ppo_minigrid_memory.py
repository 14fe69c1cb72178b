"""PPO on MiniGrid's memory task: remember an object while walking down a corridor.

This example:
    - feeds images to attention: RLlib's CNN encoder (with `conv_filters` that fit a 7 x 7 view)
      turns each observation into one token.
    - reaches a goal whose reward comes only at the end of an episode.

How to run this script
----------------------
`python ppo_minigrid_memory.py --size=7`

Needs `pip install "rllib-attention[examples]"`. `--help` names all options.

Results to expect
-----------------
The agent sees an object in the first room and must later choose the corridor's end with the same
one. Without memory half of the choices are wrong: about 0.5 at best. The bar is 0.9 (a little is
lost for each step taken). With attention, seed 0 stayed at 0.5 for 80,000 steps and got there
(0.92) after 118,988, in 3.5 minutes on a core shared with other work.
"""

from common import example_parser, require, run_example
from common.envs import make_minigrid_memory
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import use_attention

parser = example_parser(__doc__, stop_reward=0.9, stop_timesteps=1_000_000)
parser.add_argument(
    "--size", type=int, choices=[7, 9, 11, 13], default=7, help="width of the grid world"
)

if __name__ == "__main__":
    args = parser.parse_args()
    require("minigrid", "The memory task")
    tune.register_env("minigrid_memory", make_minigrid_memory)

    config = (
        PPOConfig()
        .environment("minigrid_memory", env_config={"size": args.size})
        .env_runners(num_env_runners=args.num_env_runners, num_envs_per_env_runner=16)
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(
            model_config=DefaultModelConfig(
                # Channels, kernel, stride; RLlib pads: 7 x 7 -> 4 x 4 -> 2 x 2 cells.
                conv_filters=[[16, 3, 2], [32, 3, 2]],
                vf_share_layers=True,
            )
        )
        .training(
            lr=3e-4,
            train_batch_size_per_learner=4096,
            minibatch_size=512,
            num_epochs=6,
            # The first rewards are rare: keep exploring until they come.
            entropy_coeff=0.01,
            vf_loss_coeff=0.5,
        )
        .debugging(seed=args.seed)
    )
    use_attention(config, num_layers=2, dim=64, num_heads=4, window=32, max_seq_len=32)
    run_example(config, args)
