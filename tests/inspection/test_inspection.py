"""Attention records: numbers computed by hand, pictures that exist."""

import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention.inspection import AttentionRecord, plot_attention, record_attention
from tests.harness import RandomMultiAgentEnv, build, prepare, sample


def hand_made():
    """Two layers, one head, three steps: the second layer looks one step back."""
    first = np.eye(3)
    second = np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.7, 0.3]])
    return AttentionRecord(np.stack((first, second))[:, None], np.zeros(3))


def test_share_is_the_mean_of_a_diagonal():
    record = hand_made()
    assert record.share(1, layer=1) == pytest.approx((0.9 + 0.7) / 2)
    assert record.share(1) == pytest.approx((0.9 + 0.7) / 4)
    assert record.share(0, layer=1, head=0) == pytest.approx((1.0 + 0.1 + 0.3) / 3)
    assert record.sharpest_head(1) == (1, 0)


@pytest.mark.parametrize("distance", [-1, 3])
def test_share_of_an_impossible_distance(distance):
    with pytest.raises(ValueError, match=f"between 0 and 2 .* got {distance}"):
        hand_made().share(distance)


@pytest.mark.parametrize("previous", [0, 2])
def test_record_of_an_algorithm_and_of_an_episode(stop, tmp_path, previous):
    algo = stop(build(prepare(PPOConfig()), prev_actions=previous))
    record = record_attention(algo)
    length = len(record.rewards)
    assert record.weights.shape == (2, 2, length, length)
    np.testing.assert_allclose(record.weights.sum(-1), 1.0, rtol=1e-5)
    queries, keys = np.nonzero(record.weights[0, 0] > 0)
    assert ((queries - keys >= 0) & (queries - keys < 5)).all()
    path = plot_attention(record, tmp_path / "new" / "map.png")
    assert path.read_bytes().startswith(b"\x89PNG")

    episode = max(sample(algo, num_episodes=2), key=len)
    assert record_attention(algo.get_module(), episode).weights.shape[-1] == len(episode)


def test_ticks_stand_at_whole_steps(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure))
    plot_attention(hand_made(), tmp_path / "map.png")
    for axes in drawn[0].axes:
        is_map = axes.get_ylabel() == "step"
        ticks = [*axes.get_xticks(), *(axes.get_yticks() if is_map else [])]
        np.testing.assert_array_equal(ticks, np.round(ticks))


def test_module_without_attention(stop):
    algo = stop(prepare(PPOConfig()).build_algo())
    with pytest.raises(ValueError, match="has an attention encoder: build them with"):
        record_attention(algo)


def test_module_without_an_episode(stop):
    algo = stop(build(prepare(PPOConfig())))
    with pytest.raises(TypeError, match="Pass an episode"):
        record_attention(algo.get_module())


def by_number(agent_id, episode, **kwargs):
    return "p0" if agent_id == "agent_0" else "p1"


def test_one_module_of_several(stop):
    config = prepare(PPOConfig(), RandomMultiAgentEnv)
    config.multi_agent(policies={"p0", "p1"}, policy_mapping_fn=by_number)
    algo = stop(build(config, module_ids=["p0"]))
    [episode, *_] = sample(algo, num_episodes=1)
    agent = episode.agent_episodes["agent_0"]
    runner_module = algo.env_runner.module
    assert record_attention(runner_module, agent, module_id="p0").weights.shape[-1] == len(agent)
    for wrong in ("p1", "p7"):
        message = f"one of \\['p0'\\], but it is '{wrong}'"
        with pytest.raises(ValueError, match=message):
            record_attention(runner_module, agent, module_id=wrong)
    # The algorithm plays an episode itself; of its modules only one has attention.
    for chosen in (None, "p0"):
        assert record_attention(algo, module_id=chosen).weights.sum(-1) == pytest.approx(1.0)
