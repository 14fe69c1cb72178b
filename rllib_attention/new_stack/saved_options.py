"""The options of attention in a learner's checkpoint.

Most options have no weights of their own: weights that were trained with a window of 8 fit a window
of 16, and give other actions. RLlib restores whatever fits, so the learner compares.
"""

import dataclasses
from typing import Any

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from rllib_attention.config import AttentionConfig
from rllib_attention.new_stack.connectors.attention_module import find_attention

SAVED_OPTIONS = "attention_options"
"""Where a learner's state has them: a dict for each module with attention."""

# These say how to begin and to train, not what weights compute.
_FREE = ("max_seq_len", "dropout", "lr_factor", "check_finite", "gate_bias")

# These have weights of their own, which a checkpoint of other options lacks. RLlib would leave them
# as they began.
_WITH_WEIGHTS = {"position", "gate", "token_size", "start_embedding"}

# Where a checkpoint of an algorithm has all weights.
WEIGHTS = "learner_group/learner/rl_module"


def options_of(modules: MultiRLModule) -> dict[str, dict[str, Any]]:
    """Returns the options of a learner's modules, for its state, those left out filled in.

    Args:
        modules: The learner's modules.
    """
    return {
        key: _filled_in(found.attention, windowed=found.windowed)
        for key, found in find_attention(modules).items()
        if key is not None
    }


def _filled_in(attention: AttentionConfig, *, windowed: bool) -> dict[str, Any]:
    """Returns what weights compute with, whatever the defaults of another version are."""
    return attention.to_dict() | dataclasses.asdict(attention.for_path(windowed=windowed))


def check_saved_options(saved: dict[str, dict[str, Any]], modules: MultiRLModule) -> None:
    """Refuses a state whose weights were trained with other options.

    Args:
        saved: From `options_of`, maybe of an older version that did not know all options, or left
            some to their defaults.
        modules: The modules that are to get the weights.

    Raises:
        ValueError: If options differ that change what the same weights compute.
    """
    for module_id, found in find_attention(modules).items():
        if module_id is None or module_id not in saved:
            continue
        own = _filled_in(found.attention, windowed=found.windowed)
        trained = AttentionConfig.from_dict(saved[module_id])
        given = _filled_in(trained, windowed=found.windowed)
        differ = [name for name in own if name not in _FREE and own[name] != given[name]]
        if differ:
            there = ", ".join(f"{name}={given[name]!r}" for name in differ)
            here = ", ".join(f"{name}={own[name]!r}" for name in differ)
            raise ValueError(
                f"The checkpoint of module {module_id!r} was trained with {there}, got {here} "
                "here: its weights would compute something else. Fix: `use_attention(config, "
                f"{there})`{_other_way(differ)}."
            )


def _other_way(differ: list[str]) -> str:
    """Returns how weights go into other options, if all of them do."""
    if _WITH_WEIGHTS & set(differ):
        return ""
    return (
        "; or, to go on with other options, restore the weights alone: "
        f"`algo.restore_from_path(path + '/{WEIGHTS}', component='{WEIGHTS}')`"
    )
