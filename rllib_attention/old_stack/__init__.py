"""RLlib's old API stack: the model `custom_model="attention"`."""

MODEL_NAME = "attention"
"""What `model={"custom_model": ...}` calls the model."""

NEW_STACK = (
    "`config.api_stack(enable_rl_module_and_learner=True, "
    "enable_env_runner_and_connector_v2=True)` and then `use_attention(config)`"
)
"""How to move to the new API stack, for error messages."""
