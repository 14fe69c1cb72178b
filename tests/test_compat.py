"""Which versions of Ray are let in, and that only `compat` uses private names of Ray."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from gymnasium.spaces import Box, Dict, Discrete
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers import (
    EpisodeReplayBuffer,
    MultiAgentPrioritizedEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer,
)

import rllib_attention
from rllib_attention import compat
from rllib_attention.compat import (
    ALLOW_UNTESTED_RAY,
    CONNECTORS,
    MAX_RAY_VERSION,
    RAY_REQUIREMENT,
    check_ray_version,
    has_supported_ray,
)

PACKAGE = Path(rllib_attention.__file__).parent

# Versions


@pytest.mark.parametrize("version", ["2.55.0", "2.55.0rc1", "2.57.1", "2.60.0", "2.60.1"])
def test_accepts_supported_versions(version, recwarn):
    check_ray_version(version)
    assert not recwarn


def test_accepts_the_installed_version():
    check_ray_version(ray.__version__)
    assert has_supported_ray()


def test_the_package_metadata_names_the_same_versions():
    pyproject = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'"{RAY_REQUIREMENT}"' in pyproject


def test_the_pinned_ray_is_the_newest_that_is_let_in():
    constraints = (PACKAGE.parent / "constraints.txt").read_text()
    [pinned] = re.findall(r"^ray==(\d+)\.(\d+)\.", constraints, re.MULTILINE)
    assert tuple(map(int, pinned)) == MAX_RAY_VERSION


@pytest.mark.parametrize("version", ["2.54.9", "2.5.1", "1.99.0", "0.8", "unknown", ""])
@pytest.mark.parametrize("allowed", ["", "1"])
def test_refuses_older_ones_with_the_command_that_helps(version, allowed, monkeypatch):
    monkeypatch.setenv(ALLOW_UNTESTED_RAY, allowed)
    message = (
        f"rllib_attention needs ray[rllib]>=2.55,<2.61, found ray {version}. "
        'Fix: `pip install "ray[rllib]>=2.55,<2.61"`.'
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        check_ray_version(version)


@pytest.mark.parametrize("version", ["2.61.0", "2.61.0rc0", "2.100.0", "3.0.0.dev0", "10.1"])
def test_newer_ones_need_a_word_from_the_user(version, monkeypatch):
    monkeypatch.delenv(ALLOW_UNTESTED_RAY, raising=False)
    message = (
        f"rllib_attention needs ray[rllib]>=2.55,<2.61, found ray {version}. Fix: `pip install "
        '"ray[rllib]>=2.55,<2.61"`. To try a newer Ray, run `pytest tests/rllib_contract` '
        "from the source with it, then set RLLIB_ATTENTION_ALLOW_UNTESTED_RAY=1 on the driver and "
        "on all workers."
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        check_ray_version(version)
    monkeypatch.setenv(ALLOW_UNTESTED_RAY, "1")
    with pytest.warns(RuntimeWarning, match=f"not tested with ray {re.escape(version)} and runs"):
        check_ray_version(version)


# Private names

# `self._name` is private to Ray where no class of ours defines the name. These are torch's; its
# documentation names `torch._C.DisableTorchFunctionSubclass` and
# `torch._dynamo.maybe_mark_dynamic`.
TORCH = {"_parameters", "_version", "_foreach_mul_", "_foreach_norm", "_C", "_dynamo"}


def private_uses(path: Path, own_names: set[str]) -> list[str]:
    """Return where a file reads or writes private names that are not the package's own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [n for a in node.names if a.name.startswith("ray") for n in a.name.split(".")]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("attr"):
            # getattr(x, "_name") and its kin; hidden in a variable, nothing finds it.
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
        else:
            continue
        names = [n for n in names if isinstance(n, str) and re.match(r"_[a-zA-Z]", n)]
        where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
        found += [f"{where} {name}" for name in names if name not in own_names | TORCH]
    return found


def names_defined_in(tree: ast.AST) -> set[str]:
    """Return functions, methods, classes, and what is assigned: to names, to `self` and fields."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif getattr(node.value, "id", "") == "self":
                found.add(node.attr)
    return found


def all_uses() -> list[str]:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if "compat" not in path.parts]
    own = set().union(*(names_defined_in(ast.parse(path.read_text())) for path in paths))
    return [use for path in paths for use in private_uses(path, own)]


def test_private_names_of_ray_are_used_in_compat_only():
    assert all_uses() == [], "Give each of these a function in rllib_attention/compat/."


def test_the_search_finds_private_names(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "module.py").write_text(
        "import ray._private.worker\n"
        "from ray.tune.registry import _Registry, RLLIB_MODEL\n"
        "class Mine(Theirs):\n"
        "    def __init__(self):\n"
        "        self._own = self._theirs\n"
        "    def _method(self):\n"
        "        return super()._hook() or self._own or config._spec or self.public\n"
        "value = getattr(runner, '_pipeline')\n"
    )
    names = {use.split(" ")[1] for use in all_uses()}
    assert names == {"_private", "_Registry", "_theirs", "_pipeline", "_spec", "_hook"}


# What the functions return


def test_connector_factories_are_those_that_the_user_set():
    config = PPOConfig()
    assert [compat.connector_factory(config, name) for name in CONNECTORS] == [None, None]
    factories = [lambda env, spaces, device: [], lambda obs_space, action_space: []]
    config.env_runners(env_to_module_connector=factories[0])
    config.learners(learner_connector=factories[1])
    assert [compat.connector_factory(config, name) for name in CONNECTORS] == factories


def test_frozen_configs_are_known():
    config = PPOConfig()
    assert not compat.is_frozen(config)
    config.freeze()
    assert compat.is_frozen(config)


def test_the_users_spec_and_model_config_are_told_from_the_algorithms():
    config = PPOConfig()
    assert compat.user_module_spec(config) is None
    assert compat.user_model_config(config) == {}
    spec = RLModuleSpec(model_config=DefaultModelConfig(max_seq_len=7))
    config.rl_module(rl_module_spec=spec, model_config=DefaultModelConfig(max_seq_len=9))
    assert compat.user_module_spec(config) is spec
    assert compat.user_model_config(config) == DefaultModelConfig(max_seq_len=9)
    assert compat.spec_model_config(spec)["max_seq_len"] == 7
    assert compat.spec_model_config(RLModuleSpec()) == {}


def test_model_configs_are_copied():
    given = {"a": 1}
    assert compat.as_dict(given) == given
    assert compat.as_dict(given) is not given


def test_runners_without_a_pipeline_have_no_pieces():
    assert compat.env_to_module_pieces(None) == []
    assert compat.env_to_module_pieces(SimpleNamespace()) == []


def test_nested_distributions_show_their_parts():
    space = Dict({"a": Discrete(2), "b": Box(-1, 1, (2,))})
    catalog = PPOCatalog(Box(-1, 1, (3,)), space, {"max_seq_len": 5})
    assert compat.catalog_model_config(catalog)["max_seq_len"] == 5
    distribution = catalog.get_action_dist_cls("torch").from_logits(torch.zeros(1, 6))
    names = [type(part).__name__ for part in compat.child_distributions(distribution)]
    assert names == ["TorchCategorical", "TorchDiagGaussian"]


def stored_episode(first: int) -> SingleAgentEpisode:
    """Return an episode of three steps whose observations count from `first`."""
    return SingleAgentEpisode(
        observations=[first, first + 1, first + 2, first + 3],
        actions=[0, 0, 0],
        rewards=[0.0, 0.0, 0.0],
        terminated=True,
        len_lookback_buffer=0,
    )


@pytest.mark.parametrize("buffer_class", [EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer])
def test_all_that_can_be_sampled_is_found_in_a_buffer(buffer_class):
    buffer = buffer_class(capacity=6)
    for first in (0, 10, 20):
        buffer.add(stored_episode(first))
    assert compat.num_stored_steps(buffer) == 6
    evicted = buffer.get_num_episodes_evicted()
    assert evicted == 1
    found = [
        buffer.episodes[episode - evicted].get_observations(step)
        for episode, step, *_ in compat.sample_indices(buffer)
    ]
    assert sorted(found) == [10, 11, 12, 20, 21, 22]


def test_priorities_of_the_last_sample_can_be_set():
    buffer = PrioritizedEpisodeReplayBuffer(capacity=6, alpha=1.0)
    buffer.add(stored_episode(0))
    sums, lowest = compat.segment_trees(buffer)
    indices, positions = compat.sample_indices(buffer), compat.position_of_leaf(buffer)
    assert [indices[positions[leaf]][-1] for _, _, leaf in indices] == [i[-1] for i in indices]
    leaf = indices[1][-1]
    compat.set_last_sampled(buffer, [leaf])
    buffer.update_priorities(np.array([0.25]))
    assert sums[leaf] == lowest.min() == 0.25


def test_the_parts_of_modules_are_told_apart():
    buffer = MultiAgentPrioritizedEpisodeReplayBuffer(capacity=20, alpha=1.0)
    episode = MultiAgentEpisode(
        observations=[{"a": 0, "b": 5}, {"a": 1}, {"a": 2, "b": 6}],
        actions=[{"a": 0, "b": 0}, {"a": 0}],
        rewards=[{"a": 0.0, "b": 0.0}, {"a": 0.0}],
        terminateds={"__all__": True, "a": True, "b": True},
        agent_module_ids={"a": "m", "b": "n"},
        len_lookback_buffer=0,
    )
    buffer.add(episode)
    for module_id, agent_id, num_steps in (("m", "a", 2), ("n", "b", 1)):
        indices = compat.sample_indices(buffer, module_id)
        positions = compat.position_of_leaf(buffer, module_id)
        assert [index[:3] for index in indices] == [(0, agent_id, i) for i in range(num_steps)]
        assert [positions[index[3]] for index in indices] == list(range(num_steps))
    compat.set_last_sampled(buffer, [0], "n")
    buffer.update_priorities(np.array([0.25]), "n")
    assert compat.segment_trees(buffer, "n")[1].min() == 0.25
    assert compat.segment_trees(buffer, "m")[1].min() > 0.25


def test_restored_buffers_can_evict():
    buffers = [MultiAgentPrioritizedEpisodeReplayBuffer(capacity=20) for _ in range(2)]
    assert not buffers[1].__dict__["_sample_idx_to_tree_idx"]
    buffers[0].__dict__["_tree_idx_to_sample_idx"].update({4: 0, 7: 1})
    buffers[1].set_state(buffers[0].get_state())
    compat.restore_sample_indices(buffers[1])
    assert buffers[1].__dict__["_sample_idx_to_tree_idx"] == {0: 4, 1: 7}
