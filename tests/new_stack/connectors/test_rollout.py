"""The piece in front of a runner's module: slots, steps, and what it forgets."""

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_attention import AttentionConfig, use_attention
from rllib_attention.encoder.inputs import RolloutStep
from rllib_attention.new_stack.connectors import AddRolloutContext
from tests.harness import DISCRETE, VECTOR, learner_modules

OPTIONS = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=3, prev_rewards=1)  # C = 4


@pytest.fixture
def module():
    config = use_attention(
        PPOConfig().rl_module(model_config={"fcnet_hiddens": [16], "vf_share_layers": True}),
        OPTIONS,
    )
    return learner_modules(config)[DEFAULT_MODULE_ID]


class Episodes:
    """Plays episodes, and calls the piece with them."""

    def __init__(self, module, **kwargs):
        self.module, self.piece = module, AddRolloutContext(**kwargs)
        self.rng = np.random.default_rng(0)

    def start(self, name):
        return SingleAgentEpisode(
            id_=name,
            observations=[self._obs()],
            observation_space=VECTOR,
            action_space=DISCRETE,
        )

    def step(self, episode, **kwargs):
        episode.add_env_step(self._obs(), 0, float(self.rng.normal()), **kwargs)

    def call(self, *episodes):
        """Returns slot and step of each episode's row, and the batch."""
        batch = self.piece(rl_module=self.module, batch={}, episodes=list(episodes))
        [state] = batch[Columns.STATE_IN]
        return RolloutStep.from_state(state).handle.tolist(), batch

    def _obs(self):
        return self.rng.uniform(-1, 1, VECTOR.shape).astype(np.float32)


def outputs(module, batch, episodes):
    """What the module computes for a batch of the piece."""
    [state] = batch[Columns.STATE_IN]
    obs = torch.from_numpy(np.stack([e.get_observations(-1) for e in episodes]))
    state = {key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}
    with torch.no_grad():
        out = module.forward_inference({Columns.OBS: obs, Columns.STATE_IN: state})
    return out[Columns.ACTION_DIST_INPUTS]


def test_slots_stay_and_steps_count(module):
    play = Episodes(module)
    first, second = play.start("a"), play.start("b")
    assert play.call(first, second)[0] == [[0, 0], [1, 0]]
    play.step(first)
    play.step(second, terminated=True)
    assert play.call(first, second)[0] == [[0, 1], [1, 1]]
    third = play.start("c")
    play.step(first)
    assert play.call(third, first)[0] == [[1, 0], [0, 2]]  # the slot of the one that ended


def test_only_who_is_forgotten_loses_a_slot_where_calls_show_some(module):
    play = Episodes(module, forgets_unseen=False)
    first, second = play.start("a"), play.start("b")
    play.call(first)
    assert play.call(second)[0] == [[1, 0]]
    play.step(first)
    assert play.call(first)[0] == [[0, 1]]
    play.piece.forget("a")
    assert play.call(play.start("c"))[0] == [[0, 0]]


def test_an_episode_in_mid_course_is_computed_from_its_own_past(module):
    """As after a restore: a new piece, which has not seen it begin."""
    play, late = Episodes(module), Episodes(module)
    episode = play.start("a")
    for _ in range(9):
        play.call(episode)
        play.step(episode)
    _, batch = play.call(episode)
    expected = outputs(module, batch, [episode])
    _, batch = late.call(episode)
    torch.testing.assert_close(outputs(module, batch, [episode]), expected, atol=1e-6, rtol=1e-6)


def test_other_observations_in_the_batch_are_refused(module):
    play = Episodes(module)
    episode = play.start("a")
    own = {Columns.OBS: {("a",): [episode.get_observations(-1) + 1.0]}}
    with pytest.raises(ValueError, match="a connector piece put others into the batch"):
        play.piece(rl_module=module, batch=own, episodes=[episode])
    same = {Columns.OBS: {("a",): [episode.get_observations(-1)]}}
    assert Columns.STATE_IN in play.piece(rl_module=module, batch=same, episodes=[episode])
