"""Single steps, past in and past out, against whole episodes: far beyond the context."""

import pytest
import torch

from rllib_attention.nn.context_step import ContextStep
from tests.nn.rows import DIM, build, episode
from tests.nn.test_stepper import OPTIONS

# Every position scheme; the shared options lack one.
OPTIONS = [*OPTIONS, {"position": "recency", "num_layers": 2, "window": 4, "dilation": 3}]


class Context:
    """The past of three rows, as whoever calls an exported step keeps it."""

    def __init__(self, model):
        self.step = ContextStep(model)
        # Whatever lies before an episode's start must not be read.
        self.past = [torch.full((3, *shape), 1e6) for shape in self.step.past_shapes]
        self.length = torch.zeros(3, dtype=torch.int64)

    @torch.no_grad()
    def __call__(self, tokens):
        out, self.past = self.step(tokens, self.length, self.past)
        self.length = (self.length + 1).clamp(max=self.step.past_steps)
        return out


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_steps_equal_whole_episodes(options):
    model = build(**options)
    context, tokens = Context(model), [[], [], []]
    for number in range(30):
        for row in {4: [0], 9: [1], 10: [1, 2]}.get(number, []):
            tokens[row].clear()
            context.length[row] = 0
        new = torch.randn(3, DIM)
        for row, token in zip(tokens, new, strict=True):
            row.append(token)
        with torch.no_grad():
            whole = [episode(model, torch.stack(row), options.get("dilation", 1)) for row in tokens]
        expected = torch.stack([outputs[-1] for outputs in whole])
        torch.testing.assert_close(context(new), expected, atol=1e-5, rtol=1e-5)


def test_it_keeps_what_its_layers_look_at_and_no_more():
    step = ContextStep(build(num_layers=3, window=4, dilation=2))
    assert [shape[0] for shape in step.past_shapes] == [3, 6, 12]
    assert step.past_steps == 12
    assert ContextStep(build(num_layers=2, window=1)).past_steps == 0
