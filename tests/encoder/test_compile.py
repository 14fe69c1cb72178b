"""One graph serves batches of all shapes, on both paths; numbers stay what they are."""

import copy

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from torch._dynamo.utils import counters

from rllib_attention.encoder.inputs import ChunkContext
from tests.encoder.support import build
from tests.encoder.test_packed_runs import make_encoder, make_runs

# Lengths of chunks, and of the context before each.
CHUNKS = [([10, 4], [6, 0]), ([10, 10, 3], [6, 6, 2]), ([1] * 4, [0] * 4), ([10] * 9, [6] * 9)]
CHUNKS += [([5], [3])]
# Context and outputs of runs.
RUNS = [([8, 8, 8], [4, 4, 4]), ([0, 8, 3, 0, 8], [1, 7, 4, 6, 2]), ([8, 0], [24, 17])]
RUNS += [([5], [9]), ([0, 0, 0], [3, 3, 3])]


def chunk_batches():
    for lengths, context in CHUNKS:
        state = ChunkContext(
            torch.randn(len(lengths), 6, 3), np.array(context, object), np.array(lengths, object)
        ).to_state()
        yield {Columns.OBS: torch.randn(len(lengths), 10, 3), Columns.STATE_IN: state}


def run_batches():
    rng = np.random.default_rng(0)
    for shapes in RUNS:
        yield {Columns.OBS: make_runs(rng, *shapes)[0]}


def window_batches():
    rng = np.random.default_rng(0)
    for shapes in RUNS[:3]:
        yield {Columns.OBS: make_runs(rng, *shapes)[1]}


def train_pass(encoder, batch):
    encoder.zero_grad()
    out = encoder(batch)[ENCODER_OUT]
    out.square().sum().backward()
    return out.detach(), {name: p.grad for name, p in encoder.named_parameters()}


@pytest.mark.parametrize(
    ("make", "batches", "options", "most"),
    [
        (build, chunk_batches, {}, 1),
        (build, chunk_batches, {"position": "relative", "gate": "gru", "dilation": 1}, 1),
        (make_encoder, run_batches, {"position": "relative_bias"}, 1),
        (make_encoder, window_batches, {"position": "relative_bias"}, 2),
        (make_encoder, run_batches, {}, 1),
        (make_encoder, window_batches, {}, 2),  # the first shape, and all others
    ],
)
def test_one_graph_for_all_shapes(make, batches, options, most):
    torch._dynamo.reset()
    eager = make(**options)
    compiled = copy.deepcopy(eager)
    compiled.compile(backend="eager")
    counters.clear()
    for batch in batches():
        expected, gradients = train_pass(eager, batch)
        out, found = train_pass(compiled, {**batch, Columns.OBS: batch[Columns.OBS].clone()})
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found, gradients, atol=1e-5, rtol=1e-4)
    assert 1 <= counters["stats"]["unique_graphs"] <= most
    assert not counters["graph_break"]


def test_copies_are_not_compiled():
    encoder = build()
    encoder.compile(backend="eager")
    assert encoder._compiled is not None
    assert copy.deepcopy(encoder)._compiled is None
