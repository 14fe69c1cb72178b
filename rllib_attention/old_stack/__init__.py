"""RLlib's old API stack: the model `custom_model="attention"`."""
