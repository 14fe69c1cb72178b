"""Does attention learn? Many tasks, attention beside RLlib's own models, one report."""
