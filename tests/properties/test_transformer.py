"""Random stacks on random rows: packed, in rows and step by step they are the dense definition."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rllib_attention.nn import KVCache, Stepper
from rllib_attention.nn.positions import POSITIONS
from tests.nn.rows import DIM, HEAD_SIZE, HEADS, build, episode, packed

OPTIONS = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 3),
        "window": st.integers(1, 7),
        "dilation": st.integers(1, 5),
        "ffn_dim": st.sampled_from([0, 8]),
        "position": st.sampled_from(POSITIONS),
        "gate": st.sampled_from(["residual", "gru"]),
        "start_embedding": st.booleans(),
    }
)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def outputs_of(model, x, valid, num_outputs, dilation):
    """The last outputs of each row's real steps, by dense masks; zeros elsewhere."""
    rows = torch.zeros(*x.shape[:2], DIM)
    for row, real in enumerate(valid):
        if real.any():
            rows[row, real] = episode(model, x[row, real], dilation)
    return rows[:, -num_outputs:]


@given(OPTIONS, st.data())
def test_packed_rows_of_any_raggedness(options, data):
    model, num_outputs = build(**options), data.draw(st.integers(1, 12))
    assume(model.context_len < 150)
    size = model.context_len + num_outputs
    valid = torch.zeros(data.draw(st.integers(1, 4)), size, dtype=torch.bool)
    for row in valid:
        first = data.draw(st.integers(0, model.context_len))
        row[first : data.draw(st.integers(model.context_len, size))] = True
    assume(valid.any())
    x = torch.randn(*valid.shape, DIM, requires_grad=True)
    expected = outputs_of(model, x, valid, num_outputs, options["dilation"])
    seen = valid[:, -num_outputs:, None]
    out = packed(model, x, valid, num_outputs)
    torch.testing.assert_close(out * seen, expected * seen, **CLOSE)
    grads = [torch.autograd.grad((y * seen).pow(2).sum(), x)[0] for y in (out, expected)]
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-3)


@given(OPTIONS, st.data())
def test_rows_with_any_number_of_outputs(options, data):
    model, num_outputs = build(**options), data.draw(st.integers(1, 6))
    assume(model.context_len < 150)
    size = model.context_len + num_outputs
    valid = torch.ones(2, size, dtype=torch.bool)
    valid[1, : data.draw(st.integers(0, model.context_len))] = False
    x = torch.randn(2, size, DIM)
    expected = outputs_of(model, x, valid, num_outputs, options["dilation"])
    torch.testing.assert_close(model.forward_rows(x, valid, num_outputs), expected, **CLOSE)


@given(OPTIONS, st.data())
def test_steps_of_slots_in_any_order(options, data):
    """Each call steps some slots; slots begin anew at any time, at clocks of their own."""
    model, num_slots = build(**options).eval(), 3
    cache = KVCache(
        strides=model.strides,
        num_slots=num_slots,
        num_heads=HEADS,
        head_size=HEAD_SIZE,
        window=options["window"],
        device=torch.device("cpu"),
        dtype=torch.float32,
        distance_bias=model.distance_bias,
    )
    stepper, tokens = Stepper(model), [[] for _ in range(num_slots)]
    starts = np.zeros(num_slots, np.int64)
    for _ in range(data.draw(st.integers(1, 25))):
        slots = data.draw(st.permutations(range(num_slots)))[: data.draw(st.integers(1, 3))]
        for slot in slots:
            if not tokens[slot] or data.draw(st.integers(0, 9)) == 0:
                starts[slot], tokens[slot] = data.draw(st.integers(0, 10**6)), []
            tokens[slot].append(torch.randn(DIM))
        steps = np.array([starts[slot] + len(tokens[slot]) - 1 for slot in slots])
        now = torch.stack([tokens[slot][-1] for slot in slots])
        out = stepper.step(now, cache, np.array(slots), steps, starts[slots])
        with torch.no_grad():
            expected = [
                episode(model, torch.stack(tokens[slot]), options["dilation"])[-1] for slot in slots
            ]
        torch.testing.assert_close(out, torch.stack(expected), atol=1e-4, rtol=1e-3)
