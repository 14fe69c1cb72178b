"""The KV cache and its rings against a plain list of steps for each slot."""

import re

import numpy as np
import pytest
import torch

from rllib_attention.nn import KVCache

SLOTS, HEADS, SIZE, WINDOW = 4, 2, 3, 5
STRIDES = (1, 3, 9)
CPU = torch.device("cpu")


def build(**options):
    sizes = {
        "strides": STRIDES,
        "num_slots": SLOTS,
        "num_heads": HEADS,
        "head_size": SIZE,
        "window": WINDOW,
    }
    sizes |= {"device": CPU, "dtype": torch.float32, "distance_bias": None}
    cache = KVCache(**sizes | options)
    for ring in cache.layers:
        ring.fill_(float("nan"))  # what was never written must not be read
    return cache


def pairs_of(rows):
    return torch.randn(rows, 2 * HEADS, SIZE)


def assert_holds(cache, index, layer, slots, steps, starts, history):
    """What may be read is each slot's last W steps of a residue, each at its distance."""
    index, stride = index[cache.strides[layer]], cache.strides[layer]
    key, value = cache.read(layer, index)
    key = key.view(len(slots), HEADS, SIZE, WINDOW).transpose(2, 3)
    value = value.view(len(slots), HEADS, WINDOW, SIZE)
    bias = index.bias.expand(-1, 1, WINDOW).view(len(slots), HEADS, WINDOW)
    for row, (slot, step, start) in enumerate(zip(slots, steps, starts, strict=True)):
        back = index.distance()[row].flatten()
        for head in range(HEADS):
            readable = bias[row, head] == 0
            distances = back[readable].tolist()
            assert sorted(distances) == list(range(min(WINDOW, (step - start) // stride + 1)))
            for entry, distance in zip(readable.nonzero().flatten(), distances, strict=True):
                written = history[layer, slot, step - distance * stride]
                torch.testing.assert_close(key[row, head, entry], written[head])
                torch.testing.assert_close(value[row, head, entry], written[HEADS + head])


@pytest.mark.parametrize("clock", [0, 10**9])
@pytest.mark.parametrize("slots", [[0, 1, 2, 3], [0, 1], [3, 0, 2]])
def test_a_step_reads_the_last_window_of_its_slot(slots, clock):
    """Slots stand at different steps and one begins anew on the way."""
    cache, history = build(), {}
    slots = np.array(slots)
    steps = clock + np.arange(len(slots)) * 3
    starts = steps.copy()
    for turn in range(60):
        if turn == 26:
            steps[1], starts[1] = 2, 2
        index = cache.locate(slots, steps, starts)
        for layer, stride in enumerate(STRIDES):
            pairs = pairs_of(len(slots))
            cache.write(layer, index[stride], pairs)
            history |= {(layer, s, t): p for s, t, p in zip(slots, steps, pairs, strict=True)}
            assert_holds(cache, index, layer, slots, steps, starts, history)
        steps = steps + 1


@pytest.mark.parametrize("layer", [0, 1])
def test_fill_writes_the_past_that_a_step_reads(layer):
    cache, history = build(), {}
    slots, steps, starts = np.array([2, 0]), np.array([40, 4]), np.array([0, 2])
    size = WINDOW * STRIDES[layer]
    pairs_past = [(2, t) for t in range(40 - size, 40)] + [(0, 2), (0, 3)]
    of_slot, past = np.array(pairs_past).T
    pairs = pairs_of(len(past))
    cache.fill(layer, of_slot, past, pairs[:, :HEADS], pairs[:, HEADS:])
    history |= {(layer, s, t): p for s, t, p in zip(of_slot, past, pairs, strict=True)}
    index, now = cache.locate(slots, steps, starts), pairs_of(2)
    cache.write(layer, index[STRIDES[layer]], now)
    history |= {(layer, s, t): p for s, t, p in zip(slots, steps, now, strict=True)}
    assert_holds(cache, index, layer, slots, steps, starts, history)
    assert torch.isnan(cache.layers[2]).all()


@pytest.mark.parametrize(
    ("slots", "steps", "is_view"),
    [
        ([0, 1, 2], [4, 4, 4], (True, True)),
        ([0, 1], [4, 7], (True, True)),
        ([0, 1], [4, 5], (True, False)),
        ([1, 0], [4, 4], (False, False)),
    ],
)
def test_reading_slots_in_order_copies_nothing(slots, steps, is_view):
    """Nor do slots of one residue in a layer with a stride."""
    cache, steps = build(), np.array(steps)
    index = cache.locate(np.array(slots), steps, steps)
    for layer, expected in enumerate(is_view):
        key, _ = cache.read(layer, index[STRIDES[layer]])
        start = cache.layers[layer].data_ptr()
        end = start + cache.layers[layer].numel() * cache.layers[layer].element_size()
        assert (start <= key.data_ptr() < end) is expected


@pytest.mark.parametrize("window", [1, 2, 5, 40])
@pytest.mark.parametrize("slots", [[0, 1, 2, 3], [3, 0]])
def test_distances_add_what_the_position_scheme_says(slots, window):
    distance_bias = torch.randn(HEADS, window)
    cache, plain = (build(window=window, distance_bias=x) for x in (distance_bias, None))
    slots = np.array(slots)
    starts = np.arange(len(slots))
    for step in range(7, 10 + 2 * window):  # rings fill up and turn
        steps = step + starts % 2
        pairs = zip(*(c.locate(slots, steps, starts).values() for c in (cache, plain)), strict=True)
        for index, expected in pairs:
            bias = index.bias.view(len(slots), HEADS, window)
            hidden = expected.bias.expand(-1, 1, window).reshape(bias.shape) < 0
            added = distance_bias[torch.arange(HEADS)[:, None], index.distance()[:, 0]]
            torch.testing.assert_close(bias, added.masked_fill(hidden, -torch.inf), atol=0, rtol=0)


def test_a_cache_made_under_inference_mode_serves_outside_of_it():
    with torch.inference_mode():
        cache = build()
    steps = np.zeros(SLOTS, int)
    cache.write(0, cache.locate(np.arange(SLOTS), steps, steps)[1], pairs_of(SLOTS))
    assert not cache.layers[0].is_inference()


@pytest.mark.parametrize("name", ["num_slots", "num_heads", "head_size", "window"])
def test_wrong_sizes_are_named(name):
    message = f"`{name}` must be an integer of at least 1, got 0."
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**{name: 0})


def test_wrong_strides_are_named():
    with pytest.raises(ValueError, match="`strides` must hold one number for each layer, got none"):
        build(strides=())
    with pytest.raises(ValueError, match="`stride` must be an integer of at least 1, got 0"):
        build(strides=(1, 0))
