"""Ragged rows of tokens, and the slow, obvious way to run them."""

import math

import torch

from rllib_attention.nn import (
    PackedLayout,
    RecencyPosition,
    RelativeBias,
    RelativePosition,
    RotaryPosition,
    Transformer,
    row_mask,
)

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


def window_mask(valid, num_queries, window):
    """The mask of the last tokens of rows."""
    steps = torch.arange(valid.shape[1])
    return row_mask(valid, steps[len(steps) - num_queries :], steps, window, 1)


def packed(model, x, valid, num_outputs=STEPS, **options):
    """Outputs through the packed path, (B, T, D)."""
    layout = layout_of(valid, num_outputs)
    return layout.unpack(model(layout.pack(x), layout, **options))


def episode(model, x, dilation=1, weights=None):
    """Outputs at every step of one episode alone, (S, D), through dense masks.

    If `weights` is a list, the dense weights of each layer are appended to it, (H, S, S).
    """
    for layer, block in enumerate(model.blocks):
        view = DenseView(len(x), model.window, dilation**layer)
        x = block(x, view)
        if weights is not None:
            weights.append(view.weights)
    return model.norm(x)


class DenseView:
    """A mask built entry by entry from the definition, and scores with positions from formulas."""

    def __init__(self, size, window, stride):
        steps = [[t - k * stride for k in range(window)] for t in range(size)]
        self.window = window
        self.missing = (torch.tensor(steps) < 0).float().mean(1, keepdim=True)
        self.allowed = torch.zeros(size, size, dtype=torch.bool)
        self.distance = torch.zeros(size, size, dtype=torch.int64)
        for t in range(size):
            for k in range(window):
                if t - k * stride >= 0:
                    self.allowed[t, t - k * stride] = True
                    self.distance[t, t - k * stride] = k

    def keep(self, x):
        return x

    def attend(self, attention, x):
        heads = len(x), -1, attention.num_heads, attention.head_size
        query, key = attention.look(x).view(heads).permute(1, 2, 0, 3)
        [value] = attention.value(x).view(heads).permute(1, 2, 0, 3)
        scores = self.scores(attention.position, query, key) / math.sqrt(attention.head_size)
        self.weights = scores.masked_fill(~self.allowed, -math.inf).softmax(-1)
        return attention.out((self.weights @ value).transpose(0, 1).flatten(1))

    def scores(self, position, query, key):
        """Scores of all pairs, (H, S, S)."""
        if isinstance(position, RotaryPosition):
            q, k = (torch.view_as_complex(x.unflatten(-1, (-1, 2))) for x in (query, key))
            size = query.shape[-1]
            frequencies = 10_000.0 ** -(torch.arange(0, size, 2) / size)
            turn = torch.polar(torch.ones(()), self.distance.unsqueeze(-1) * frequencies)
            scores = torch.einsum("hte,hue,tue->htu", q, k.conj(), turn).real
            if isinstance(position, RecencyPosition):
                slopes = torch.tensor([*(0.25**head for head in range(len(query) - 1)), 0.0])
                scores = scores - slopes[:, None, None] * self.distance * math.sqrt(size)
            return scores
        if isinstance(position, RelativeBias):
            content = (query + position.content_bias) @ key.transpose(1, 2)
            ratio = (max(self.window, 2) * 2) ** (-1 / 7)
            phase = self.distance.unsqueeze(-1) * (math.pi / 2 * ratio ** torch.arange(8))
            waves = torch.cat((phase.sin(), phase.cos()), dim=-1)
            rows = (waves @ position.project.weight.T).unflatten(-1, (len(query), -1))
            return content + (rows * position.position_bias.squeeze(1)).sum(-1).permute(2, 0, 1)
        if isinstance(position, RelativePosition):
            content = (query + position.content_bias) @ key.transpose(1, 2)
            rows = position.project(position.sinusoids).view(-1, *query[:, 0].shape)
            where = torch.einsum(
                "hte,tuhe->htu", query + position.position_bias, rows[self.distance]
            )
            return content + where
        return query @ key.transpose(1, 2)


def by_episode(model, x, valid, num_outputs=STEPS, dilation=1):
    """Outputs of each row's steps alone, (B, T, D)."""
    rows = []
    for row, real in zip(x, valid, strict=True):
        out = torch.zeros_like(row)
        if real.any():
            out[real] = episode(model, row[real], dilation)
        rows.append(out[-num_outputs:])
    return torch.stack(rows)


def gradient(out, valid, x):
    seen = valid[:, -out.shape[1] :, None]
    (grad,) = torch.autograd.grad((out * seen).pow(2).sum(), x, retain_graph=True)
    return grad
