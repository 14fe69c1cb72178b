"""RLModules, catalogs and distributions."""

import gymnasium as gym
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ACTOR, CRITIC, ENCODER_OUT

from tests.rllib_contract.pieces import ACTIONS, OBS, lstm, module


def names(pieces) -> list[str]:
    return [type(piece).__name__ for piece in pieces]


def test_catalogs_make_encoder_configs_by_a_class_method_with_keywords():
    calls = []

    class Catalog(PPOCatalog):
        @classmethod
        def _get_encoder_config(cls, **kwargs):
            calls.append(kwargs)
            return super()._get_encoder_config(**kwargs)

    catalog = Catalog(OBS, ACTIONS, {"max_seq_len": 7})
    assert set(calls[0]) == {"observation_space", "model_config_dict", "action_space"}, (
        "encoder/catalog.py overrides this hook with these keywords."
    )
    assert catalog._model_config_dict["max_seq_len"] == 7
    assert "fcnet_hiddens" in catalog._model_config_dict, "with RLlib's defaults"


def test_values_of_a_separate_critic_are_computed_from_its_part_of_the_state():
    built, seen = lstm(vf_share_layers=False), []
    assert set(built.get_initial_state()) == {ACTOR, CRITIC}, "The encoder decides on the state."
    built.encoder.critic_encoder.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    critic = {key: value.unsqueeze(0) for key, value in built.get_initial_state()[CRITIC].items()}
    state = {ACTOR: None, CRITIC: critic}
    batch = {Columns.OBS: torch.zeros(1, 2, 3), Columns.STATE_IN: state}
    assert built.compute_values(batch).shape == (1, 2)
    assert seen[0][Columns.STATE_IN] is critic, "encoder/actor_critic.py nests below CRITIC."


def test_values_take_embeddings_where_a_training_pass_has_made_them():
    built = module(vf_share_layers=False)
    batch = {Columns.OBS: torch.zeros(2, 3)}
    out = built.forward_train(batch)
    assert torch.equal(
        built.compute_values(batch, embeddings=out[Columns.EMBEDDINGS]), built.compute_values(batch)
    )


def test_passes_switch_between_training_and_evaluation():
    built = module()
    batch = {Columns.OBS: torch.zeros(2, 3)}
    built.eval()
    built.forward_train(batch)
    assert built.training, "TorchRLModule.forward_train calls train()."
    modes = []
    built.encoder.register_forward_pre_hook(lambda *args: modes.append(built.training))
    built.forward_inference(batch)
    built.forward_exploration(batch)
    assert modes == [False, False]
    assert built.training, "and these restore the mode they found"


def test_targets_are_deep_copies_without_gradients():
    target = make_target_network(torch.nn.Linear(2, 2))
    assert not target.weight.requires_grad
    made = []

    class Net(torch.nn.Linear):
        def __deepcopy__(self, memo):
            made.append(self)
            return torch.nn.Linear(2, 2)

    net = Net(2, 2)
    make_target_network(net)
    assert made == [net], "made by copy.deepcopy: encoder/encoder.py tells copies by it"


def test_nested_distributions_show_their_parts_and_can_be_subclassed():
    space = gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": OBS})
    partial = PPOCatalog(OBS, space, {}).get_action_dist_cls("torch")
    own = type("Own", (partial,), {})
    distribution = own.from_logits(torch.zeros(1, 8))
    assert type(distribution) is own, "encoder/policy_outputs.py derives a class of its own"
    parts = names(distribution._flat_child_distributions)
    assert parts == ["TorchCategorical", "TorchDiagGaussian"]


def test_distributions_still_take_a_chunk_of_one_step_for_a_component():
    space = gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": OBS})
    partial = PPOCatalog(OBS, space, {}).get_action_dist_cls("torch")
    distribution = partial.from_logits(torch.zeros(5, 1, 8))
    actions = {"a": torch.zeros(5, 1, dtype=torch.long), "b": torch.zeros(5, 1, 3)}
    shape = distribution.logp(actions).shape
    assert shape != (5, 1), "RLlib is right now: policy_outputs.TimeRankMultiDistribution can go"


def test_encoders_return_actor_and_critic():
    out = module().encoder({Columns.OBS: torch.zeros(2, 3)})[ENCODER_OUT]
    assert set(out) == {ACTOR, CRITIC}
