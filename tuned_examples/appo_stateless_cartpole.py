"""APPO on CartPole without velocities.

This example:
    - trains the asynchronous APPO on RLlib's StatelessCartPole: env runners go on sampling with
      slightly older weights while the learner updates.
    - keeps `max_seq_len` a divisor of `rollout_fragment_length`, so that no training chunk is cut
      short and V-trace sees whole fragments.

How to run this script
----------------------
`python appo_stateless_cartpole.py --num-env-runners=4`

Add `--no-attention`, `--lstm` or `--gtrxl` for a control, and `--help` for all options.

Results to expect
-----------------
The bar is a mean return of 300 within 2,000,000 environment steps, which is what RLlib asks of its
own APPO with LSTM on this task. It has not been run to the bar yet.
"""

from common import example_parser, run_example
from common.envs import make_stateless_cartpole
from ray import tune
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

parser = example_parser(__doc__, stop_reward=300.0, stop_timesteps=2_000_000, max_seq_len=50)

if __name__ == "__main__":
    args = parser.parse_args()
    tune.register_env("stateless_cartpole", make_stateless_cartpole)

    config = (
        APPOConfig()
        .environment("stateless_cartpole")
        .env_runners(rollout_fragment_length=2 * args.max_seq_len)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64], vf_share_layers=True))
        .training(
            lr=5e-4,
            train_batch_size_per_learner=1600,
            vf_loss_coeff=0.05,
            grad_clip=20.0,
            entropy_coeff=0.005,
        )
    )
    run_example(config, args)
