"""Rows and packed tokens compute one function, gradients included; nothing else gets in."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from rllib_attention.nn import PackedLayout, Transformer
from rllib_attention.nn.positions import POSITIONS
from tests.nn.rows import (
    DIM,
    HEADS,
    STEPS,
    build,
    by_episode,
    episode,
    gradient,
    layout_of,
    packed,
    ragged_rows,
)

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
        ("relative_bias", "residual"),
        ("relative", "gru"),
        ("none", "residual"),
    ]
    for num_layers, window in [(1, 1), (1, 6), (2, 4), (3, 3), (2, 40)]
    for ffn_dim in (0, 8)
]
# A dilation above the window leaves steps out; above the chunk, whole residues.
DILATED = [
    {
        "dilation": dilation,
        "num_layers": num_layers,
        "window": window,
        "position": position,
        "gate": gate,
        "ffn_dim": 8,
    }
    for position, gate in [
        ("rotary", "residual"),
        ("recency", "gru"),
        ("relative_bias", "residual"),
        ("relative", "gru"),
        ("none", "residual"),
    ]
    for dilation in (1, 2, 3, 5)
    for num_layers, window in [(2, 4), (2, 9), (3, 3), (3, 2)]
]
STARTED = [options | {"start_embedding": True} for options in OPTIONS + DILATED]
ALL = OPTIONS + DILATED + STARTED


@pytest.mark.parametrize("options", ALL, ids=lambda o: "-".join(map(str, o.values())))
def test_rows_and_packed_tokens_equal_whole_episodes(options):
    model = build(**options)
    x, valid = ragged_rows(model)
    expected = by_episode(model, x, valid, dilation=options.get("dilation", 1))
    seen = valid[:, -STEPS:]
    for out in (model.forward_rows(x, valid, STEPS), packed(model, x, valid)):
        torch.testing.assert_close(out[seen], expected[seen], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            gradient(out, valid, x), gradient(expected, valid, x), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("lengths", [[(0, 12), (5, 9), (0, 7)], [(0, 3)], [(0, 12)] * 3])
@pytest.mark.parametrize("options", ALL[4::7], ids=lambda o: "-".join(map(str, o.values())))
def test_views_for_compilers_change_nothing(options, lengths):
    """All index tensors are there, also where tokens could be taken as they are."""
    model, (first, stop) = build(**options), np.array(lengths).T
    layout = PackedLayout(first, stop, 12, 12)
    tokens = torch.randn(len(layout), DIM)
    out = model.run(tokens, model.views(layout, uniform=True))
    torch.testing.assert_close(out, model(tokens, layout), atol=1e-6, rtol=1e-6)
    valid = torch.tensor(np.arange(12) < stop[:, None])
    rows = torch.randn(len(first), 12, DIM)
    read, views = model.rows_views(valid, 5, uniform=True)
    rows_read = rows if read is None else rows.index_select(1, read)
    out = model.run(rows_read, views)
    torch.testing.assert_close(out, model.forward_rows(rows, valid, 5), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_start_embedding_lets_alike_steps_be_counted(position):
    """Without it the mean of 3 alike steps is that of 4, whatever their scores."""
    rows = torch.randn(1, 1, DIM).expand(1, 12, DIM)
    for has_start in (True, False):
        model = build(position=position, num_layers=1, window=8, start_embedding=has_start)
        out = packed(model, rows, torch.ones(1, 12, dtype=torch.bool))[0]
        change = (out[1:] - out[:-1]).abs().amax(-1)
        assert ((change > 1e-4) == torch.tensor([has_start] * 7 + [False] * 4)).all()


@pytest.mark.parametrize("position", POSITIONS)
def test_a_start_embedding_can_make_sums_of_means(position):
    """What n alike steps of a window of 8 add is n eighths of what a full window adds."""
    model = build(position=position, num_layers=1, window=8, start_embedding=True)
    model.norm = torch.nn.Identity()
    [block] = model.blocks
    torch.nn.init.ones_(block.start.sum_share)
    torch.nn.init.zeros_(block.start.vector)
    rows = torch.randn(1, 1, DIM).expand(1, 12, DIM)
    added = packed(model, rows, torch.ones(1, 12, dtype=torch.bool)) - rows
    share = (torch.arange(12) + 1).clamp(max=8) / 8
    torch.testing.assert_close(added[0], share[:, None] * added[0, -1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("num_outputs", [1, 3, 30])
@pytest.mark.parametrize(
    ("dilation", "num_layers", "window"),
    [(1, 2, 3), (2, 2, 3), (3, 2, 3), (5, 2, 3), (2, 3, 3), (3, 3, 2), (5, 2, 2)],
)
@pytest.mark.parametrize("position", POSITIONS)
def test_receptive_field_is_exact(position, dilation, num_layers, window, num_outputs):
    """Output t depends on the steps that the definition names, on each, and on nothing else."""
    model = build(position=position, num_layers=num_layers, window=window, dilation=dilation)
    size = 30
    x, valid = torch.randn(1, size, DIM, requires_grad=True), torch.ones(1, size, dtype=torch.bool)
    outputs = packed(model, x, valid, num_outputs), model.forward_rows(x, valid, num_outputs)
    for t in range(size - num_outputs, size):
        seen = {t}
        for layer in range(num_layers):
            seen = {u - k * dilation**layer for u in seen for k in range(window)}
        for out in outputs:
            (grad,) = torch.autograd.grad(out[0, t - size].pow(2).sum(), x, retain_graph=True)
            touched = (grad[0].abs().sum(-1) > 0).nonzero().squeeze(1)
            assert touched.tolist() == sorted(u for u in seen if u >= 0)
        assert min(seen) == t - model.context_len


@pytest.mark.parametrize("num_outputs", [1, 40])
def test_no_layer_computes_what_nothing_reads(num_outputs):
    """Tokens in, keys and queries, of each layer: (w-1)·Σ of the strides above, and the outputs."""
    model = build(num_layers=3, window=4, dilation=3)
    context = model.context_len
    assert context == 3 * (1 + 3 + 9)
    x = torch.randn(1, context + num_outputs, DIM)
    sizes = []
    for block in model.blocks:
        block.attention_norm.register_forward_hook(lambda _, x, out: sizes.append(out.shape[-2]))
        block.attention.out.register_forward_hook(lambda _, x, out: sizes.append(out.shape[-2]))
    expected = [n + num_outputs for n in (39, 36, 36, 27, 27, 0)]
    ones = torch.ones(1, x.shape[1], dtype=torch.bool)
    packed(model, x, ones, num_outputs)
    assert sizes == expected
    sizes.clear()
    model.forward_rows(x, ones, num_outputs)
    # Few outputs of rows leave gaps: 4 steps for the top layer, 4 for each of them below.
    assert sizes == (expected if num_outputs > 1 else [40, 13, 13, 4, 4, 1])


def test_an_episode_shorter_than_the_context_costs_its_own_length():
    model = build(num_layers=2, window=8, dilation=8)
    assert model.context_len == 63
    layout = PackedLayout(np.array([63, 60]), np.array([75, 75]), 75, 12)
    sizes = []
    for block in model.blocks:
        block.attention_norm.register_forward_hook(lambda _, x, out: sizes.append(len(out)))
    model(torch.randn(len(layout), DIM), layout)
    assert sizes == [27, 27]


@pytest.mark.parametrize("num_layers", [1, 3])
def test_fresh_outputs_have_norm_one(num_layers):
    model = build(num_layers=num_layers, window=4)
    x, valid = ragged_rows(model)
    out = model.forward_rows(x, valid, STEPS)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(len(out), STEPS), atol=1e-3, rtol=0)


def test_rows_do_not_see_each_other():
    model = build(num_layers=2, window=4)
    x, valid = ragged_rows(model)
    changed = x.detach().clone()
    changed[1] *= -1  # a constant would vanish in the norms
    before, after = (packed(model, rows, valid) for rows in (x, changed))
    untouched = torch.tensor([0, 2, 3])
    torch.testing.assert_close(before[untouched], after[untouched], atol=0, rtol=0)
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("position", POSITIONS)
def test_training_after_inference_mode(position):
    """What is kept between passes must serve autograd too, whichever pass came first."""
    model = build(position=position, num_layers=2, window=7)
    x, valid = ragged_rows(model)
    with torch.inference_mode():
        expected = packed(model, x, valid)
    out = packed(model, x, valid)
    # With gradients, torch may choose another kernel.
    torch.testing.assert_close(out, expected.clone(), atol=1e-5, rtol=1e-5)
    assert gradient(out, valid, x).abs().sum() > 0


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("is_same", [True, False])
def test_stacks_that_share_a_layout_compute_what_they_compute_alone(position, is_same):
    """Actor, critics and targets run over one layout: masks and angles are worked out once."""
    model = build(position=position, num_layers=2, window=7)
    other = build(position=position if is_same else "rotary", num_layers=2, window=7)
    x, valid = ragged_rows(model)
    expected = [packed(m, x, valid) for m in (model, other)]
    layout = layout_of(valid)
    with torch.inference_mode():
        model(layout.pack(x), layout)
    for m, out in zip((model, other), expected, strict=True):
        shared = layout.unpack(m(layout.pack(x), layout))
        torch.testing.assert_close(shared, out, atol=0, rtol=0)
        assert gradient(shared, valid, x).abs().sum() > 0


@pytest.mark.parametrize("position", POSITIONS)
def test_autocast(position):
    """Kernels run in bfloat16: 8 bits of mantissa are 0.4% a rounding, and there are a few."""
    model = build(position=position, num_layers=2, window=4)
    x, valid = ragged_rows(model)
    seen = valid[:, -STEPS:]
    exact = packed(model, x, valid)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = packed(model, x, valid), model.forward_rows(x, valid, STEPS)
    for out in rounded:
        error = distance(out[seen], exact[seen])
        assert 1e-4 < error < 0.02
        error = distance(gradient(out, valid, x), gradient(exact, valid, x))
        assert 1e-4 < error < 0.05


def distance(x, expected):
    return float((x.float() - expected).norm() / expected.norm())


def test_dropout_acts_when_asked_only():
    model = build(num_layers=2, window=4, dropout=0.5)
    x, valid = ragged_rows(model)
    for run in (
        lambda dropout: packed(model, x, valid, dropout=dropout),
        lambda dropout: model.forward_rows(x, valid, STEPS, dropout=dropout),
    ):
        torch.testing.assert_close(run(False), run(False), atol=0, rtol=0)
        assert distance(run(True), run(False)) > 0.01


@pytest.mark.parametrize("options", ALL, ids=lambda o: "-".join(map(str, o.values())))
def test_recorded_weights_are_those_of_dense_attention(options):
    """Entry by entry, for episodes shorter and longer than the context and than a block."""
    model = build(**options, dropout=0.5)
    for size in (1, 7, 70):
        x, dense = torch.randn(size, DIM), []
        episode(model, x, options.get("dilation", 1), dense)
        recorded = model.record(x)
        assert recorded.shape == (model.num_layers, HEADS, size, model.window)
        expected = torch.zeros_like(recorded)
        for layer, stride in enumerate(model.strides):
            for k in range(min(model.window, -(-size // stride))):
                diagonal = dense[layer].diagonal(-k * stride, dim1=1, dim2=2)
                expected[layer, :, k * stride :, k] = diagonal
        torch.testing.assert_close(recorded, expected, atol=1e-5, rtol=0)


RECORD_MUCH = """
import resource, torch
from rllib_attention.nn import Transformer
torch.set_num_threads(1)
model = Transformer(dim=16, num_layers=3, num_heads=4, head_size=4, window=22, dilation=22)
assert model.context_len == 10_647
model.record(torch.randn(100, 16))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
weights = model.record(torch.randn(10_000, 16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
"""


def test_a_long_record_takes_little_memory():
    """10,000 steps: a weight for each pair of steps would take 400 MB for each layer and head."""
    command = [sys.executable, "-c", RECORD_MUCH]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 200_000  # KiB; the record itself has 10,000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_layers": 0}, "`num_layers` must be an integer of at least 1, got 0."),
        ({"window": 0}, "`window` must be an integer of at least 1, got 0."),
        ({"dilation": 0}, "`dilation` must be an integer of at least 1, got 0."),
        ({"ffn_dim": -1}, "`ffn_dim` must be an integer of at least 0, got -1."),
        ({"dim": 0}, "`dim` must be an integer of at least 1, got 0."),
        ({"dropout": 1.0}, "`dropout` must be a finite number in [0, 1), got 1.0."),
        ({"head_size": 5}, "`head_size` must be even for rotary positions, got 5."),
        (
            {"position": "absolute"},
            "`position` must be one of ('relative_bias', 'relative', 'recency', 'rotary', 'none'), "
            "got 'absolute'.",
        ),
        ({"gate": "highway"}, "`gate` must be one of ('residual', 'gru'), got 'highway'."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(fields, message):
    options = {"dim": 8, "num_heads": 2, "head_size": 4, "num_layers": 1, "window": 2}
    with pytest.raises(ValueError, match=re.escape(message)):
        Transformer(**options | fields)


@pytest.mark.parametrize("gate", ["residual", "gru"])
def test_dropout_acts_on_what_both_sub_layers_add(gate):
    model = build(num_layers=1, window=4, ffn_dim=8, gate=gate, dropout=0.5)
    [block], added = model.blocks, {}
    for name in ("attention_gate", "feed_forward_gate"):
        getattr(block, name).register_forward_hook(
            lambda _, args, out, name=name: added.setdefault(name, []).append(args[1])
        )
    x, valid = ragged_rows(model)
    real = valid[:, -STEPS:]
    for dropout in (False, True):
        packed(model, x, valid, dropout=dropout)
        model.forward_rows(x, valid, STEPS, dropout=dropout)
    for whole_packed, whole_rows, packed_part, rows_part in added.values():
        assert all((whole != 0).all() for whole in (whole_packed, whole_rows[real]))
        for part in (packed_part, rows_part[real]):
            assert 0.4 < (part == 0).float().mean() < 0.6
    whole, _, part, _ = added["attention_gate"]
    kept = part != 0  # kept numbers are scaled up, so that the mean stays
    torch.testing.assert_close(part[kept], 2 * whole[kept])
