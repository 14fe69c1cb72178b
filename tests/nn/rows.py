"""Ragged rows of tokens, and the slow, obvious way to run them."""

import torch

from rllib_attention.nn import PackedLayout, Transformer

DIM, HEADS, HEAD_SIZE = 16, 2, 8
ROWS, STEPS = 4, 12


def build(**options) -> Transformer:
    torch.manual_seed(0)
    return Transformer(dim=DIM, num_heads=HEADS, head_size=HEAD_SIZE, **options)


def ragged_rows(model):
    """Rows of `[context | chunk]`: full, short context, short chunk, no context."""
    context = model.context_len
    size = context + STEPS
    spans = [(0, size), (max(0, context - 2), size), (0, size - 5), (context, size - 9)]
    valid = torch.zeros(ROWS, size, dtype=torch.bool)
    for row, (start, stop) in enumerate(spans):
        valid[row, start:stop] = True
    return torch.randn(ROWS, size, DIM, requires_grad=True), valid


def layout_of(valid, num_outputs=STEPS) -> PackedLayout:
    first = valid.int().argmax(dim=1)
    stop = first + valid.sum(dim=1)
    return PackedLayout(first.numpy(), stop.numpy(), valid.shape[1], num_outputs)


def packed(model, x, valid, num_outputs=STEPS, **options):
    """Outputs through the packed path, (B, T, D)."""
    layout = layout_of(valid, num_outputs)
    return layout.unpack(model(layout.pack(x), layout, **options))


def episode(model, x):
    """Outputs at every step of one episode alone, (S, D), without trimming or packing."""
    ones = torch.ones(1, len(x), dtype=torch.bool)
    return model.forward_rows(x.unsqueeze(0), ones, len(x))[0]


def by_episode(model, x, valid, num_outputs=STEPS):
    """Outputs of each row's steps alone, (B, T, D)."""
    rows = []
    for row, real in zip(x, valid, strict=True):
        out = torch.zeros_like(row)
        if real.any():
            out[real] = episode(model, row[real])
        rows.append(out[-num_outputs:])
    return torch.stack(rows)


def gradient(out, valid, x):
    seen = valid[:, -out.shape[1] :, None]
    (grad,) = torch.autograd.grad((out * seen).pow(2).sum(), x, retain_graph=True)
    return grad
