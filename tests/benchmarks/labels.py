"""The models that are compared, and what reports call them."""

ATTENTION, MLP, LSTM, DEEP_LSTM, GTRXL = "attention", "mlp", "lstm", "deep_lstm", "gtrxl"

PPO_MODELS = (ATTENTION, LSTM, DEEP_LSTM, GTRXL, MLP)
# RLlib has no LSTM for them.
REPLAYING = {"sac": "SAC", "dqn": "DQN, prioritised"}

# Evaluations.
CALLBACK, WITHOUT = "with the callback", "without"

LABELS = {
    ATTENTION: "attention",
    MLP: "RLlib's MLP",
    LSTM: "RLlib's LSTM (one layer)",
    DEEP_LSTM: "RLlib's LSTM, equal layers",
    GTRXL: "RLlib's GTrXL (old stack)",
}
