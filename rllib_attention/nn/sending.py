"""From the host to the device without a wait, and into compiled graphs without a new one."""

import numpy as np
import torch
from torch import Tensor


def send(array: np.ndarray, device: torch.device | str) -> Tensor:
    """Returns an array as a tensor on a device.

    A copy to a GPU out of ordinary memory waits until all that was asked of the GPU before is done;
    one out of pinned memory takes its place behind it.

    Args:
        array: The array; on a CPU, the tensor shares its memory.
        device: Where the tensor is needed.
    """
    tensor, device = torch.from_numpy(array), torch.device(device)
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def may_vary(tensor: Tensor | None, *dims: int) -> None:
    """Tells `torch.compile` that sizes will differ from call to call, so that one graph serves all.

    Args:
        tensor: An input of what is compiled; None for none.
        dims: Its dimensions that vary.
    """
    if tensor is not None:
        torch._dynamo.maybe_mark_dynamic(tensor, [dim % tensor.dim() for dim in dims])
