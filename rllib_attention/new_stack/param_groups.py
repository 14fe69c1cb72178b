"""What blocks write learns at a share of the learning rate; where they look, at the full one.

A step's context is unique, so blocks that learn as fast as tokenizer and heads memorise the noise
of a batch, while queries and keys that learn slowly find a distant cue late (`docs/learning.md`).
RESeL (Luo et al. 2024, arXiv 2405.15384) lowers the learning rate of a recurrent context encoder
for SAC, since small changes of its weights add up over a sequence.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.torch_utils import convert_to_torch_tensor
from torch import nn
from torch.optim import Optimizer

from rllib_attention.encoder.encoder import AttentionEncoder
from rllib_attention.log import get_logger
from rllib_attention.new_stack.saved_options import WEIGHTS

logger = get_logger(__name__)

FACTOR = "lr_factor"
"""The key of a group's factor, beside torch's own."""
_INDEX = "index_before_split"
_OWN = (FACTOR, _INDEX)

Factors = Mapping[nn.Parameter, float]
ChangeState = Callable[[dict[str, Any], Any], dict[str, Any]]


def slow_parameters(modules: MultiRLModule) -> dict[nn.Parameter, float]:
    """Returns the factor of each parameter of what attention blocks write.

    Args:
        modules: The learner's modules.
    """
    # Not `find_attention`: target networks, which it would count, are not made yet.
    torch_modules = [module for module in modules.values() if isinstance(module, nn.Module)]
    parts = [part for module in torch_modules for part in module.modules()]
    return {
        parameter: part.config.attention.for_path(windowed=part.config.windowed).lr_factor
        for part in parts
        if isinstance(part, AttentionEncoder)
        for block in part.transformer.blocks
        for parameter in block.written_parameters()
    }


def split_groups(optimizer: Any, factors: Factors) -> None:
    """Gives what blocks write a group of its own, behind the one that RLlib reads `lr` from.

    An optimizer that has several groups, or no learning rate, is its owner's affair; a warning says
    so.

    Args:
        optimizer: It has not made a step yet.
        factors: From `slow_parameters`.
    """
    if not isinstance(optimizer, Optimizer):  # RLlib says so
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    wanted = sorted({factors[p] for p in parameters if p in factors})
    if not wanted:
        return
    if len(optimizer.param_groups) > 1 or "lr" not in optimizer.param_groups[0]:
        if wanted != [1.0]:
            logger.warning(
                "The option `lr_factor` of attention is not applied to %s: it has parameter groups "
                "of its own, or no `lr`. Fix: give `Block.written_parameters()` a lower one in "
                "`configure_optimizers_for_module`, or `use_attention(config, lr_factor=1.0)`.",
                type(optimizer).__name__,
            )
        return
    [rest] = optimizer.param_groups
    indices = {p: i for i, p in enumerate(parameters)}
    kept = [p for p in parameters if p not in factors]
    rest |= {"params": kept, FACTOR: 1.0, _INDEX: [indices[p] for p in kept]}
    for factor in wanted:
        group = [p for p in parameters if factors.get(p) == factor]
        index = [indices[p] for p in group]
        hyper = {key: value for key, value in rest.items() if key not in ("params", _INDEX)}
        optimizer.add_param_group(hyper | {"params": group, FACTOR: factor, _INDEX: index})


def scale_groups(optimizer: Any) -> None:
    """Sets the rates of what blocks write; to be called after RLlib has set one for all groups.

    Args:
        optimizer: After `split_groups`, or any other.
    """
    for group in optimizer.param_groups:
        if FACTOR in group:
            group["lr"] = optimizer.param_groups[0]["lr"] * group[FACTOR]


def merged_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Returns the state of a split optimizer as that of one whose groups were not split.

    So checkpoints stay what RLlib's own learners read and write, and factors those of the config.
    Fused kernels are left out: a learner decides anew.

    Args:
        state: The optimizer's `state_dict`.
        optimizer: After `split_groups`, or any other: its state is returned as it is.
    """
    groups = [
        {**group, "fused": None} if group.get("fused") else group for group in state["param_groups"]
    ]
    if not _is_split(optimizer):
        return state | {"param_groups": groups}
    order = _order(optimizer)
    merged = {key: value for key, value in groups[0].items() if key not in _OWN}
    return {
        "state": {order[i]: moments for i, moments in state["state"].items()},
        "param_groups": [merged | {"params": list(range(len(order)))}],
    }


def split_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Returns the inverse of `merged_state`.

    Args:
        state: A `state_dict` with one group.
        optimizer: That is to get it.

    Raises:
        ValueError: If it is the state of another number of tensors.
    """
    if not _is_split(optimizer) or len(state["param_groups"]) != 1:
        return state
    [merged], order = state["param_groups"], _order(optimizer)
    if len(merged["params"]) != len(order):
        raise ValueError(
            f"The checkpoint's optimizer has {len(merged['params'])} tensors, this one has "
            f"{len(order)}: it is of another network, or of a version of this package in which "
            "queries, keys and values were one. Fix: restore the weights alone, "
            f"`algo.restore_from_path(path + '/{WEIGHTS}', component='{WEIGHTS}')`."
        )
    groups, start = [], 0
    for group in optimizer.param_groups:
        end = start + len(group["params"])
        own = {key: group[key] for key in _OWN} | {"params": list(range(start, end))}
        groups.append(merged | own | {"lr": merged["lr"] * group[FACTOR]})
        start = end
    moments = {new: state["state"][old] for new, old in enumerate(order) if old in state["state"]}
    return {"state": moments, "param_groups": groups}


def load_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Loads a state that comes from `merged_state`, as Ray 2.60 does.

    Args:
        state: With NumPy arrays in place of tensors.
        optimizer: That is to get it.

    Returns:
        The state, as it was.
    """
    split = split_state(state, optimizer)
    optimizer.load_state_dict(split | {"state": convert_to_torch_tensor(split["state"])})
    return state


def _is_split(optimizer: Any) -> bool:
    return _INDEX in optimizer.param_groups[0]


def _order(optimizer: Any) -> list[int]:
    """Returns where the parameters of all groups stood before the split."""
    # Ray 2.55 makes tensors of them.
    return [int(index) for group in optimizer.param_groups for index in group[_INDEX]]
