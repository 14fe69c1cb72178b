"""`use_attention`: the one call, for configs of either API stack.

This file is not called `use_attention.py`: Python would then put the module in the place of the
function of that name as soon as anything imports it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_attention.config import AttentionConfig
from rllib_attention.search_space import split_overrides


def use_attention(
    config: AlgorithmConfig,
    attention: AttentionConfig | None = None,
    *,
    module_ids: Collection[str] | None = None,
    **overrides: Any,
) -> AlgorithmConfig:
    """Gives an algorithm's modules attention. Call it last: it wraps what is set before.

    It sets the RLModule spec (catalog and `model_config`), the connectors, the
    `episode_lookback_horizon`, subclasses of the learner and env runner classes, and for algorithms
    with a replay buffer the buffer's class. Your own classes, connectors, `model_config`, callbacks
    and multi-agent specs stay and run before it. All of it is worked out and checked first: a
    config that is refused stays as it was.

    A `max_seq_len` in your `model_config` is respected. (That of a `DefaultModelConfig` cannot be
    told from its default if it is 20; then it is taken for not set.)

    Args:
        config: Any AlgorithmConfig; changed in place.
        attention: The options; None for the defaults.
        module_ids: Which modules of a multi-agent set-up get attention; None for all.
        **overrides: Fields of `AttentionConfig` that take precedence over `attention`, as values
            or as Ray Tune search spaces (`window=tune.grid_search([16, 64])`).

    Returns:
        `config`.

    Raises:
        TypeError: If `config`, `module_ids` or an option has the wrong type.
        ImportError: If the algorithm reads recorded episodes and msgpack-numpy is missing.
        ValueError: If an option is unknown or wrong, the algorithm cannot use attention, or the
            config holds settings that cannot work with it. The message names the call that fixes
            it.

    .. code-block:: python

        from ray.rllib.algorithms.ppo import PPOConfig
        from rllib_attention import AttentionConfig, use_attention

        config = PPOConfig().environment("CartPole-v1")
        use_attention(config, AttentionConfig(num_layers=2, dim=64, num_heads=4, window=32))
    """
    if not isinstance(config, AlgorithmConfig):
        raise TypeError(
            f"`use_attention` expects an AlgorithmConfig such as PPOConfig(), got {config!r}."
        )
    space = split_overrides(attention, overrides)
    if not config.enable_rl_module_and_learner:
        from rllib_attention.old_stack.setup import use_attention_on_old_stack

        return use_attention_on_old_stack(config, space, module_ids)
    from rllib_attention.new_stack.setup import use_attention_on_new_stack

    return use_attention_on_new_stack(config, space, module_ids)
