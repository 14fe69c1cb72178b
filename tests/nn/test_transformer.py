"""Rows, packed tokens and the KV cache compute one function, gradients included."""

import numpy as np
import pytest
import torch

from rllib_attention.nn import KVCache, PackedLayout, Stepper, Transformer
from rllib_attention.nn import layout as layout_module

DIM, ROWS, STEPS = 16, 4, 12
OPTIONS = [
    {
        "position": position,
        "gate": gate,
        "num_layers": num_layers,
        "window": window,
        "ffn_dim": ffn_dim,
    }
    for position, gate in [
        ("rotary", "residual"),
        ("recency", "residual"),
        ("relative", "gru"),
        ("none", "residual"),
    ]
    for num_layers, window in [(1, 1), (1, 6), (2, 4), (3, 3), (2, 40)]
    for ffn_dim in (0, 8)
]


def build(**options):
    torch.manual_seed(0)
    return Transformer(dim=DIM, num_heads=2, head_size=8, **options)


def ragged_rows(model):
    """Rows of `[context | chunk]`: full, short context, short chunk, no context."""
    context = model.num_layers * (model.window - 1)
    size = context + STEPS
    spans = [(0, size), (max(0, context - 2), size), (0, size - 5), (context, size - 9)]
    valid = torch.zeros(ROWS, size, dtype=torch.bool)
    for row, (start, stop) in enumerate(spans):
        valid[row, start:stop] = True
    return torch.randn(ROWS, size, DIM, requires_grad=True), valid, [s for s, _ in spans]


def layout_of(valid, num_outputs):
    first = valid.int().argmax(dim=1)
    stop = first + valid.sum(dim=1)
    return PackedLayout(first.numpy(), stop.numpy(), valid.shape[1], num_outputs)


def by_episode(model, x, valid):
    """The slow, obvious way: each row's steps alone, in full, without trimming or packing."""
    out = torch.zeros(ROWS, STEPS, DIM)
    for row in range(ROWS):
        steps = valid[row].nonzero().squeeze(1)
        alone = x[row : row + 1, steps]
        ones = torch.ones(1, len(steps), dtype=torch.bool)
        result = model.forward_rows(alone, ones, len(steps))[0]
        for i, step in enumerate(steps.tolist()):
            if step >= x.shape[1] - STEPS:
                out[row, step - (x.shape[1] - STEPS)] = result[i]
    return out


def gradient(out, valid, x):
    (grad,) = torch.autograd.grad(
        (out * valid[:, -STEPS:, None]).pow(2).sum(), x, retain_graph=True
    )
    return grad


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_paths_agree(options):
    model = build(**options)
    x, valid, starts = ragged_rows(model)
    expected = by_episode(model, x, valid)
    seen = valid[:, -STEPS:]

    rows = model.forward_rows(x, valid, STEPS)
    layout = layout_of(valid, STEPS)
    packed = layout.unpack(model(layout.pack(x), layout))
    for out in (rows, packed):
        torch.testing.assert_close(out[seen], expected[seen], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            gradient(out, valid, x), gradient(expected, valid, x), atol=1e-4, rtol=1e-4
        )
    cached = run_cached(model, x.detach(), starts)
    torch.testing.assert_close(cached[seen], expected[seen].detach(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def run_cached(model, x, starts, clock=1_000_000):
    """Prefills the context, then goes step by step, slots in another order, far on the clock."""
    context = x.shape[1] - STEPS
    cache = KVCache(
        num_layers=model.num_layers,
        num_slots=ROWS + 2,
        num_heads=2,
        head_size=8,
        window=model.window,
        device=x.device,
        dtype=x.dtype,
    )
    for ring in cache.layers:
        ring.fill_(1e6)  # what was never written must not be read
    slots = np.array([5, 0, 3, 1])
    first = np.array(starts) + clock
    now = np.full(ROWS, context + clock)
    model.prefill(x[:, :context], cache, slots, now, first)
    step = Stepper(model).step
    steps = [step(x[:, context + t], cache, slots, now + t, first) for t in range(STEPS)]
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize("position", ["recency", "rotary", "relative", "none"])
def test_receptive_field_is_exact(position):
    """Output t depends on inputs t-C … t, on each of them, and on nothing else."""
    num_layers, window, size = 2, 3, 12
    model = build(position=position, num_layers=num_layers, window=window)
    x = torch.randn(1, size, DIM, requires_grad=True)
    layout = layout_of(torch.ones(1, size, dtype=torch.bool), size)
    out = layout.unpack(model(layout.pack(x), layout))
    for t in range(size):
        (grad,) = torch.autograd.grad(out[0, t].pow(2).sum(), x, retain_graph=True)
        touched = grad[0].abs().sum(-1) > 0
        first = max(0, t - num_layers * (window - 1))
        assert touched.nonzero().squeeze(1).tolist() == list(range(first, t + 1))


@pytest.mark.parametrize("num_layers", [1, 3])
def test_fresh_outputs_have_norm_one(num_layers):
    model = build(num_layers=num_layers, window=4)
    x, valid, _ = ragged_rows(model)
    out = model.forward_rows(x, valid, STEPS)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(ROWS, STEPS), atol=1e-3, rtol=0)


def test_rows_do_not_see_each_other():
    model = build(num_layers=2, window=4)
    x, valid, _ = ragged_rows(model)
    changed = x.detach().clone()
    changed[1] *= -1  # a constant would vanish in the norms
    layout = layout_of(valid, STEPS)
    before, after = (layout.unpack(model(layout.pack(rows), layout)) for rows in (x, changed))
    untouched = torch.tensor([0, 2, 3])
    torch.testing.assert_close(before[untouched], after[untouched], atol=0, rtol=0)
    assert not torch.allclose(before[1], after[1])


def test_shifting_the_clock_changes_nothing():
    model = build(num_layers=2, window=4)
    x, _, starts = ragged_rows(model)
    early, late = (run_cached(model, x.detach(), starts, clock) for clock in (0, 10**8))
    torch.testing.assert_close(early, late, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("position", ["recency", "rotary", "relative", "none"])
def test_training_after_inference_mode(position):
    """What is kept between passes must serve autograd too, whichever pass came first."""
    model = build(position=position, num_layers=2, window=7)
    x, valid, _ = ragged_rows(model)
    layout = layout_of(valid, STEPS)
    layout_module._window_band.cache_clear()
    with torch.inference_mode():
        expected = layout.unpack(model(layout.pack(x), layout))
    out = layout.unpack(model(layout.pack(x), layout))
    # With gradients, torch may choose another kernel.
    torch.testing.assert_close(out, expected.clone(), atol=1e-5, rtol=1e-5)
    assert gradient(out, valid, x).abs().sum() > 0


@pytest.mark.parametrize("position", ["recency", "rotary", "relative", "none"])
def test_autocast(position):
    """Kernels run in bfloat16, gradients come back in float32; 8 bits of mantissa are 1%."""
    model = build(position=position, num_layers=2, window=4)
    x, valid, _ = ragged_rows(model)
    layout = layout_of(valid, STEPS)
    exact = layout.unpack(model(layout.pack(x), layout))
    with torch.autocast("cpu", torch.bfloat16):
        out = layout.unpack(model(layout.pack(x), layout))
        rows = model.forward_rows(x, valid, STEPS)
    seen = valid[:, -STEPS:]
    for rounded in (out, rows):
        torch.testing.assert_close(rounded[seen].float(), exact[seen], atol=0.1, rtol=0.05)
    assert gradient(out.float(), valid, x).dtype == torch.float32


@pytest.mark.parametrize("gate", ["residual", "gru"])
def test_dropout_acts_on_what_both_sub_layers_add(gate):
    model = build(num_layers=1, window=4, ffn_dim=8, gate=gate, dropout=0.5)
    [block], added = model.blocks, {}
    for name in ("attention_gate", "feed_forward_gate"):
        getattr(block, name).register_forward_hook(
            lambda _, args, out, name=name: added.setdefault(name, []).append(args[1])
        )
    x, valid, _ = ragged_rows(model)
    layout = layout_of(valid, STEPS)
    packed = layout.pack(x)
    for dropout in (False, True):
        model(packed, layout, dropout=dropout)
        model.forward_rows(x, valid, STEPS, dropout=dropout)
    for whole_packed, whole_rows, packed_part, rows_part in added.values():
        assert all((whole != 0).all() for whole in (whole_packed, whole_rows[valid[:, -STEPS:]]))
        for part in (packed_part, rows_part[valid[:, -STEPS:]]):
            assert 0.4 < (part == 0).float().mean() < 0.6
    whole, _, part, _ = added["attention_gate"]
    kept = part != 0  # kept numbers are scaled up, so that the mean stays
    torch.testing.assert_close(part[kept], 2 * whole[kept])


@pytest.mark.parametrize(("name", "value"), [("position", "absolute"), ("gate", "highway")])
def test_unknown_names_are_rejected(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be one of .* got '{value}'"):
        build(num_layers=1, window=2, **{name: value})
