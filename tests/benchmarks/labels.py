"""The models that are compared, and what reports call them."""

ATTENTION, MLP, LSTM, DEEP_LSTM, GTRXL = "attention", "mlp", "lstm", "deep_lstm", "gtrxl"

PPO_MODELS = (ATTENTION, LSTM, DEEP_LSTM, GTRXL, MLP)
SAC_MODELS = (ATTENTION, MLP)  # RLlib's SAC has no LSTM
REPLAYING = {"sac": "SAC", "dqn": "DQN, prioritised"}

LABELS = {
    ATTENTION: "attention",
    MLP: "RLlib's MLP",
    LSTM: "RLlib's LSTM (one layer)",
    DEEP_LSTM: "RLlib's LSTM, equal layers",
    GTRXL: "RLlib's GTrXL (old stack)",
}
