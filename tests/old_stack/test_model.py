"""The old stack's model: one function in rollouts and training, and the new stack's weights."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ACTOR, CRITIC, ENCODER_OUT
from ray.rllib.policy.sample_batch import SampleBatch

import rllib_attention
from rllib_attention import AttentionConfig, use_attention
from rllib_attention.encoder.inputs import ChunkContext
from rllib_attention.old_stack.model import AttentionModelV2
from tests.old_stack.support import (
    ACTION_SPACES,
    OBSERVATION_SPACES,
    VECTOR,
    RaggedMultiAgentEnv,
    ppo_config,
    rollout_worker,
    sample,
    training_pass,
)

ROOT = Path(rllib_attention.__file__).parents[1]
# Rollouts compute rows of one step, training packed chunks: float32 sums in another order.
TOLERANCE = 1e-6


def assert_parity(worker, num_samples: int = 2, policy_id: str = "default_policy") -> None:
    """Compare rollouts with training passes, changing the weights between the samples."""
    policy, rng = worker.get_policy(policy_id), np.random.default_rng(0)
    # Copies: on a CPU, RLlib returns the live parameters.
    before = after = {key: np.array(x) for key, x in policy.get_weights().items()}
    for index in range(num_samples):
        batch = sample(worker, policy_id)
        recorded = np.stack((batch["action_logp"], batch["vf_preds"]))
        differs = ~np.isclose(training_pass(policy, batch), recorded, TOLERANCE, TOLERANCE)
        # RLlib's old stack acts on a fragment's last observation before it returns the fragment:
        # the first action in each of two environments came from the weights before the change.
        assert differs.any(axis=0).sum() <= (2 if index else 0)
        policy.set_weights(before)
        old = np.array(training_pass(policy, batch))
        np.testing.assert_allclose(old[differs], recorded[differs], TOLERANCE, TOLERANCE)
        before = after
        after = {key: x + 0.02 * rng.normal(size=x.shape) for key, x in before.items()}
        policy.set_weights(after)


def model(obs_space=VECTOR, *, name="model", model_config=None, **options) -> AttentionModelV2:
    config = ppo_config(max_seq_len=8).model | (model_config or {})
    options = {"dim": 16, "num_heads": 2, "window": 4, "dropout": 0.0} | options
    return AttentionModelV2(obs_space, ACTION_SPACES["discrete"], 3, config, name, **options)


# Parity


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 1},
        {"num_layers": 3, "max_seq_len": 5},
        {"num_layers": 2, "position": "relative", "gate": "gru"},
        {"num_layers": 2, "position": "recency"},
        {"num_layers": 2, "position": "none", "ffn_dim": 0},
        {"num_layers": 2, "window": 1},
        {"num_layers": 1, "window": 1, "prev_actions": 2, "prev_rewards": 3},
        {"num_layers": 2, "prev_actions": 3, "prev_rewards": 1, "max_seq_len": 3},
        {"num_layers": 1, "window": 40, "max_seq_len": 37},
        {"num_layers": 2, "prev_rewards": 2, "model": {"vf_share_layers": True}},
        {"num_layers": 2, "dilation": 3, "prev_actions": 1},
        {"num_layers": 3, "window": 3, "dilation": 4, "position": "relative", "gate": "gru"},
    ],
    ids=str,
)
def test_training_sees_what_the_rollout_saw(options):
    # Fragments of 37 steps cut episodes of 1 to 30; weights change between the fragments.
    assert_parity(rollout_worker(ppo_config(**options)), num_samples=3)


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
def test_parity_with_every_observation_space(name):
    env_config = {"observation_space": OBSERVATION_SPACES[name]}
    worker = rollout_worker(ppo_config(env_config=env_config, prev_actions=1))
    assert_parity(worker)
    state = worker.get_policy().get_initial_state()[0]
    assert state.dtype == (np.uint8 if name == "image" else np.float32)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_parity_with_every_action_space(name):
    env_config = {"action_space": ACTION_SPACES[name]}
    worker = rollout_worker(ppo_config(env_config=env_config, prev_actions=2, prev_rewards=2))
    assert_parity(worker)
    batch = sample(worker)
    assert np.isfinite(batch["advantages"]).all()


def test_parity_with_agents_that_act_at_different_rates():
    config = ppo_config(prev_actions=2, prev_rewards=1)
    config.environment(RaggedMultiAgentEnv).multi_agent(
        policies={"a", "b"}, policy_mapping_fn=lambda agent_id, *args, **kwargs: agent_id
    )
    worker = rollout_worker(config)
    assert_parity(worker, policy_id="a")
    assert_parity(worker, policy_id="b")


def test_values_at_fragment_ends_are_those_of_the_next_fragment():
    config = ppo_config(prev_actions=2, prev_rewards=1, num_layers=2)
    worker = rollout_worker(config.env_runners(num_envs_per_env_runner=1))
    checked = 0
    ended, last_value, last_episode = True, 0.0, None
    for _ in range(6):
        batch = sample(worker)
        if not ended and batch["eps_id"][0] == last_episode:
            assert batch["vf_preds"][0] == pytest.approx(last_value, abs=TOLERANCE)
            checked += 1
        ended, last_episode = batch["terminateds"][-1], batch["eps_id"][-1]
        last_value = batch["values_bootstrapped"][-1]
    assert checked


def test_the_train_batch_holds_a_state_per_chunk_and_none_per_step():
    worker = rollout_worker(ppo_config(max_seq_len=10))
    batch = sample(worker)
    assert not [column for column in batch if column.startswith("state_out")]
    assert batch["state_in_0"].shape[0] == len(batch["seq_lens"]) < len(batch["obs"])
    assert not {"prev_actions", "prev_rewards"} & set(batch)


# Acting by hand


def test_single_actions_are_those_of_the_rollout():
    worker = rollout_worker(ppo_config(prev_actions=2, prev_rewards=2, num_layers=2))
    policy, batch = worker.get_policy(), sample(worker)
    state, action, reward = policy.get_initial_state(), None, None
    last = int(np.argmax(batch["eps_id"] != batch["eps_id"][0]))
    for step in range(last):
        previous = {} if step == 0 else {"prev_action": action, "prev_reward": reward}
        _, state, extra = policy.compute_single_action(batch["obs"][step], state, **previous)
        np.testing.assert_allclose(
            extra["action_dist_inputs"], batch["action_dist_inputs"][step], atol=TOLERANCE
        )
        action, reward = batch["actions"][step], batch["rewards"][step]


def test_a_missing_previous_action_is_an_error_after_the_first_step():
    policy = rollout_worker(ppo_config(prev_actions=1)).get_policy()
    _, state, _ = policy.compute_single_action(np.zeros(3), policy.get_initial_state())
    message = "Use `policy.compute_single_action(obs, state, prev_action=...)`."
    with pytest.raises(ValueError, match=re.escape(message)):
        policy.compute_single_action(np.zeros(3), state)


def test_a_missing_state_is_an_error():
    policy = rollout_worker(ppo_config()).get_policy()
    message = (
        "The attention model expects one state of shape (6, 4) for each sequence, and sequence "
        "lengths; got no state and seq_lens None. Rollouts start from "
        "`state=policy.get_initial_state()`"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        policy.compute_single_action(np.zeros(3))


# Weights


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("gate", ["residual", "gru"])
def test_weights_move_between_the_stacks(shared, gate):
    attention = AttentionConfig(
        dim=16, num_heads=2, window=4, gate=gate, prev_actions=1, max_seq_len=8
    )
    sizes = {"vf_share_layers": shared, "fcnet_hiddens": [16]}
    new = PPOConfig().environment(observation_space=VECTOR, action_space=gym.spaces.Discrete(3))
    new.rl_module(model_config=sizes)
    module = use_attention(new, attention).get_rl_module_spec(inference_only=False).build()
    old = model(model_config=sizes, **attention.to_dict())
    assert_loads(module, old)
    assert_equal_outputs(module, old)
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert_loads(old, module)
    assert_equal_outputs(module, old)


def assert_loads(source, target) -> None:
    for part in ("encoder", "pi", "vf"):
        getattr(target, part).load_state_dict(getattr(source, part).state_dict())


def assert_equal_outputs(module, old) -> None:
    steps, num_rows = 6, old.steps.num_rows
    obs = torch.randn(2, steps, 3)
    actions = torch.randint(3, (2, steps))
    with torch.no_grad():
        batch = {"obs_flat": obs.flatten(0, 1), "prev_actions": actions.flatten()}
        logits, _ = old.forward(batch, [old.steps.initial().expand(2, -1, -1)], [steps, steps])
        context = old.attention.context_len
        rows = actions.float().unsqueeze(-1)
        rows[:, 0] = -1  # no action before the first step
        state = ChunkContext(
            context=torch.zeros(2, context, 3),
            context_length=torch.tensor([0, 0]),
            chunk_length=torch.tensor([steps, steps]),
            prev=torch.cat((torch.zeros(2, context, 1), rows), dim=1),
        ).to_state()
        encoded = module.encoder({Columns.OBS: obs, Columns.STATE_IN: state})[ENCODER_OUT]
        expected = module.pi(encoded[ACTOR])
        values = module.vf(encoded[CRITIC])
    assert num_rows == context
    torch.testing.assert_close(logits.unflatten(0, (2, steps)), expected, atol=1e-6, rtol=0)
    actual = old.value_function().unflatten(0, (2, steps))
    torch.testing.assert_close(actual, values.squeeze(-1), atol=1e-6, rtol=0)


def test_sizes_of_tokenizer_and_heads_come_from_the_model_dict():
    built = model(model_config={"fcnet_hiddens": [24, 12], "post_fcnet_hiddens": [20]})
    assert built.encoder.actor_encoder.embedding.input.in_features == 12
    assert [p.shape[0] for p in built.pi.parameters() if p.dim() == 2] == [20, 3]


def test_gradients_reach_the_oldest_step_that_an_output_sees():
    built = model(num_layers=2, window=4)
    state = torch.randn(1, *built.steps.shape)
    state[..., -1] = 1
    state.requires_grad_()
    logits, _ = built.forward({"obs_flat": torch.randn(1, 3)}, [state], torch.tensor([1]))
    logits.sum().backward()
    assert (state.grad[0, :, :3].abs().sum(dim=-1) > 0).all()


def test_dropout_acts_in_training_passes_of_the_main_model_only():
    for name, drops in (("func", True), ("target_func", False)):
        built = model(name=name, dropout=0.5)
        state = [torch.zeros(1, *built.steps.shape)]

        def run(training: bool, built=built, state=state):
            batch = SampleBatch(obs=torch.ones(4, 3))
            batch.set_training(training)
            logits, _ = built(batch, state, torch.tensor([4]))
            return torch.cat((logits.flatten(), built.value_function()))

        assert torch.equal(run(False), run(False))
        assert torch.equal(run(True), run(True)) is not drops


# Errors


def test_images_that_are_no_longer_bytes_are_errors():
    built = model(OBSERVATION_SPACES["image"])
    batch = {"obs_flat": torch.zeros(1, 72)}
    with pytest.raises(ValueError, match=r"reach the model as torch\.float32, .*NoFilter"):
        built.forward(batch, [built.steps.initial().unsqueeze(0)], torch.tensor([1]))


def test_observations_that_are_not_finite_name_the_model():
    built = model(name="pilot")
    batch = {"obs_flat": torch.full((1, 3), float("nan"))}
    with pytest.raises(ValueError, match="Observations of the model 'pilot' hold 3 non-finite"):
        built.forward(batch, [built.steps.initial().unsqueeze(0)], torch.tensor([1]))


def test_the_model_dict_holds_what_was_left_out():
    """It is in checkpoints, which another version with other defaults may read."""
    found = model()
    options = found.model_config["custom_model_config"]
    assert options["window"] == 4
    assert options["dropout"] == 0.0
    assert options["position"] == AttentionConfig().for_path(windowed=False).position
    again = AttentionModelV2(
        VECTOR, ACTION_SPACES["discrete"], 3, found.model_config, "again", **options
    )
    again.load_state_dict(found.state_dict())
