"""The one table of what differs between RLlib's algorithms, by config class.

Nothing else in this package asks which algorithm a config belongs to.
"""

import enum
from dataclasses import dataclass

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.bc.bc_catalog import BCCatalog
from ray.rllib.algorithms.bc.torch.default_bc_torch_rl_module import DefaultBCTorchRLModule
from ray.rllib.algorithms.cql import CQLConfig
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
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.rl_module.rl_module import RLModule


class DataPath(enum.Enum):
    """How the steps that an algorithm trains on reach the encoder."""

    SEQUENCE = "sequence"
    """Chunks of steps, each with a context in `STATE_IN`."""
    WINDOW = "window"
    """Observations that bring their context along, in one tensor."""


class ChunkRule(enum.Enum):
    """How long a training chunk is where the user does not say."""

    CONTEXT = "context"
    """An eighth of a minibatch, or as long as its context."""
    FRAGMENT = "fragment"
    """A whole fragment and its artificial last step."""
    RUN = "run"
    """A run of replayed transitions, as long as a batch still has enough runs."""
    TRANSITION = "transition"
    """One transition."""


@dataclass(frozen=True)
class AlgorithmTraits:
    """What `use_attention` has to know of an algorithm.

    Attributes:
        data_path: How its training data reach the encoder.
        chunk_rule: How long its training chunks are by default.
        next_obs: Whether its learner reads `NEXT_OBS`. On the window path it is always there.
        offline: Whether it trains on recorded episodes only.
        vtrace: Whether its learner computes V-trace on the rows of the train batch.
        replay: Whether it samples from a replay buffer that it fills itself.
        min_dataset_iters: Least `dataset_num_iters_per_learner` with a local learner; below 2,
            RLlib hands the learner a batch in place of an iterator.
    """

    data_path: DataPath
    chunk_rule: ChunkRule
    next_obs: bool = False
    offline: bool = False
    vtrace: bool = False
    replay: bool = False
    min_dataset_iters: int = 1


_PPO = AlgorithmTraits(DataPath.SEQUENCE, ChunkRule.CONTEXT)
_IMPALA = AlgorithmTraits(DataPath.SEQUENCE, ChunkRule.FRAGMENT, vtrace=True)
_MARWIL = AlgorithmTraits(DataPath.SEQUENCE, ChunkRule.CONTEXT, next_obs=True, offline=True)
_DQN = AlgorithmTraits(DataPath.WINDOW, ChunkRule.RUN, next_obs=True, replay=True)
_IQL = AlgorithmTraits(DataPath.WINDOW, ChunkRule.RUN, next_obs=True, offline=True)
_CQL = AlgorithmTraits(
    DataPath.WINDOW, ChunkRule.RUN, next_obs=True, offline=True, min_dataset_iters=2
)
# A window stands for itself in whatever loss an algorithm has, while chunks need one that knows of
# time and masks.
UNKNOWN = AlgorithmTraits(DataPath.WINDOW, ChunkRule.TRANSITION, next_obs=True, replay=True)
"""What is taken for algorithms that derive from none in the table."""

TRAITS: dict[type[AlgorithmConfig], AlgorithmTraits] = {
    PPOConfig: _PPO,
    APPOConfig: _IMPALA,
    IMPALAConfig: _IMPALA,
    BCConfig: _MARWIL,
    MARWILConfig: _MARWIL,
    DQNConfig: _DQN,
    SACConfig: _DQN,
    TQCConfig: _DQN,
    CQLConfig: _CQL,
    IQLConfig: _IQL,
}
"""By config class; the nearest class that a config derives from counts."""

CATALOGS: dict[type[RLModule], type[Catalog]] = {
    DefaultPPOTorchRLModule: PPOCatalog,
    DefaultBCTorchRLModule: BCCatalog,
    DefaultDQNTorchRLModule: DQNCatalog,
    DefaultSACTorchRLModule: SACCatalog,
    DefaultTQCTorchRLModule: TQCCatalog,
}
"""The catalog of each default RLModule; those of the other algorithms derive from these."""

_REFUSED = {
    # By name: importing DreamerV3 needs packages that RLlib does not install.
    "DreamerV3Config": "DreamerV3 cannot use attention: it has no encoder to replace, its world "
    "model keeps a recurrent state of its own. Use PPOConfig, SACConfig, DQNConfig or another.",
}


def algorithm_traits(config: AlgorithmConfig) -> AlgorithmTraits:
    """Returns what differs for an algorithm.

    The nearest class in `TRAITS` that its config derives from counts, else `UNKNOWN`.

    Args:
        config: A config of the new API stack.

    Raises:
        ValueError: For DreamerV3, which has no encoder to replace.
    """
    classes = type(config).__mro__
    for cls in classes:
        if cls.__name__ in _REFUSED:
            raise ValueError(_REFUSED[cls.__name__])
    return next((TRAITS[cls] for cls in classes if cls in TRAITS), UNKNOWN)


def trains_offline(config: AlgorithmConfig) -> bool:
    """Returns whether an algorithm trains on recorded episodes.

    Args:
        config: A config of the new API stack.
    """
    return config.is_offline or algorithm_traits(config).offline


def catalog_for(module_class: type[RLModule] | None) -> type[Catalog] | None:
    """Returns the catalog that an RLModule class needs, None if it is no default one of RLlib.

    Args:
        module_class: RLlib's default module of some algorithm, or a class that derives from it.
    """
    classes = module_class.__mro__ if isinstance(module_class, type) else ()
    return next((CATALOGS[cls] for cls in classes if cls in CATALOGS), None)
