"""Causal sliding-window attention for every Ray RLlib algorithm.

The public names of this package are listed in `__all__`. `AttentionConfig` and the torch modules
in `rllib_attention.nn` work where Ray is not installed; everything else needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rllib_attention.compat import RAY_REQUIREMENT, has_supported_ray
from rllib_attention.config import AttentionConfig

if TYPE_CHECKING:  # the names of `_EXPORTS`, for type checkers
    from rllib_attention.dispatch import use_attention as use_attention
    from rllib_attention.encoder.catalog import attention_catalog as attention_catalog
    from rllib_attention.encoder.encoder import AttentionEncoder as AttentionEncoder
    from rllib_attention.encoder.encoder import AttentionEncoderConfig as AttentionEncoderConfig
    from rllib_attention.inspection import AttentionMapCallback as AttentionMapCallback
    from rllib_attention.inspection import AttentionRecord as AttentionRecord
    from rllib_attention.inspection import plot_attention as plot_attention
    from rllib_attention.inspection import record_attention as record_attention
    from rllib_attention.policy import AttentionPolicy as AttentionPolicy
    from rllib_attention.search_space import attention_search_space as attention_search_space

__version__ = "0.1.0"

# Public names that need Ray, and the module of each. They are imported at first use, so that
# this package does not depend on the order in which RLlib's modules import each other.
_EXPORTS = {
    "AttentionEncoder": "encoder.encoder",
    "AttentionEncoderConfig": "encoder.encoder",
    "AttentionMapCallback": "inspection",
    "AttentionPolicy": "policy",
    "AttentionRecord": "inspection",
    "attention_catalog": "encoder.catalog",
    "attention_search_space": "search_space",
    "plot_attention": "inspection",
    "record_attention": "inspection",
    "use_attention": "dispatch",
}

_HAS_RAY = has_supported_ray()

__all__ = ["AttentionConfig"]
if _HAS_RAY:
    __all__ += list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _HAS_RAY:
        raise ImportError(
            f"rllib_attention.{name} needs Ray, which is not installed. "
            f'Fix: `pip install "{RAY_REQUIREMENT}"`.'
        )
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if _HAS_RAY:
    # `model={"custom_model": "attention"}` on RLlib's old API stack.
    from rllib_attention.old_stack.registration import register_at_init

    register_at_init()
