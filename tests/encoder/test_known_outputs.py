"""What is not computed twice equals what would be, outputs and gradients; else it is computed."""

import copy
import gc
import weakref

import numpy as np
import pytest
import ray
import torch
from gymnasium import spaces
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from torch import nn

from rllib_attention import AttentionConfig
from rllib_attention.encoder.catalog import ATTENTION, AttentionSACCatalog, AttentionTQCCatalog
from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.encoder.known_outputs import KnownOutputs
from tests.encoder.test_packed_runs import make_encoder, make_runs

BATCH = 11


def observations(seed=0):
    """Runs of 4 and 7 transitions."""
    return make_runs(np.random.default_rng(seed), [8, 3], [4, 7])


def counted(encoder):
    """Counts the passes of an encoder."""
    passes = []
    encoder.embedding.register_forward_pre_hook(lambda *_: passes.append(None))
    return passes


def encode(encoder, obs):
    return encoder({Columns.OBS: obs})[ENCODER_OUT]


@pytest.mark.parametrize("windows", [False, True])
def test_a_frozen_pass_takes_the_output_of_the_trained_one(windows):
    encoder, obs = make_encoder(), observations()[windows]
    passes = counted(encoder)
    first = encode(encoder, obs)
    encoder.requires_grad_(False)
    second = encode(encoder, obs)
    assert len(passes) == 1
    assert torch.equal(first, second)
    assert not second.requires_grad
    with torch.no_grad():
        assert torch.equal(encode(encoder.requires_grad_(True), obs), first)
    assert len(passes) == 1


def change_a_weight(encoder, obs):
    with torch.no_grad():
        next(encoder.parameters()).mul_(2.0)


def replace_a_weight(encoder, obs):
    encoder.embedding.input.bias = nn.Parameter(torch.ones(16))


def change_observations(encoder, obs):
    obs[..., 0] += 1


@pytest.mark.parametrize("change", [change_a_weight, replace_a_weight, change_observations])
def test_what_has_changed_is_computed_anew(change):
    encoder, obs = make_encoder(), observations()[0]
    first = encode(encoder, obs)
    change(encoder, obs)
    with torch.no_grad():
        second, expected = encode(encoder, obs), encode(encoder, obs.clone())
    assert torch.equal(second, expected)
    assert not torch.allclose(first, second)


def test_other_precision_is_computed_anew():
    encoder, obs = make_encoder(), observations()[0]
    first = encode(encoder, obs)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(encode(encoder, obs), first)


def test_wanted_gradients_are_computed():
    encoder, obs = make_encoder(), observations()[0]
    passes = counted(encoder)
    for _ in range(2):  # in a plain pass, the second backward needs a graph of its own
        encode(encoder, obs).sum().backward()
    assert len(passes) == 2


def test_dropout_is_drawn_anew():
    encoder, obs = make_encoder(dropout=0.5).train(), observations()[0]
    passes = counted(encoder)
    first = encode(encoder, obs)
    encoder.requires_grad_(False)
    assert not torch.equal(encode(encoder, obs), first)
    assert len(passes) == 2


def test_random_tokenizers_are_run_anew():
    encoder, obs = make_encoder(), observations()[0]
    encoder.embedding.tokenizer.net.mlp.append(nn.Dropout(0.5))
    passes = counted(encoder)
    encode(encoder, obs)
    with torch.no_grad():
        encode(encoder, obs)
    assert len(passes) == 2


def test_outputs_live_no_longer_than_observations():
    encoder, obs = make_encoder(), observations()[0]
    encode(encoder, obs)
    with torch.no_grad():
        output = weakref.ref(encode(encoder, obs))
    assert output() is not None
    del obs
    gc.collect()
    assert output() is None


def test_copies_look_at_their_own_weights():
    encoder, obs = make_encoder(), observations()[0]
    first = encode(encoder, obs)
    copied = copy.deepcopy(encoder).requires_grad_(False)
    change_a_weight(copied, obs)
    assert not torch.allclose(encode(copied, obs), first)
    encoder.requires_grad_(False)
    assert torch.equal(encode(encoder, obs), first)


def make_module(name):
    module_class, catalog = {
        "sac": (DefaultSACTorchRLModule, AttentionSACCatalog),
        "tqc": (DefaultTQCTorchRLModule, AttentionTQCCatalog),
    }[name]
    torch.manual_seed(0)
    options = AttentionConfig(dim=16, num_heads=2, num_layers=2, window=5, prev_rewards=2).to_dict()
    del options["max_seq_len"]
    more = {"twin_q": True, "n_critics": 2, "n_quantiles": 5}
    module = module_class(
        observation_space=spaces.Box(0, 255, (3,), np.float32),
        action_space=spaces.Box(-1, 1, (1,), np.float32),
        model_config={
            ATTENTION: options | {"windowed": True},
            "max_seq_len": 4,
            "fcnet_hiddens": [8],
            "fcnet_activation": "tanh",
            "head_fcnet_hiddens": [8],
            "head_fcnet_activation": "relu",
            "fusionnet_hiddens": [8],
            "fusionnet_activation": "relu",
            **dict.fromkeys(
                (
                    "fusionnet_kernel_initializer",
                    "fusionnet_kernel_initializer_kwargs",
                    "fusionnet_bias_initializer",
                    "fusionnet_bias_initializer_kwargs",
                )
            ),
            **more,
        },
        catalog_class=catalog,
    )
    module.make_target_networks()
    return module


def train_pass(module):
    """Returns what a training pass gives, gradients of a function of it, and encoders' passes."""
    encoders = [part for part in module.modules() if isinstance(part, AttentionEncoder)]
    passes = [counted(encoder) for encoder in encoders]
    torch.manual_seed(1)
    batch = {
        Columns.OBS: observations(0)[0],
        Columns.NEXT_OBS: observations(1)[0],
        Columns.ACTIONS: torch.rand(BATCH, 1),
    }
    out = {key: x for key, x in module.forward_train(batch).items() if torch.is_tensor(x)}
    module.zero_grad()
    sum((x * torch.rand_like(x)).sum() for x in out.values() if x.requires_grad).backward()
    gradients = {key: p.grad for key, p in module.named_parameters() if p.grad is not None}
    return out, gradients, sum(map(len, passes))


# Before Ray 2.58 TQC's critics take gradients from the policy's pass, which is thus another one.
FREEZES_CRITICS = tuple(map(int, ray.__version__.split(".")[:2])) >= (2, 58)


@pytest.mark.parametrize("name", ["sac", "tqc"])
def test_modules_encode_no_observation_twice(name, monkeypatch):
    """Numbers and gradients of a training pass are those of encoders that compute all."""
    out, gradients, passes = train_pass(make_module(name))
    monkeypatch.setattr(KnownOutputs, "of", lambda self, obs, work_out: work_out())
    expected, expected_gradients, all_passes = train_pass(make_module(name))
    if name == "sac" or FREEZES_CRITICS:
        assert passes == 6, "policy, now and next; two critics now; their targets next"
    assert all_passes == 8
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-6)
