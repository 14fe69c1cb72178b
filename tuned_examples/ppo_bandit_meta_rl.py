"""PPO that learns to learn: every episode is a new bandit.

This example:
    - trains attention over past actions and rewards (`prev_actions=1`, `prev_rewards=1`): the
      observation itself carries nothing.
    - gets a policy that explores and then settles within one episode, with its weights fixed: the
      context is what it learns from.

How to run this script
----------------------
`python ppo_bandit_meta_rl.py --num-arms=5 --pulls=40`

`--help` names all options.

Results to expect
-----------------
With 5 arms and 40 pulls a random policy gets 20.0 on average; staying with an arm while it pays and
moving on when it does not, which needs no more than the last step, gets 27.0; Thompson sampling
27.7; a well tuned upper-confidence rule 30.0; always the best arm 33.3. The bar is
28.5, more than any rule of one step of memory gets. With attention, seed 0 got there (29.0) after
147,456 steps and 95 CPU seconds beside other work.
"""

from common import example_parser, run_example
from common.envs import BanditEpisodes
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_attention import use_attention

parser = example_parser(__doc__, stop_reward=28.5, stop_timesteps=500_000)
parser.add_argument("--num-arms", type=int, default=5, help="arms of each bandit")
parser.add_argument("--pulls", type=int, default=40, help="steps per episode")

if __name__ == "__main__":
    args = parser.parse_args()
    config = (
        PPOConfig()
        .environment(BanditEpisodes, env_config={"num_arms": args.num_arms, "pulls": args.pulls})
        .env_runners(num_env_runners=args.num_env_runners, num_envs_per_env_runner=16)
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64], vf_share_layers=True))
        .training(
            lr=[[0, 1e-3], [500_000, 1e-4]],
            # What a pull tells pays off over some pulls; a longer horizon adds more noise.
            gamma=0.9,
            lambda_=0.9,
            train_batch_size_per_learner=4096,
            minibatch_size=512,
            num_epochs=6,
            entropy_coeff=[[0, 0.02], [300_000, 0.0]],
            vf_loss_coeff=0.1,
        )
        .debugging(seed=args.seed)
    )
    use_attention(
        config,
        num_layers=2,
        dim=64,
        num_heads=4,
        # The whole episode.
        window=args.pulls,
        max_seq_len=args.pulls,
        prev_actions=1,
        prev_rewards=1,
    )
    run_example(config, args)
