"""`use_attention` on RLlib's new API stack: makes a plan, checks it, applies it."""

from collections.abc import Collection

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention.log import get_logger
from rllib_attention.new_stack.algorithms import UNKNOWN
from rllib_attention.new_stack.checks import check_config, check_plan, checked_module_ids
from rllib_attention.new_stack.plan import make_plan
from rllib_attention.search_space import SearchSpace

logger = get_logger(__name__)


def use_attention_on_new_stack(
    config: AlgorithmConfig, space: SearchSpace, module_ids: Collection[str] | None
) -> AlgorithmConfig:
    """Sets modules, connectors, lookback and replay of a new-stack config.

    A config that is refused stays as it was.

    Args:
        config: A config of the new API stack; changed in place.
        space: The options.
        module_ids: Which modules of a multi-agent set-up get attention; None for all.

    Returns:
        `config`.

    Raises:
        ImportError: If recorded episodes cannot be read, because msgpack-numpy is missing.
        TypeError: If `module_ids` is a string, or a `max_seq_len` of a `model_config` no int.
        ValueError: If the algorithm cannot use attention, or the config holds settings that cannot
            work with it.
    """
    module_ids = checked_module_ids(config, module_ids)
    check_config(config, space, module_ids)
    plan = make_plan(config, space, module_ids)
    check_plan(config, plan)
    plan.apply(config)
    if plan.traits is UNKNOWN:
        logger.info(
            "%s derives from no algorithm of RLlib that attention knows: it takes the window path.",
            type(config).__name__,
        )
    return config
