"""`AttentionConfig.gtrxl()` is RLlib's GTrXL block: same weights, same outputs.

RLlib's memory holds the last M inputs of each block, so its rollout steps (one query at a time, on
a full memory) are what our window of M + 1 steps computes.
"""

import numpy as np
import pytest
import torch

from rllib_attention import AttentionConfig
from rllib_attention.nn import Transformer

gym = pytest.importorskip("gymnasium")
MODEL_DEFAULTS = pytest.importorskip("ray.rllib.models.catalog").MODEL_DEFAULTS
GTrXLNet = pytest.importorskip("ray.rllib.models.torch.attention_net").GTrXLNet

OBS_SIZE, BATCH, MEMORY = 5, 3, 7


def rllib_net(attention: AttentionConfig) -> GTrXLNet:
    space = gym.spaces.Box(-1, 1, (OBS_SIZE,), np.float32)
    return GTrXLNet(
        space,
        gym.spaces.Discrete(2),
        None,
        MODEL_DEFAULTS,
        "gtrxl",
        num_transformer_units=attention.num_layers,
        attention_dim=attention.dim,
        num_heads=attention.num_heads,
        memory_inference=attention.window - 1,
        head_dim=attention.head_size,
        position_wise_mlp_dim=attention.ffn_dim,
        init_gru_gate_bias=attention.gate_bias,
    )


def our_transformer(attention: AttentionConfig) -> Transformer:
    transformer = Transformer(
        dim=attention.dim,
        num_layers=attention.num_layers,
        num_heads=attention.num_heads,
        head_size=attention.head_size,
        window=attention.window,
        ffn_dim=attention.ffn_dim,
        position=attention.position,
        gate=attention.gate,
    )
    transformer.norm = torch.nn.Identity()  # RLlib's stack ends with its last block
    return transformer


def gate_weights(gate: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    def joined(*names: str) -> torch.Tensor:
        return torch.cat([getattr(gate, name).T for name in names])

    return {
        f"{name}.from_update.weight": joined("_w_r", "_w_z", "_w_h"),
        f"{name}.from_input.weight": joined("_u_r", "_u_z"),
        f"{name}.from_reset.weight": joined("_u_h"),
        f"{name}.bias": gate._bias_z,
    }


def block_weights(attention_part, feed_forward_part) -> dict[str, torch.Tensor]:
    """Map one of RLlib's units (two `SkipConnection`s) to one of our blocks."""
    attention = attention_part._layer
    norm, expand, contract = feed_forward_part._layer
    size = attention._linear_layer._model[0].in_features
    weights = {
        "attention_norm.weight": attention._input_layernorm.weight,
        "attention_norm.bias": attention._input_layernorm.bias,
        "attention.look.weight": attention._qkv_layer._model[0].weight[: 2 * size],
        "attention.value.weight": attention._qkv_layer._model[0].weight[2 * size :],
        "attention.out.weight": attention._linear_layer._model[0].weight,
        "attention.position.content_bias": attention._uvar.unsqueeze(1),
        "attention.position.position_bias": attention._vvar.unsqueeze(1),
        "attention.position.project.weight": attention._pos_proj._model[0].weight,
        "feed_forward_norm.weight": norm.weight,
        "feed_forward_norm.bias": norm.bias,
        "feed_forward.expand.weight": expand._model[0].weight,
        "feed_forward.contract.weight": contract._model[0].weight,
    }
    weights |= gate_weights(attention_part._fan_in_layer, "attention_gate")
    return weights | gate_weights(feed_forward_part._fan_in_layer, "feed_forward_gate")


def load_rllib_weights(transformer: Transformer, net: GTrXLNet) -> None:
    parts = list(net.attention_layers)
    weights = {}
    for depth, pair in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        for name, weight in block_weights(*pair).items():
            weights[f"blocks.{depth}.{name}"] = weight
    transformer.load_state_dict(weights)  # strict: every weight of ours has one of RLlib's


def rllib_outputs(net: GTrXLNet, obs: torch.Tensor, memory: int) -> torch.Tensor:
    """Step through a sequence as RLlib's rollouts do, and return the outputs on full memories."""
    units = net.num_transformer_units
    rows = [torch.zeros(BATCH, 0, net.attention_dim) for _ in range(units)]
    outputs = []
    for step in range(obs.shape[1]):
        state = [memory_rows[:, -memory:] for memory_rows in rows]
        out, new = net({"obs": obs[:, step]}, state, torch.ones(BATCH, dtype=torch.int64))
        rows = [torch.cat((r, n.unsqueeze(1)), dim=1) for r, n in zip(rows, new, strict=True)]
        outputs.append(out)
    return torch.stack(outputs[units * memory :], dim=1)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("num_heads", [1, 4])
def test_blocks_equal_those_of_rllibs_gtrxl(num_layers, num_heads):
    torch.manual_seed(0)
    attention = AttentionConfig.gtrxl(
        num_layers=num_layers, num_heads=num_heads, window=MEMORY + 1, dim=16, ffn_dim=24
    )
    net, transformer = rllib_net(attention), our_transformer(attention)
    for parameter in net.parameters():  # biases and norms start at constants
        torch.nn.init.normal_(parameter, std=0.3)
    load_rllib_weights(transformer, net)
    num_outputs = 4
    obs = torch.randn(BATCH, attention.context_len + num_outputs, OBS_SIZE)
    expected = rllib_outputs(net, obs, MEMORY)
    valid = torch.ones(obs.shape[:2], dtype=torch.bool)
    actual = transformer.forward_rows(net.linear_layer(obs), valid, num_outputs)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1
