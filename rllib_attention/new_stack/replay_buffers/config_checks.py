"""Checks a `replay_buffer_config` before RLlib builds a buffer from it."""

from collections.abc import Mapping
from typing import Any

from rllib_attention.new_stack.replay_buffers.upgrade import UPGRADES

_ACCEPTED = tuple(buffer_class.__name__ for buffer_class in UPGRADES)


def check_replay_config(
    replay_buffer_config: Mapping[str, Any],
    n_step: int | tuple[int, int],
    *,
    multi_agent: bool | None = None,
) -> None:
    """Checks that an algorithm's replay buffer can serve histories, and serves right ones.

    For algorithms that replay what they sampled themselves (DQN, SAC, TQC). Offline algorithms
    never sample from their `replay_buffer_config`, whatever it says.

    Args:
        replay_buffer_config: `config.replay_buffer_config`.
        n_step: `config.n_step`.
        multi_agent: `config.is_multi_agent`, or None to accept buffers for both.

    Raises:
        ValueError: If `type` is not the name of one of RLlib's four episode replay buffers, or is
            the wrong one for `multi_agent`; if `replay_mode` is not `"independent"`; if a
            prioritised buffer has no `beta >= 0`; if `n_step` is neither an int of at least 1 nor
            a tuple `(low, high)` with `1 <= low < high`.
    """
    buffer_type = _checked_type(replay_buffer_config.get("type"), multi_agent)
    _check_replay_mode(replay_buffer_config.get("replay_mode", "independent"))
    if "Prioritized" in buffer_type:
        _check_beta(buffer_type, replay_buffer_config.get("beta"))
    _check_n_step(n_step)


def _checked_type(buffer_type: Any, multi_agent: bool | None) -> str:
    if buffer_type not in _ACCEPTED:
        raise ValueError(
            f"The replay buffer's `type` must be one of the names {', '.join(_ACCEPTED)}, but got "
            f"{buffer_type!r}: attention needs a buffer that stores episodes, and RLlib's "
            "algorithms accept those by these names only. " + _mend("EpisodeReplayBuffer")
        )
    if multi_agent is not None and multi_agent != buffer_type.startswith("MultiAgent"):
        right_type = "MultiAgent" + buffer_type if multi_agent else buffer_type[len("MultiAgent") :]
        raise ValueError(
            f"The replay buffer's `type` is {buffer_type!r}, which cannot store the episodes of a "
            f"{'multi' if multi_agent else 'single'}-agent set-up. " + _mend(right_type)
        )
    return buffer_type


def _check_replay_mode(replay_mode: Any) -> None:
    if replay_mode != "independent":
        raise ValueError(
            f"The replay buffer's `replay_mode` must be 'independent', but got {replay_mode!r}: "
            "RLlib's synchronized samples are arrays without their episodes, so that they have no "
            'history to attend to. Call `config.training(replay_buffer_config={"replay_mode": '
            '"independent"})`.'
        )


def _check_beta(buffer_type: str, beta: Any) -> None:
    if not isinstance(beta, int | float) or beta < 0:
        raise ValueError(
            f"The replay buffer's `beta` must be a number >= 0 for type {buffer_type!r}, but got "
            f"{beta!r} (setting another `type` drops RLlib's defaults). " + _mend(buffer_type)
        )


def _check_n_step(n_step: Any) -> None:
    if isinstance(n_step, int) and not isinstance(n_step, bool) and n_step >= 1:
        return
    # RLlib draws from the half-open interval.
    if isinstance(n_step, tuple) and len(n_step) == 2 and 1 <= n_step[0] < n_step[1]:
        return
    raise ValueError(
        "`n_step` must be an int >= 1 or a tuple (low, high) with 1 <= low < high, which draws "
        f"from low to high - 1, but got {n_step!r}. Call `config.training(n_step=1)`."
    )


def _mend(buffer_type: str) -> str:
    keys = ', "alpha": 0.6, "beta": 0.4' if "Prioritized" in buffer_type else ""
    return f'Call `config.training(replay_buffer_config={{"type": "{buffer_type}"{keys}}})`.'
