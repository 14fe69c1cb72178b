"""Speed, bytes and memory, measured against RLlib's own models: `python -m tests.benchmarks`."""
