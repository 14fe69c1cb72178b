"""Streams of runs: the encoder's outputs and gradients are those of a window for each output."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.configs import MLPEncoderConfig

from rllib_attention import AttentionConfig
from rllib_attention.encoder.encoder import AttentionEncoderConfig
from rllib_attention.encoder.packed_window import pack_tokens, unpack_tokens
from rllib_attention.encoder.run_tags import stream_tags, window_tags

OBS_SIZE, NUM_FEATURES = 3, 2
CONTEXT = 8
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def make_encoder(dtype=np.float32, **options):
    torch.manual_seed(0)
    fields = {"dim": 16, "num_heads": 2, "num_layers": 2, "window": 5}
    attention = AttentionConfig(**fields | {"prev_rewards": NUM_FEATURES} | options)
    assert attention.context_len == CONTEXT
    return AttentionEncoderConfig(
        attention=attention,
        tokenizer_config=MLPEncoderConfig(input_dims=[OBS_SIZE], hidden_layer_dims=[8]),
        observation_space=spaces.Box(0, 255, (OBS_SIZE,), dtype),
        action_space=spaces.Discrete(2),
        windowed=True,
    ).build()


def make_runs(rng, num_context, num_outputs, *, dtype=np.float32, is_next=False, row_size=None):
    """Returns a stream of runs of random steps, and a window for each of its outputs."""
    num_context, num_outputs = np.array(num_context), np.array(num_outputs)
    num_tokens, num_rows = int((num_context + num_outputs).sum()), int(num_outputs.sum())
    obs = rng.integers(0, 9, (num_tokens, OBS_SIZE)).astype(dtype)
    features = rng.normal(size=(num_tokens, NUM_FEATURES)).astype(np.float32)
    row_size = row_size or -(-num_tokens // num_rows)
    ahead = np.ones_like(num_context) if is_next else None
    tags = stream_tags(num_context, num_outputs, row_size, ahead=ahead)
    filled = np.pad(np.arange(num_tokens), (0, len(tags) - num_tokens), constant_values=0)
    stream = pack_tokens(obs[filled], features[filled], tags).reshape(num_rows, row_size, -1)
    windows = np.zeros((num_rows, CONTEXT + 1, stream.shape[-1]), stream.dtype)
    row, start = 0, 0
    for before, outputs in zip(num_context, num_outputs, strict=True):
        for i in range(outputs):
            seen = slice(start + max(0, before + i - CONTEXT), start + before + i + 1)
            size = seen.stop - seen.start
            windows[row, CONTEXT + 1 - size :] = pack_tokens(
                obs[seen], features[seen], np.ones(size)
            )
            row += 1
        start += before + outputs
    return torch.from_numpy(stream), torch.from_numpy(windows)


def outputs_and_gradients(encoder, packed, weight):
    """Encodes, and differentiates a random function of the outputs."""
    encoder.zero_grad()
    out = encoder({Columns.OBS: packed})[ENCODER_OUT]
    (out * weight[: len(out)]).sum().backward()
    return out.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters()}


def check_same(encoder, stream, windows):
    weight = torch.randn(len(windows), 16) / len(windows)
    out, gradients = outputs_and_gradients(encoder, stream, weight)
    expected, expected_gradients = outputs_and_gradients(encoder, windows, weight)
    torch.testing.assert_close(out, expected, **CLOSE)
    for name, gradient in gradients.items():
        scale = max(1.0, float(expected_gradients[name].abs().max()))
        torch.testing.assert_close(gradient / scale, expected_gradients[name] / scale, **CLOSE)


SHAPES = {
    "full": ([8, 8, 8], [4, 4, 4]),
    "ragged": ([0, 8, 3, 0, 8], [1, 7, 4, 6, 2]),
    "long": ([8, 0], [24, 17]),
    "one run": ([5], [9]),
    "one transition": ([3], [1]),
    "no context": ([0, 0, 0], [3, 3, 3]),
    "single outputs": ([8, 2, 8, 0], [1, 1, 1, 1]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("position", ["rotary", "relative", "relative_bias"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_run_equals_its_windows(name, position, dtype):
    rng = np.random.default_rng(0)
    stream, windows = make_runs(rng, *SHAPES[name], dtype=dtype)
    check_same(make_encoder(dtype, position=position), stream, windows)


def test_padding_rows_are_ignored():
    rng = np.random.default_rng(0)
    stream, windows = make_runs(rng, [2, 8], [3, 4], row_size=11)
    check_same(make_encoder(), stream, windows)


@pytest.mark.parametrize("name", SHAPES)
def test_repeated_rows_share_their_computation(name):
    """As CQL repeats observations for each sampled action."""
    encoder, num_tokens = make_encoder(), []
    encoder.embedding.register_forward_pre_hook(lambda _, args: num_tokens.append(len(args[0])))
    stream, windows = make_runs(np.random.default_rng(0), *SHAPES[name])
    repeated = (x.repeat_interleave(5, dim=0) for x in (stream, windows))
    check_same(encoder, *repeated)
    assert num_tokens[0] == sum(map(sum, SHAPES[name]))


@pytest.mark.parametrize("shapes", [("ragged", "full"), ("one transition", "one transition")])
def test_streams_behind_one_another(shapes):
    """As DQN puts next observations behind observations."""
    rng = np.random.default_rng(0)
    pairs = [
        make_runs(rng, *SHAPES[name], is_next=is_next, row_size=11)
        for name, is_next in zip(shapes, (False, True), strict=True)
    ]
    stream, windows = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    check_same(make_encoder(), stream, windows)


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: rows[:-3],
        lambda rows: rows[1:],
        lambda rows: rows.flip(0),
        lambda rows: rows[torch.randperm(len(rows), generator=torch.manual_seed(0))],
        lambda rows: rows[::2],
        lambda rows: torch.cat((rows[5:], rows[:5])),
    ],
)
def test_rows_that_were_dropped_or_moved_are_an_error(damage):
    stream, _ = make_runs(np.random.default_rng(0), *SHAPES["ragged"])
    with pytest.raises(ValueError, match=r"dropped, or put into another.*max_seq_len=1"):
        make_encoder()({Columns.OBS: damage(stream)})


def test_rows_that_begin_a_stream_and_have_whole_runs_are_right():
    stream, windows = make_runs(np.random.default_rng(0), [1, 1, 8], [1, 1, 2])
    encoder = make_encoder()
    tags = unpack_tokens(stream, (OBS_SIZE,), NUM_FEATURES)[2]
    assert tags.shape == (4, 4), "the first row holds the first run and a half of the second"
    both = encoder({Columns.OBS: windows})[ENCODER_OUT]
    torch.testing.assert_close(encoder({Columns.OBS: stream})[ENCODER_OUT], both, **CLOSE)


def test_changed_observations_are_read_again():
    encoder = make_encoder()
    rng = np.random.default_rng(0)
    first, _ = make_runs(rng, [8, 2], [2, 2])
    second, windows = make_runs(rng, [0, 8], [2, 2], row_size=first.shape[1])
    encoder({Columns.OBS: first})
    check_same(encoder, first.copy_(second), windows)


@pytest.mark.parametrize("single_windows", [False, True])
def test_dropout_acts_on_current_observations_only(single_windows):
    """Next ones make targets; in SAC with discrete actions they even come first."""
    encoder, rng = make_encoder(dropout=0.5), np.random.default_rng(0)
    for is_next in (True, False, True):
        stream, windows = make_runs(rng, [8, 3], [4, 4], is_next=is_next)
        packed = windows if single_windows else stream
        if single_windows:
            packed[..., -1] = torch.from_numpy(
                window_tags(packed[..., -1].numpy() > 0, is_next=is_next)
            ).to(packed.dtype)
        expected = encoder.eval()({Columns.OBS: packed})[ENCODER_OUT]
        out = encoder.train()({Columns.OBS: packed})[ENCODER_OUT]
        assert torch.allclose(out, expected, atol=1e-5) == is_next


@pytest.mark.parametrize("form", ["stream", "windows"])
def test_inference_mode_changes_nothing(form):
    """Its tensors do not count what is written to them."""
    encoder = make_encoder().eval()
    stream, windows = make_runs(np.random.default_rng(0), [3, 0], [4, 2])
    packed = stream if form == "stream" else windows
    expected = encoder({Columns.OBS: packed})[ENCODER_OUT].detach()
    with torch.inference_mode():
        out = encoder({Columns.OBS: packed.clone()})[ENCODER_OUT]
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
