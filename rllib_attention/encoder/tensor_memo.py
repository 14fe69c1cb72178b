"""What follows from a tensor's content, kept as long as the tensor lives and is not written to."""

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class TensorMemo:
    """Results that were worked out from tensors.

    Several encoders are given the same tensors: actor and critics, and their targets. Tensors that
    were made under inference mode are left out, since nobody counts what is written to them.
    """

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()

    def get(self, tensor: Tensor, state: Any = None) -> Any:
        """Returns the result for a tensor, None if there is none for what it holds now.

        Args:
            tensor: The tensor.
            state: What else the result depends on.
        """
        if tensor.is_inference() or tensor not in self._known:
            return None
        seen, result = self._known[tensor]
        return result if seen == (tensor._version, state) else None

    def put(self, tensor: Tensor, result: Any, state: Any = None) -> None:
        """Keeps the result for a tensor.

        Args:
            tensor: The tensor.
            result: It must not refer to the tensor, which would then live for ever.
            state: As for `get`.
        """
        if not tensor.is_inference():
            self._known[tensor] = (tensor._version, state), result
