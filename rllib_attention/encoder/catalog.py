"""RLlib catalogs that build the attention encoder in place of the MLP, CNN or LSTM one."""

from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.bc.bc_catalog import BCCatalog
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.distribution.torch.torch_distribution import TorchMultiDistribution
from ray.rllib.core.models.base import Model
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead

from rllib_attention.compat import catalog_model_config
from rllib_attention.config import AttentionConfig
from rllib_attention.encoder.actor_critic import AttentionActorCriticEncoder
from rllib_attention.encoder.encoder import AttentionEncoderConfig
from rllib_attention.encoder.policy_outputs import TimeRankFreeLogStdHead, time_rank_distribution

# Key of `model_config` that holds the options of `AttentionConfig`.
ATTENTION = "attention"
# Below it: whether the algorithm takes the window path.
WINDOWED = "windowed"


def attention_config(model_config: dict[str, Any]) -> AttentionConfig | None:
    """Reads the options of a module with attention from its `model_config`.

    Args:
        model_config: As RLlib hands it to the RLModule.

    Returns:
        The options, or None if the module has no attention.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is unknown or has a wrong value.
    """
    options = model_config.get(ATTENTION)
    if options is None:
        return None
    options = {key: value for key, value in options.items() if key != WINDOWED}
    return AttentionConfig.from_dict({**options, "max_seq_len": model_config["max_seq_len"]})


# To type checkers, the catalog that the mixin is put in front of.
_Base: Any = object


class AttentionCatalogMixin(_Base):
    """What `attention_catalog` puts in front of a catalog class."""

    @classmethod
    def _get_encoder_config(
        cls,
        observation_space: gym.Space,
        model_config_dict: dict[str, Any],
        action_space: gym.Space | None = None,
    ) -> ModelConfig:
        attention = attention_config(model_config_dict)
        if attention is None:
            return super()._get_encoder_config(
                observation_space=observation_space,
                model_config_dict=model_config_dict,
                action_space=action_space,
            )
        _check_observation_space(observation_space)
        plain = {key: value for key, value in model_config_dict.items() if key != ATTENTION}
        return AttentionEncoderConfig(
            attention=attention,
            tokenizer_config=cls.get_tokenizer_config(
                observation_space=observation_space, model_config_dict=plain
            ),
            observation_space=observation_space,
            action_space=action_space,
            windowed=model_config_dict[ATTENTION].get(WINDOWED, False),
        )

    def build_actor_critic_encoder(self, framework: str) -> AttentionActorCriticEncoder:
        """Builds actor and critic encoders that share their context.

        Args:
            framework: "torch".
        """
        if attention_config(catalog_model_config(self)) is None:
            return super().build_actor_critic_encoder(framework=framework)
        return AttentionActorCriticEncoder(self.actor_critic_encoder_config)

    def build_pi_head(self, framework: str) -> Model:
        """Builds the policy head; a free log-std one that takes a time dimension.

        Args:
            framework: "torch".
        """
        head = super().build_pi_head(framework=framework)
        if isinstance(head, TorchFreeLogStdMLPHead):
            return TimeRankFreeLogStdHead(self.pi_head_config)
        return head

    def get_action_dist_cls(self, framework: str) -> type:
        """Returns the action distribution; for nested actions one that takes a time dimension.

        Args:
            framework: "torch".
        """
        distribution = super().get_action_dist_cls(framework=framework)
        if isinstance(distribution, type) and issubclass(distribution, TorchMultiDistribution):
            return time_rank_distribution(distribution)
        return distribution


_catalogs: dict[type[Catalog], type[Catalog]] = {}


def attention_catalog(catalog_class: type[Catalog]) -> type[Catalog]:
    """Returns a catalog class that builds the attention encoder.

    The class reads its options from `model_config["attention"]` and `model_config["max_seq_len"]`;
    without them it is the class it was made from.

    Args:
        catalog_class: An algorithm's catalog class, or your own subclass of it. Tokenizers come
            from its `get_tokenizer_config`.

    Returns:
        A subclass of it; the same one for the same class.

    Raises:
        TypeError: If `catalog_class` is not a Catalog class.

    .. code-block:: python

        from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
        from rllib_attention import attention_catalog

        catalog_class = attention_catalog(PPOCatalog)
    """
    if not (isinstance(catalog_class, type) and issubclass(catalog_class, Catalog)):
        raise TypeError(
            "`attention_catalog` expects an RLlib Catalog class such as PPOCatalog, got "
            f"{catalog_class!r}. Use `attention_catalog(PPOCatalog)`."
        )
    if issubclass(catalog_class, AttentionCatalogMixin):
        return catalog_class
    if catalog_class not in _catalogs:
        name = f"Attention{catalog_class.__name__}"
        body = {"__doc__": f"{catalog_class.__name__} with attention.", "__module__": __name__}
        _catalogs[catalog_class] = type(name, (AttentionCatalogMixin, catalog_class), body)
    return _catalogs[catalog_class]


# By name here, so that specs and checkpoints can refer to them.
AttentionPPOCatalog = attention_catalog(PPOCatalog)
AttentionBCCatalog = attention_catalog(BCCatalog)
AttentionDQNCatalog = attention_catalog(DQNCatalog)
AttentionSACCatalog = attention_catalog(SACCatalog)
AttentionTQCCatalog = attention_catalog(TQCCatalog)


def _check_observation_space(space: gym.Space) -> None:
    """Raises if RLlib has no tokenizer for a space."""
    if isinstance(space, gym.spaces.Box) and len(space.shape) in (1, 3):
        return
    if isinstance(space, gym.spaces.Box):
        fix = "Reshape it in an environment wrapper"
    elif _flattens(space):
        fix = (
            "Put RLlib's FlattenObservations in front: "
            "`config.env_runners(env_to_module_connector=lambda env, spaces, device: "
            "FlattenObservations())` (with `multi_agent=True` in multi-agent set-ups)"
        )
    else:
        fix = "Encode it as such a Box in an environment wrapper"
    raise ValueError(
        f"Attention needs observations that RLlib can tokenize, Box of 1 or 3 dimensions, got "
        f"{space}. Fix: {fix}, or override `get_tokenizer_config` in a catalog of your own."
    )


def _flattens(space: gym.Space) -> bool:
    """Returns whether RLlib's FlattenObservations makes a vector of a space."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.values() if isinstance(space, gym.spaces.Dict) else space
        return all(map(_flattens, parts))
    plain = gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary
    return isinstance(space, plain)
