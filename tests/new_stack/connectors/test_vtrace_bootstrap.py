"""APPO and IMPALA: V-trace on fragments, against its definition written out as a sum."""

from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.appo.torch import appo_torch_learner
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.impala.torch import impala_torch_learner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.postprocessing.episodes import add_one_ts_to_episodes_and_truncate

from rllib_attention import AttentionConfig, use_attention

GAMMA = 0.9
LENGTHS = (6, 3, 1, 7, 4, 5)
SMALL = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=3, ffn_dim=8)
ALGORITHMS = {
    "IMPALA": (IMPALAConfig, impala_torch_learner),
    "APPO": (APPOConfig, appo_torch_learner),
}

# Built IMPALA and APPO learners leave threads behind that slow down every later test of the
# process: these tests run apart.
pytestmark = pytest.mark.slow


@pytest.fixture(params=ALGORITHMS)
def algorithm(request) -> tuple[type, ModuleType]:
    return ALGORITHMS[request.param]


def make_learner(config_class: type, max_seq_len: int) -> Learner:
    config = config_class().environment("CartPole-v1").training(gamma=GAMMA)
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    use_attention(config, SMALL, max_seq_len=max_seq_len)
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    learner.build()
    return learner


def make_fragment(rng, num_steps: int, ends: str, logp: float | None = None) -> SingleAgentEpisode:
    """A fragment with lookback (if it is long enough) and random data."""
    env = gym.make("CartPole-v1")
    lookback = num_steps // 2
    total = num_steps + lookback
    logps = rng.uniform(-2, 0, total).astype(np.float32) if logp is None else [logp] * total
    return SingleAgentEpisode(
        observation_space=env.observation_space,
        action_space=env.action_space,
        observations=list(rng.normal(size=(total + 1, 4)).astype(np.float32)),
        actions=list(rng.integers(0, 2, total)),
        rewards=list(rng.normal(size=total)),
        extra_model_outputs={Columns.ACTION_LOGP: list(logps)},
        terminated=ends == "terminated",
        truncated=ends == "truncated",
        t_started=lookback,
        len_lookback_buffer=lookback,
    )


def run_vtrace(learner: Learner, tools: ModuleType, episodes: list, monkeypatch) -> dict:
    """Computes the learner's loss; returns what went into V-trace and what came out, (B, T)."""
    seen: dict = {}

    def spy(**kwargs):
        seen.update(kwargs)
        seen["targets"], seen["advantages"] = vtrace(**kwargs)
        return seen["targets"], seen["advantages"]

    vtrace = impala_torch_learner.vtrace_torch
    with monkeypatch.context() as patch:
        patch.setattr(tools, "vtrace_torch", spy)
        batch = learner._make_batch_if_necessary(TrainingData(episodes=episodes))
        batch = learner._convert_batch_type(batch).policy_batches
        fwd_out = learner.module.forward_train(batch)
        losses = learner.compute_losses(fwd_out=fwd_out, batch=batch)
    seen["gradients"] = learner.compute_gradients(losses)
    seen["loss"] = losses[DEFAULT_MODULE_ID]
    columns = dict(batch[DEFAULT_MODULE_ID])
    by_row = {key: value.T for key, value in seen.items() if key in BY_STEP}
    return seen | by_row | {"mask": columns[Columns.LOSS_MASK], "batch": columns}


BY_STEP = (
    "values",
    "rewards",
    "targets",
    "advantages",
    "target_action_log_probs",
    "behaviour_action_log_probs",
)


def split_rows(rows: torch.Tensor, lengths: list[int], max_seq_len: int) -> list[np.ndarray]:
    """(B, T) → each fragment's n + 1 steps."""
    out, row = [], 0
    for length in lengths:
        num_rows = -(-(length + 1) // max_seq_len)
        flat = rows[row : row + num_rows].reshape(-1)
        out.append(flat[: length + 1].detach().numpy().astype(np.float64))
        row += num_rows
    assert row == len(rows)
    return out


def reference(values, rewards, rhos, terminated: bool, max_seq_len: int):
    """V-trace's definition (equation 1 of the IMPALA paper), each target a sum of its own."""
    num_steps = len(values) - 1
    discounts = np.full(num_steps, GAMMA)
    if terminated:
        discounts[-1] = 0.0
    clipped = np.minimum(rhos, 1.0)
    deltas = clipped * (rewards + discounts * values[1:] - values[:-1])
    targets = values.copy()
    for start in range(num_steps):
        # RLlib restarts the recursion at each row.
        stop = min(num_steps, (start // max_seq_len + 1) * max_seq_len)
        for t in range(start, stop):
            targets[start] += np.prod((discounts * clipped)[start:t]) * deltas[t]
    next_targets = targets[1:].copy()
    ends = np.arange(1, num_steps + 1) % max_seq_len == 0
    next_targets[ends] = values[1:][ends]
    advantages = clipped * (rewards + discounts * next_targets - values[:-1])
    return targets[:-1], advantages


@pytest.mark.parametrize("max_seq_len", [3, 4, 7, 8, 20])
def test_vtrace_equals_its_definition(algorithm, max_seq_len, monkeypatch):
    # Fragments cut in mid-episode, truncated and terminated episodes, in any order; chunks that
    # divide a fragment, that divide it with its artificial step, and that hold it whole.
    rng = np.random.default_rng(0)
    ends = ["cut", "truncated", "terminated", "terminated", "cut", "truncated"]
    episodes = [make_fragment(rng, *args) for args in zip(LENGTHS, ends, strict=True)]
    rewards = [episode.get_rewards() for episode in episodes]
    logps = [episode.get_extra_model_outputs(Columns.ACTION_LOGP) for episode in episodes]
    learner = make_learner(algorithm[0], max_seq_len)
    out = run_vtrace(learner, algorithm[1], episodes, monkeypatch)
    rows = {key: split_rows(out[key], LENGTHS, max_seq_len) for key in (*BY_STEP, "mask")}
    for i, length in enumerate(LENGTHS):
        assert list(rows["mask"][i]) == [1.0] * length + [0.0]
        rhos = np.exp(rows["target_action_log_probs"][i][:-1] - logps[i])
        targets, advantages = reference(
            rows["values"][i], rewards[i], rhos, ends[i] == "terminated", max_seq_len
        )
        np.testing.assert_allclose(rows["targets"][i][:-1], targets, atol=1e-5)
        np.testing.assert_allclose(rows["advantages"][i][:-1], advantages, atol=1e-5)


@pytest.mark.parametrize(
    ("ends", "targets"),
    [
        ("cut", [6.355, 5.95, 5.5]),
        ("truncated", [6.355, 5.95, 5.5]),
        ("terminated", [2.71, 1.9, 1]),
    ],
)
@pytest.mark.parametrize("max_seq_len", [4, 20])
def test_vtrace_by_hand(algorithm, ends, targets, max_seq_len, monkeypatch):
    # Rewards 1, values 5, γ = 0.9, on policy: 1 + 0.9 · 5 = 5.5, 1 + 0.9 · 5.5 = 5.95, …
    episode = make_fragment(np.random.default_rng(0), 3, ends, logp=float(np.log(0.5)))
    episode.rewards.data = [1.0] * len(episode.rewards.data)
    learner = make_learner(algorithm[0], max_seq_len)
    module = learner.module[DEFAULT_MODULE_ID]
    for head, bias in ((module.vf, 5.0), (module.pi, 0.0)):
        last = [m for m in head.modules() if isinstance(m, torch.nn.Linear)][-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, bias)
    if hasattr(module, "_old_pi"):
        module._old_pi.load_state_dict(module.pi.state_dict())
    out = run_vtrace(learner, algorithm[1], [episode], monkeypatch)
    np.testing.assert_allclose(out["targets"][0, :3], targets, atol=1e-5)


def test_artificial_steps_and_padding_leave_no_trace(algorithm, monkeypatch):
    # What those steps hold must not matter: neither their rewards nor their log-probabilities,
    # and their importance weights must not turn a gradient into NaN.
    rng = np.random.default_rng(1)
    episodes = [make_fragment(rng, 5, "cut"), make_fragment(rng, 3, "terminated")]
    learner = make_learner(algorithm[0], 8)
    out = run_vtrace(learner, algorithm[1], episodes, monkeypatch)
    assert torch.isfinite(out["loss"])
    assert all(torch.isfinite(g).all() for g in out["gradients"].values() if g is not None)
    off = ~out["mask"].bool()
    np.testing.assert_allclose(out["targets"][off], out["values"][off].detach())
    assert not out["advantages"][off].any()


def test_real_log_probabilities_are_kept(algorithm, monkeypatch):
    episodes = [make_fragment(np.random.default_rng(2), 5, "cut")]
    logps = episodes[0].get_extra_model_outputs(Columns.ACTION_LOGP)
    out = run_vtrace(make_learner(algorithm[0], 4), algorithm[1], episodes, monkeypatch)
    kept = split_rows(out["behaviour_action_log_probs"], [5], 4)[0]
    np.testing.assert_allclose(kept[:5], logps)


def test_the_artificial_step_is_rllibs():
    # What the connector relies on: one step at the end, with reward 0, behind the real ones.
    episode = make_fragment(np.random.default_rng(0), 4, "cut")
    add_one_ts_to_episodes_and_truncate([episode])
    assert len(episode) == 5
    assert episode.get_rewards(-1) == 0.0
