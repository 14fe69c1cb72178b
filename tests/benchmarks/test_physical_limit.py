"""The matrix products are those that an encoder really does."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from rllib_attention import AttentionConfig
from tests.benchmarks.encoder_pass import EncoderPass
from tests.benchmarks.physical_limit import Product, bare_pass, needed_products

# One token a row and no context, so that blocks and padding add nothing of their own.
SMALL = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=1, ffn_dim=16, max_seq_len=1)


def test_flops_of_a_product():
    assert Product(2, 3, 4).flops == 48
    assert Product(2, 3, 4, batch=5).flops == 240


def test_linear_layers_are_counted_as_torch_counts_them():
    products = needed_products(SMALL, rows=8)
    scores = [product for product in products if product.batch > 1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder_pass = EncoderPass(SMALL, rows=8)
        encoder_pass.encoder(encoder_pass._batch)
    linear = sum(
        flops
        for operator, flops in counter.get_flop_counts()["Global"].items()
        if "mm" in str(operator)
    )
    assert sum(product.flops for product in products) - sum(s.flops for s in scores) == linear


def test_each_layer_drops_context_that_no_later_one_reaches():
    attention = SMALL.replace(window=4, max_seq_len=10)
    tokens = [p.m for p in needed_products(attention, rows=1) if p.n == 24]  # queries, keys, values
    assert tokens == [16, 13]


def test_bare_pass_runs_products_and_their_gradients():
    with FlopCounterMode(display=False) as counter:
        bare_pass([Product(2, 3, 4), Product(2, 3, 4, batch=5)])()
    assert counter.get_total_flops() == 3 * (48 + 240)
