"""RLlib's new API stack: what `use_attention` sets there."""
