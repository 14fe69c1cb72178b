"""The weights of some modules: which they are, and whether they have changed."""

import itertools

from torch import nn

_unversioned = itertools.count(start=-1, step=-1)


class Weights:
    """Looks at the weights of modules many times a second; walking a tree is slow.

    Args:
        modules: The modules, whose sub-modules must stay the same.
    """

    def __init__(self, *modules: nn.Module):
        parts = (part for module in modules for part in module.modules())
        self._owners = [part._parameters for part in parts if part._parameters]

    def parameters(self) -> list[nn.Parameter]:
        """Returns the weights."""
        return [p for owner in self._owners for p in owner.values() if p is not None]

    def require_grad(self) -> bool:
        """Returns whether any of them is trained."""
        return any(p.requires_grad for p in self.parameters())

    def fingerprint(self) -> list[int]:
        """Returns what changes when a weight is written (version), moved or replaced (address, id).

        What cannot be seen are writes through `parameter.data` in place, which torch does not
        count: use `torch.no_grad()` instead.
        """
        parameters = self.parameters()
        try:
            versions = [p._version for p in parameters]
        except RuntimeError:
            # Tensors made under inference mode have no version: never equal, so never reused.
            versions = [next(_unversioned)]
        return [*versions, *map(id, parameters), *[p.data_ptr() for p in parameters]]
