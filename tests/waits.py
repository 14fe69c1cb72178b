"""Counts where a program waits for the device, on a CPU, which never waits.

    with Waits() as waits:
        learner.update(episodes=episodes)
    assert not waits.of("rllib_attention")

What would wait on a GPU: a tensor's content read by Python (`item`, `bool`, `cpu`, `numpy`,
`tolist`, boolean masks as indices, ...), and a copy to the device that is not `non_blocking`. Each
is put down to the package, RLlib's or this one, whose code asked for it.
"""

import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_PACKAGES = {"/rllib_attention/": "rllib_attention", "/ray/rllib/": "rllib"}
_aten = torch.ops.aten
_READS = {
    _aten._local_scalar_dense.default,
    _aten.nonzero.default,
    _aten.equal.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.repeat_interleave.Tensor,
}
_TO_HOST = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__}
_COPIES = {Tensor.to, Tensor.cuda}


class _Reads(TorchDispatchMode):
    def __init__(self, note: Any):
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func in (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)
        if func in _READS or (masked and any(_is_mask(index) for index in args[1])):
            self._note(str(func))
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, note: Any):
        super().__init__()
        self._note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_copy = func in _COPIES and not kwargs.get("non_blocking") and _names_device(args, kwargs)
        if func in _TO_HOST or is_copy:
            self._note(func.__name__)
        return func(*args, **kwargs)


class Waits:
    """A context in which waits are counted.

    Attributes:
        counts: How often each (package, place, operation) waited.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def of(self, package: str) -> list[str]:
        """Returns the waits of a package, "rllib" or "rllib_attention", as text."""
        return [
            f"{count} times {what} at {place}"
            for (owner, place, what), count in self.counts.items()
            if owner == package
        ]

    def note(self, what: str) -> None:
        """Counts a wait of whoever is calling."""
        frame = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            for part, package in _PACKAGES.items():
                if part in name and "/tests/" not in name:
                    place = f"{name.rsplit('/', 2)[-2]}/{name.rsplit('/', 1)[-1]}:{frame.f_lineno}"
                    self.counts[package, place, what] += 1
                    return
            frame = frame.f_back
        self.counts["elsewhere", "", what] += 1

    def __enter__(self) -> "Waits":
        self._stack = ExitStack()
        self._stack.enter_context(_Reads(self.note))
        self._stack.enter_context(_Calls(self.note))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _names_device(args: tuple, kwargs: dict) -> bool:
    given = [*args[1:], kwargs.get("device")]
    return any(isinstance(value, str | torch.device | Tensor) for value in given)
