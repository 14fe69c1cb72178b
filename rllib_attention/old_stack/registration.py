"""Registers the old stack's model with RLlib, without importing RLlib or torch.

RLlib's `ModelCatalog` keeps custom models, pickled, in Ray Tune's registry, below the name that
`model={"custom_model": name}` refers to. What is registered here unpickles to the model's class, so
that `import rllib_attention` stays as cheap as importing that registry.
"""

from typing import TYPE_CHECKING

from rllib_attention.compat import call_after_each_init, register_custom_model
from rllib_attention.log import get_logger
from rllib_attention.old_stack import MODEL_NAME, NEW_STACK

if TYPE_CHECKING:
    from rllib_attention.old_stack.model import AttentionModelV2

logger = get_logger(__name__)


class _ModelReference:
    """Unpickles to the model's class."""

    def __reduce__(self) -> tuple:
        return _model_class, ()


def register_model() -> None:
    """Registers the model for `model={"custom_model": "attention"}`; again does no harm.

    Remote workers, Tune trials and submitted jobs read the registry from Ray's own store, which
    is new after each `ray.init`; so this runs after each, and before the first.
    """
    register_custom_model(MODEL_NAME, _ModelReference())


def register_at_init() -> None:
    """Registers the model now and after each later `ray.init`.

    If Ray has no longer what that takes, it says so in a warning and the rest of the package works:
    the new API stack needs no registry, nor does `use_attention(config)` on the old one.
    """
    try:
        register_model()
        call_after_each_init(register_model)
    except Exception as error:  # whatever it is that has moved
        logger.warning(
            'This Ray cannot register models as expected (%r): `model={"custom_model": "%s"}` will '
            "fail to find its model. Use `use_attention(config)`, which needs no name, or %s.",
            error,
            MODEL_NAME,
            NEW_STACK,
        )


def _model_class() -> "type[AttentionModelV2]":
    try:
        from rllib_attention.old_stack.model import AttentionModelV2
    except ImportError as error:
        raise ImportError(
            f'`model={{"custom_model": "{MODEL_NAME}"}}` needs RLlib\'s old API stack, of which '
            f"this Ray lacks a part: {error}. Use {NEW_STACK}."
        ) from error
    return AttentionModelV2
