"""The attention keys of RLlib's old model dict, and our names for them.

Pure Python: RLlib's defaults (`MODEL_DEFAULTS` in `ray/rllib/models/catalog.py`) are copied here.
"""

from __future__ import annotations

from typing import Any

# RLlib's key: our field, RLlib's default.
FIELDS: dict[str, tuple[str, Any]] = {
    "attention_num_transformer_units": ("num_layers", 1),
    "attention_dim": ("dim", 64),
    "attention_num_heads": ("num_heads", 1),
    "attention_head_dim": ("head_dim", 32),
    "attention_position_wise_mlp_dim": ("ffn_dim", 32),
    "attention_init_gru_gate_bias": ("gate_bias", 2.0),
    "attention_use_n_prev_actions": ("prev_actions", 0),
    "attention_use_n_prev_rewards": ("prev_rewards", 0),
    "max_seq_len": ("max_seq_len", 20),
}
MEMORY, MEMORY_DEFAULT = "attention_memory_inference", 50
"""Past rows that RLlib keeps. A window has one step more, the current one."""
IGNORED = "attention_memory_training"
"""RLlib stores this key and reads it nowhere."""

KNOWN = [*(key for key in FIELDS if key.startswith("attention_")), MEMORY, IGNORED]


def hint_for(key: Any) -> str:
    """Return what to use in place of one of RLlib's keys, "" if it is none.

    Args:
        key: What was taken for a field of `AttentionConfig`.
    """
    if key == IGNORED:
        return " Leave it out: RLlib reads it nowhere."
    if key == "use_attention":
        return " Leave it out: the call of `use_attention(config)` says it."
    if key == MEMORY:
        use, name = "`window=...`, RLlib's value and 1 for the current step", "window"
    elif key in FIELDS:
        name = FIELDS[key][0]
        use = f"`{name}=...`"
    else:
        return ""
    return (
        f" It is RLlib's name for {name!r}. Use {use}, or let "
        f"`AttentionConfig.from_rllib({{{key!r}: ...}})` read RLlib's keys."
    )
