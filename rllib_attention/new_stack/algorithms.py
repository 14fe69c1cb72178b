"""Which way observations reach the encoder, by the RLlib class that an algorithm derives from."""

import enum
import logging

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc.bc_catalog import BCCatalog
from ray.rllib.algorithms.bc.torch.default_bc_torch_rl_module import DefaultBCTorchRLModule
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

logger = logging.getLogger(__name__)


class Path(enum.Enum):
    """How training data reaches the encoder."""

    SEQUENCE = "sequence"
    """Chunks of steps, each with a context (PPO, APPO, IMPALA)."""
    OFFLINE_SEQUENCE = "offline sequence"
    """The same from recorded episodes (BC, MARWIL)."""
    WINDOW = "window"
    """One window for each transition (DQN, SAC, TQC, CQL, IQL, and unknown algorithms)."""


# The first class that a config is an instance of decides; IQL derives from MARWIL in RLlib.
_PATHS: tuple[tuple[type[AlgorithmConfig], Path], ...] = (
    (IQLConfig, Path.WINDOW),
    (MARWILConfig, Path.OFFLINE_SEQUENCE),
    (PPOConfig, Path.SEQUENCE),
    (IMPALAConfig, Path.SEQUENCE),
    (DQNConfig, Path.WINDOW),
    (SACConfig, Path.WINDOW),
)

# The first class that an RLModule derives from decides; the others derive from these.
_CATALOGS: tuple[tuple[type[RLModule], type[Catalog]], ...] = (
    (DefaultTQCTorchRLModule, TQCCatalog),
    (DefaultSACTorchRLModule, SACCatalog),
    (DefaultDQNTorchRLModule, DQNCatalog),
    (DefaultBCTorchRLModule, BCCatalog),
    (DefaultPPOTorchRLModule, PPOCatalog),
)


def algorithm_path(config: AlgorithmConfig) -> Path:
    """Returns the path of an algorithm.

    Args:
        config: A config of the new API stack.

    Raises:
        ValueError: For DreamerV3, which has no encoder to replace.
    """
    if any(cls.__name__ == "DreamerV3Config" for cls in type(config).__mro__):
        raise ValueError(
            "DreamerV3 cannot use attention: it has no encoder to replace, its world model keeps "
            "a recurrent state of its own. Use PPOConfig, SACConfig, DQNConfig or another."
        )
    for config_class, path in _PATHS:
        if isinstance(config, config_class):
            return path
    logger.info(
        "%s derives from no algorithm of RLlib that attention knows: it takes the window path.",
        type(config).__name__,
    )
    return Path.WINDOW


def catalog_for(config: AlgorithmConfig, spec: RLModuleSpec) -> type[Catalog]:
    """Returns the catalog class that a module needs, the user's own if there is one.

    Args:
        config: The algorithm's config.
        spec: The user's module spec, possibly empty.

    Raises:
        ValueError: If the module is no RLlib default (or a subclass), or the user's catalog does
            not belong to it.
    """
    default = config.get_default_rl_module_spec()
    module_class = spec.module_class or getattr(default, "module_class", None)
    for base, catalog_class in _CATALOGS:
        if isinstance(module_class, type) and issubclass(module_class, base):
            return _check_catalog(spec.catalog_class, catalog_class, base)
    raise ValueError(
        "`use_attention` builds attention into RLlib's default RLModules, got "
        f"{module_class!r}. In an RLModule of your own, build an `AttentionEncoder` (see "
        "`AttentionEncoderConfig`), or derive it from the algorithm's default module."
    )


def _check_catalog(
    given: type[Catalog] | None, needed: type[Catalog], module_class: type[RLModule]
) -> type[Catalog]:
    if given is None:
        return needed
    if not (isinstance(given, type) and issubclass(given, needed)):
        raise ValueError(
            f"{module_class.__name__} needs a catalog derived from {needed.__name__}, got "
            f"{getattr(given, '__name__', given)!r}. Use "
            f"`config.rl_module(rl_module_spec=RLModuleSpec(catalog_class={needed.__name__}))`, or "
            "leave `catalog_class` out."
        )
    return given
