"""The encoder's pass in training, compiled against eager: `python -m tests.benchmarks.compiled`."""

import argparse
import copy
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.configs import MLPEncoderConfig

from rllib_attention import AttentionConfig
from rllib_attention.encoder.encoder import AttentionEncoder, AttentionEncoderConfig
from rllib_attention.encoder.inputs import ChunkContext
from rllib_attention.encoder.packed_window import pack_tokens
from rllib_attention.encoder.run_tags import stream_tags

OBS_SIZE, CHUNK = 4, 128


def make_encoder(*, windowed: bool) -> AttentionEncoder:
    """Returns an encoder of width 64, window 32 and two layers."""
    torch.manual_seed(0)
    return AttentionEncoderConfig(
        attention=AttentionConfig(dim=64, num_heads=4, num_layers=2, window=32, ffn_dim=128),
        tokenizer_config=MLPEncoderConfig(input_dims=[OBS_SIZE], hidden_layer_dims=[64]),
        observation_space=gym.spaces.Box(-1, 1, (OBS_SIZE,), np.float32),
        windowed=windowed,
    ).build()


def chunks(encoder: AttentionEncoder, num_rows: int) -> dict:
    """Returns rows of 62 + 128 steps."""
    context = encoder.config.attention.context_len
    state = ChunkContext(
        torch.randn(num_rows, context, OBS_SIZE),
        np.full(num_rows, context),
        np.full(num_rows, CHUNK),
    )
    obs = torch.randn(num_rows, CHUNK, OBS_SIZE)
    return {Columns.OBS: obs, Columns.STATE_IN: state.to_state()}


def runs(encoder: AttentionEncoder, num_runs: int, length: int) -> dict:
    """Returns replayed runs of `length` transitions, each with its whole context."""
    context = np.full(num_runs, encoder.config.attention.context_len)
    num_rows, size = num_runs * length, num_runs * (int(context[0]) + length)
    tags = stream_tags(context, np.full(num_runs, length), -(-size // num_rows))
    obs = np.random.default_rng(0).normal(size=(len(tags), OBS_SIZE)).astype(np.float32)
    packed = pack_tokens(obs, np.zeros((len(tags), 0), np.float32), tags)
    return {Columns.OBS: torch.from_numpy(packed.reshape(num_rows, -1, packed.shape[-1]))}


def measure(run: Callable[[], None]) -> float:
    """Returns the milliseconds of CPU that a call takes."""
    start = time.process_time()
    run()
    return 1e3 * (time.process_time() - start)


def compare(name: str, eager: AttentionEncoder, batch: dict, rounds: int, backend: str) -> None:
    """Prints the medians of interleaved passes forward and backward, and when they compiled."""
    compiled = copy.deepcopy(eager)
    compiled.compile(backend=backend)

    def passed(encoder: AttentionEncoder) -> None:
        # Another tensor each time, as in training: layouts are worked out anew.
        new = {**batch, Columns.OBS: batch[Columns.OBS].clone()}
        encoder({**new})[ENCODER_OUT].square().sum().backward()

    first = measure(lambda: passed(compiled))
    for encoder in (eager, compiled) * 3:
        passed(encoder)
    times = np.array(
        [[measure(lambda e=e: passed(e)) for e in (eager, compiled)] for _ in range(rounds)]
    )
    medians, ratio = np.median(times, axis=0), np.median(times[:, 1] / times[:, 0])
    low, high = np.quantile(times[:, 1] / times[:, 0], (0.25, 0.75))
    print(
        f"{name}: eager {medians[0]:.2f} ms, compiled {medians[1]:.2f} ms, ratio {ratio:.2f} "
        f"({low:.2f}-{high:.2f}); compiling took {first / 1e3:.1f} s",
        flush=True,
    )


def main() -> None:
    """Runs all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", default="inductor")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sequence, windowed = make_encoder(windowed=False), make_encoder(windowed=True)
    for name, encoder, batch in (
        ("2 rows of 62 + 128 steps", sequence, chunks(sequence, 2)),
        ("16 rows of 62 + 128 steps", sequence, chunks(sequence, 16)),
        ("256 transitions in runs of 8", windowed, runs(windowed, 32, 8)),
        ("256 transitions in runs of 32", windowed, runs(windowed, 8, 32)),
    ):
        compare(name, encoder, batch, args.rounds, args.backend)


if __name__ == "__main__":
    main()
