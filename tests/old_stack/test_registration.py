"""The name "attention" in RLlib's registry: on driver and workers, and in checkpoints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.rllib.models.catalog import ModelCatalog
from ray.tune.registry import RLLIB_MODEL, _global_registry

import rllib_attention
from rllib_attention import use_attention
from rllib_attention.old_stack import NEW_STACK
from rllib_attention.old_stack.model import AttentionModelV2
from rllib_attention.old_stack.registration import register_at_init
from tests.old_stack.support import RaggedEnv, ppo_config, rollout_worker

ROOT = Path(rllib_attention.__file__).parents[1]


def run(script: str, *arguments: str) -> str:
    """Run a script in a new process; return what it wrote to standard error."""
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_importing_the_package_registers_the_model_without_importing_rllib():
    run(
        "import sys, rllib_attention\n"
        "assert 'torch' not in sys.modules and 'ray.rllib' not in sys.modules\n"
        "from ray.tune.registry import RLLIB_MODEL, _global_registry\n"
        "model = _global_registry.get(RLLIB_MODEL, 'attention')\n"
        "assert model.__name__ == 'AttentionModelV2', model\n"
    )


def test_registering_again_changes_nothing():
    hooks = list(ray._private.worker._post_init_hooks)
    register_at_init()
    assert ray._private.worker._post_init_hooks == hooks
    assert _global_registry.get(RLLIB_MODEL, "attention") is AttentionModelV2


def test_rllibs_catalog_finds_the_model_by_name():
    env, model_config = RaggedEnv({}), ppo_config().model
    built = ModelCatalog.get_model_v2(
        env.observation_space, env.action_space, 3, model_config, framework="torch"
    )
    assert type(built) is AttentionModelV2


@pytest.mark.slow
def test_workers_find_the_model_after_each_init():
    run(
        "import ray, rllib_attention\n"
        "from ray.tune.registry import RLLIB_MODEL, _global_registry\n"
        "def name():\n"
        "    return _global_registry.get(RLLIB_MODEL, 'attention').__name__\n"
        "for _ in range(2):\n"
        "    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "    assert ray.get(ray.remote(name).remote()) == name() == 'AttentionModelV2'\n"
        "    ray.shutdown()\n"
    )


# Checkpoints


@pytest.mark.parametrize(
    "by_name",
    [
        pytest.param(True, id="custom_model"),
        pytest.param(False, id="use_attention", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_acts_the_same_in_a_process_that_did_not_import_the_package(tmp_path, by_name):
    config = ppo_config(prev_rewards=1)
    if not by_name:
        config.training(model={"custom_model": None, "custom_model_config": {}})
        config = use_attention(config, dim=16, window=4, prev_rewards=1)
    policy = rollout_worker(config).get_policy()
    policy.export_checkpoint(str(tmp_path / "policy"))
    observations = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
    np.save(tmp_path / "obs.npy", observations)
    # The environment's class travels with the config, and imports nothing of the package.
    run(
        "import sys, numpy as np\n"
        "from ray.rllib.policy.policy import Policy\n"
        "assert 'rllib_attention' not in sys.modules\n"
        "policy = Policy.from_checkpoint(sys.argv[1] + '/policy')\n"
        "state, out = policy.get_initial_state(), []\n"
        "for step, obs in enumerate(np.load(sys.argv[1] + '/obs.npy')):\n"
        "    _, state, extra = policy.compute_single_action(\n"
        "        obs, state, prev_reward=step, explore=False)\n"
        "    out.append(extra['action_dist_inputs'])\n"
        "np.save(sys.argv[1] + '/out.npy', out)\n",
        str(tmp_path),
    )
    state, expected = policy.get_initial_state(), []
    for step, obs in enumerate(observations):
        _, state, extra = policy.compute_single_action(obs, state, prev_reward=step, explore=False)
        expected.append(extra["action_dist_inputs"])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


@pytest.mark.slow
def test_an_algorithm_checkpoint_restores_in_a_process_that_did_not_import_the_package(tmp_path):
    algo = ppo_config().build_algo()
    algo.save(str(tmp_path / "algorithm"))
    weights = algo.get_policy().get_weights()
    algo.stop()
    np.savez(tmp_path / "weights.npz", **weights)
    run(
        "import sys, numpy as np, ray\n"
        "from ray.rllib.algorithms.algorithm import Algorithm\n"
        "from ray.rllib.policy.policy import Policy\n"
        "path = sys.argv[1] + '/algorithm'\n"
        "expected = np.load(sys.argv[1] + '/weights.npz')\n"
        "assert 'rllib_attention' not in sys.modules\n"
        "policies = Policy.from_checkpoint(path)\n"
        "ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "algo = Algorithm.from_checkpoint(path)\n"
        "for policy in (policies['default_policy'], algo.get_policy()):\n"
        "    weights = policy.get_weights()\n"
        "    assert weights.keys() == set(expected)\n"
        "    assert all((weights[key] == expected[key]).all() for key in weights)\n"
        "algo.train()\n",
        str(tmp_path),
    )


# A Ray in which something has moved


def test_the_package_imports_and_warns_if_the_registry_has_moved():
    warning = run(
        "import ray.tune.registry\n"
        "del ray.tune.registry._Registry\n"
        "import rllib_attention\n"
        "assert rllib_attention.AttentionConfig().receptive_field\n"
    )
    assert '`model={"custom_model": "attention"}` will fail to find its model' in warning


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (ray.tune.registry, "_Registry"),
        (ray.tune.registry, "_global_registry"),
        (ray.tune.registry._Registry, "register"),
        (ray._private.worker, "_post_init_hooks"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_whatever_has_moved_is_a_warning_with_a_way_out(monkeypatch, caplog, module, name):
    monkeypatch.delattr(module, name)
    register_at_init()
    [record] = caplog.records
    assert f"cannot register models as expected ({record.args[0]!r}): " in record.getMessage()
    assert name in repr(record.args[0])
    assert "Use `use_attention(config)`, which needs no name, or " in record.getMessage()


def test_use_attention_needs_no_registry(monkeypatch):
    monkeypatch.delattr(ray.tune.registry._Registry, "get")
    config = ppo_config().training(model={"custom_model": None, "custom_model_config": {}})
    use_attention(config, dim=16, num_heads=2, window=4)
    assert type(rollout_worker(config).get_policy().model) is AttentionModelV2


def test_a_ray_without_the_old_stack_is_an_error_when_the_name_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.rllib.models.torch.torch_modelv2", None)
    monkeypatch.delitem(sys.modules, AttentionModelV2.__module__)
    message = (
        '`model={"custom_model": "attention"}` needs RLlib\'s old API stack, of which this Ray '
        "lacks a part: import of ray.rllib.models.torch.torch_modelv2 halted; None in "
        f"sys.modules. Use {NEW_STACK}."
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        _global_registry.get(RLLIB_MODEL, "attention")
