"""PPO on RLlib's old API stack, from a plain config dict.

This example:
    - uses attention where the old stack is still in use: importing `rllib_attention` registers a
      model that a plain dict names as `{"custom_model": "attention"}`.
    - passes the fields of `AttentionConfig` as `custom_model_config`.

How to run this script
----------------------
`python old_stack_ppo.py`

Add `--no-attention`, `--lstm` or `--gtrxl` for a control, and `--help` for all options.

Results to expect
-----------------
The bar on CartPole without velocities is a mean return of 350 within 300,000 environment steps, as
RLlib asks of its own PPO with LSTM. With attention, seed 0 got there (364.6) after 110,592 steps
and 169 CPU seconds.
"""

import argparse
from typing import Any

from common import example_parser
from common.envs import make_stateless_cartpole
from common.models import ATTENTION_FIELDS, gtrxl_model
from common.run import run_config
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

parser = example_parser(__doc__, stop_reward=350.0, stop_timesteps=300_000, max_seq_len=20)


def model_of(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the old stack's `model` dict for the model that was asked for."""
    shared = {"fcnet_hiddens": [args.dim], "vf_share_layers": True}
    if args.model == "lstm":
        lstm = {"use_lstm": True, "lstm_cell_size": args.dim, "max_seq_len": args.max_seq_len}
        return shared | lstm
    if args.model == "gtrxl":
        return shared | gtrxl_model(args)
    if args.model == "mlp":
        return shared | {"fcnet_hiddens": [args.dim] * (args.num_layers + 1)}
    import rllib_attention  # noqa: F401  (registers the model "attention")

    fields = {name: getattr(args, name) for name in ATTENTION_FIELDS if name != "max_seq_len"}
    return {
        "custom_model": "attention",
        "custom_model_config": fields,
        "max_seq_len": args.max_seq_len,
    }


if __name__ == "__main__":
    args = parser.parse_args()
    tune.register_env("stateless_cartpole", make_stateless_cartpole)

    config = {
        "enable_rl_module_and_learner": False,
        "enable_env_runner_and_connector_v2": False,
        "env": "stateless_cartpole",
        "num_env_runners": args.num_env_runners,
        "num_envs_per_env_runner": args.num_envs_per_env_runner,
        "seed": args.seed,
        "model": model_of(args),
        "lr": 5e-4,
        "train_batch_size": 4096,
        "minibatch_size": 512,
        "num_epochs": 6,
        "vf_loss_coeff": 0.05,
        "log_level": "ERROR",
    }
    run_config(PPOConfig.from_dict(config), args)
