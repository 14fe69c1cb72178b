"""How much of the encoder's time its matrix products alone would take.

The products that a forward and backward pass cannot do without, as bare `torch.mm` and `torch.bmm`
on the same threads, in the shapes that the layers have: forward, and twice that for the gradients
of inputs and weights. Shapes: N tokens, D width, F feed-forward, H heads, E head size, W window.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from rllib_attention import AttentionConfig
from tests.benchmarks.encoder_pass import SPACE, EncoderPass
from tests.benchmarks.models import attention_config
from tests.benchmarks.options import Options, Size
from tests.benchmarks.timing import interleave, seconds


class Product(NamedTuple):
    """`batch` products of (m, k) with (k, n)."""

    m: int
    k: int
    n: int
    batch: int = 1

    @property
    def flops(self) -> int:
        """Multiplications and additions of the forward product."""
        return 2 * self.batch * self.m * self.k * self.n


def needed_products(attention: AttentionConfig, rows: int) -> list[Product]:
    """Lists the matrix products of one forward pass over rows with a full context.

    Each layer drops the context that no later layer reaches, and a query meets only the W keys
    that it may attend to.

    Args:
        attention: The model; its `max_seq_len` is the length of a row.
        rows: Rows in the batch.

    Returns:
        The products, tokenizer included.
    """
    width, inner = attention.dim, attention.num_heads * attention.head_size
    window, steps = attention.window, attention.max_seq_len
    tokens = rows * (steps + attention.context_len)
    products = [Product(tokens, SPACE.shape[0], width)]
    products += [Product(tokens, width, width)] * 2  # the tokenizer's second layer, the input
    for depth in range(attention.num_layers):
        tokens = rows * (steps + (attention.num_layers - depth) * (window - 1))
        kept = tokens - rows * (window - 1)
        bands = math.ceil(kept / window) * attention.num_heads
        products += [
            Product(tokens, width, 3 * inner),
            Product(window, attention.head_size, window, bands),  # scores
            Product(window, window, attention.head_size, bands),  # weighted values
            Product(kept, inner, width),
        ]
        if attention.ffn_dim:
            products += [
                Product(kept, width, attention.ffn_dim),
                Product(kept, attention.ffn_dim, width),
            ]
    return products


def pass_flops(attention: AttentionConfig, rows: int) -> int:
    """Returns the FLOPs of the products of a forward and backward pass.

    Args:
        attention: As for `needed_products`.
        rows: As for `needed_products`.

    Returns:
        Multiplications and additions.
    """
    return 3 * sum(product.flops for product in needed_products(attention, rows))


def bare_pass(products: list[Product]) -> Callable[[], None]:
    """Returns a function that does the products of a forward and backward pass, and no more."""
    operands = [_operands(product) for product in products]

    def run() -> None:
        for multiply, left, right, out in operands:
            multiply(left, right)
            multiply(out, right.mT)
            multiply(left.mT, out)

    return run


def measure_limit(size: Size, options: Options) -> dict:
    """Measures the encoder's pass beside its bare products.

    Args:
        size: Width and window.
        options: The command line.

    Returns:
        FLOPs of a pass, and the seconds of `bare` and `encoder`, one a round.
    """
    attention, rows = attention_config(size, options), options.num_envs
    run = bare_pass(needed_products(attention, rows))
    encoder_pass = EncoderPass(attention, rows)
    times = interleave(
        {
            "bare": lambda: {"pass": seconds(run)},
            "encoder": lambda: {"pass": encoder_pass()},
        },
        options.pass_rounds,
    )
    return {
        "flops": pass_flops(attention, rows),
        **{name: figures["pass"] for name, figures in times.items()},
    }


def _operands(product: Product) -> tuple:
    m, k, n, batch = product
    shape = (batch,) if batch > 1 else ()
    multiply = torch.bmm if batch > 1 else torch.mm
    left, right = torch.randn(*shape, m, k), torch.randn(*shape, k, n)
    return multiply, left, right, torch.randn(*shape, m, n)
