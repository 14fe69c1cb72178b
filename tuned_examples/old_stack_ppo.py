"""PPO on RLlib's old API stack, from a plain config dict.

This example:
    - uses attention where the old stack is still in use: importing `rllib_attention` registers a
      model that a plain dict names as `{"custom_model": "attention"}`.
    - passes the fields of `AttentionConfig` as `custom_model_config`.

How to run this script
----------------------
`python old_stack_ppo.py`

`--help` names all options.

Results to expect
-----------------
The bar on CartPole without velocities is a mean return of 350 within 300,000 environment steps, as
RLlib asks of its own PPO with LSTM. With attention, seed 0 got there (359.1) after 94,208 steps
and 153 CPU seconds.
"""

from common import example_parser, run_example
from common.envs import make_stateless_cartpole
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

import rllib_attention  # noqa: F401  (registers the model "attention")

parser = example_parser(__doc__, stop_reward=350.0, stop_timesteps=300_000)

if __name__ == "__main__":
    args = parser.parse_args()
    tune.register_env("stateless_cartpole", make_stateless_cartpole)

    config = {
        "enable_rl_module_and_learner": False,
        "enable_env_runner_and_connector_v2": False,
        "env": "stateless_cartpole",
        "num_env_runners": args.num_env_runners,
        "num_envs_per_env_runner": 16,
        "seed": args.seed,
        "model": {
            "custom_model": "attention",
            "custom_model_config": {"num_layers": 2, "dim": 64, "num_heads": 4, "window": 16},
            "max_seq_len": 20,
        },
        "lr": 5e-4,
        "train_batch_size": 4096,
        "minibatch_size": 512,
        "num_epochs": 6,
        "vf_loss_coeff": 0.05,
    }
    run_example(PPOConfig.from_dict(config), args)
