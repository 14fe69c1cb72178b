"""A policy of RLlib's old API stack as the new stack's module, with connectors of the same effect.

The old stack's model has the encoders and heads of the new stack's default module, down to the
names of their weights (`old_stack/model.py`). What stands around it is told in the policy's state:
preprocessor, filter, and how actions are brought within their bounds.
"""

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.rllib.connectors.env_to_module.observation_preprocessor import (
    SingleAgentObservationPreprocessor,
)
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.models.preprocessors import (
    DictFlatteningPreprocessor,
    NoPreprocessor,
    OneHotPreprocessor,
    TupleFlatteningPreprocessor,
    get_preprocessor,
)
from ray.rllib.utils.serialization import space_from_dict

from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.catalog import ATTENTION, attention_catalog
from rllib_attention.new_stack.module_specs import MAX_SEQ_LEN
from rllib_attention.new_stack.policy_parts import PolicyParts, connected_parts
from rllib_attention.old_stack import MODEL_NAME
from rllib_attention.old_stack.model import AttentionModelV2
from rllib_attention.old_stack.networks import (
    attention_options,
    has_new_stack_actions,
    new_stack_options,
)

# What stands around a policy, by the names in its state.
_PREPROCESSOR, _CLIP_REWARD = "ObsPreprocessorConnector", "ClipRewardAgentConnector"
_FILTERS = {f"{kind}ObservationFilterAgentConnector" for kind in ("MeanStd", "ConcurrentMeanStd")}
_NO_CHANGE = {"StateBufferConnector", "ViewRequirementAgentConnector"}
# What the filter calls its options here and there.
_FILTER_KEYS = {
    "shape": "shape",
    "demean": "de_mean_to_zero",
    "destd": "de_std_to_one",
    "clip": "clip_by_value",
    "running_stats": "running_stats",
}
# Preprocessors whose work FlattenObservations does, for modules and for exports.
_FLATTENING = (DictFlatteningPreprocessor, OneHotPreprocessor, TupleFlatteningPreprocessor)


class Preprocess(SingleAgentObservationPreprocessor):
    """Runs the old stack's preprocessor of a space, such as that of Atari's pictures.

    Args:
        *args: RLlib's.
        options: The model dict.
        **kwargs: RLlib's.
    """

    def __init__(self, *args: Any, options: dict[str, Any], **kwargs: Any):
        self._options = options
        super().__init__(*args, **kwargs)

    def recompute_output_observation_space(
        self, input_observation_space: gym.Space, input_action_space: gym.Space
    ) -> gym.Space:
        """Returns the space of preprocessed observations."""
        preprocessor = get_preprocessor(input_observation_space)
        self._preprocessor = preprocessor(input_observation_space, self._options)
        return self._preprocessor.observation_space

    def preprocess(self, observation: Any, episode: SingleAgentEpisode) -> Any:
        """Returns an observation as the model takes it."""
        return self._preprocessor.transform(observation)


def is_attended(state: dict[str, Any]) -> bool:
    """Returns whether a policy's model is ours.

    Args:
        state: The policy's state, as in its checkpoint.
    """
    custom_model = state["policy_spec"]["config"]["model"].get("custom_model")
    return custom_model in (MODEL_NAME, AttentionModelV2)


def policy_parts(policy_id: str, state: dict[str, Any]) -> PolicyParts:
    """Returns what a policy is made of.

    Args:
        policy_id: Its ID.
        state: Its state, as in its checkpoint.

    Raises:
        ValueError: If the new stack has no distribution for its actions, or connectors of its own
            stand around it.
    """
    spec, pieces = state["policy_spec"], dict(state["connector_configs"]["agent"][1])
    config = spec["config"]
    space = space_from_dict(spec["observation_space"])
    module = _module(space, space_from_dict(spec["action_space"]), config["model"])
    module.load_state_dict({k: torch.as_tensor(v) for k, v in state["weights"].items()})
    _check_pieces(policy_id, pieces, module)
    original = getattr(space, "original_space", space) if _PREPROCESSOR in pieces else space
    filters = [options for name, options in pieces.items() if name in _FILTERS]
    parts = connected_parts(
        policy_id,
        module,
        original,
        *_preprocessing(original, config["model"]),
        *([MeanStdFilter] if filters else []),
        timestep=state["global_timestep"],
        normalize_actions=config["normalize_actions"],
        clip_actions=config["clip_actions"],
    )
    for piece, options in zip(parts.env_to_module[MeanStdFilter], filters, strict=True):
        piece.set_state({None: {new: options[old] for old, new in _FILTER_KEYS.items()}})
    return parts


def _module(
    observation_space: gym.Space, action_space: gym.Space, model: dict[str, Any]
) -> RLModule:
    """Returns the new stack's module of the same function, with fresh weights."""
    if not has_new_stack_actions(action_space, model):
        raise ValueError(
            "AttentionPolicy acts with the distributions of RLlib's new API stack, which has none "
            f"for {action_space} of the old one (custom_action_dist: "
            f"{model.get('custom_action_dist')}). Fix: act by `Policy.from_checkpoint(path)`, and "
            "hand the state that `compute_single_action` returns back to it."
        )
    attention: AttentionConfig = attention_options(model["custom_model_config"], model[MAX_SEQ_LEN])
    return DefaultPPOTorchRLModule(
        observation_space=observation_space,
        action_space=action_space,
        model_config=new_stack_options(model, attention),
        catalog_class=attention_catalog(PPOCatalog),
    )


def _check_pieces(policy_id: str, pieces: dict[str, Any], module: RLModule) -> None:
    """Raises if something stands around the policy that is not known."""
    known = {_PREPROCESSOR, *_FILTERS, *_NO_CHANGE}
    if not module.model_config[ATTENTION]["prev_rewards"]:
        known.add(_CLIP_REWARD)  # the model does not see them
    if unknown := sorted(pieces.keys() - known):
        raise ValueError(
            f"AttentionPolicy knows the connectors {sorted(known)} of RLlib's old API stack, but "
            f"policy {policy_id!r} has {unknown}. Fix: act by `Policy.from_checkpoint(path)`."
        )


def _preprocessing(space: gym.Space, model: dict[str, Any]) -> list[Any]:
    """Returns what makes the pieces that preprocess observations."""
    preprocessor = get_preprocessor(space)
    if preprocessor is NoPreprocessor:
        return []
    if preprocessor in _FLATTENING:
        return [FlattenObservations]
    return [lambda: Preprocess(options=model)]
