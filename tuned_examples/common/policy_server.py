"""Decides for the sessions of many clients, within limits; knows nothing of HTTP or Ray Serve."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import tree

from common.rate import Rate
from rllib_attention import AttentionPolicy

_KEYS = {"session", "step", "obs", "reward", "close"}


class RequestError(Exception):
    """A request that is not served.

    Args:
        status: The HTTP status that says why.
        message: What to do about it.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What a server lets in.

    Attributes:
        max_sessions: Sessions that are open at a time.
        idle_seconds: A session that nobody has acted in for so long is closed.
        max_body: Bytes of a request.
        max_rate: Requests per second, of all clients together.
        session_rate: Requests per second in one session.
    """

    max_sessions: int = 1000
    idle_seconds: float = 60.0
    max_body: int = 1_000_000
    max_rate: float = 2000.0
    session_rate: float = 100.0


@dataclass(frozen=True)
class Turn:
    """A client's turn in its session: the observation that its step number `step` begins with."""

    session: str
    step: int
    obs: Any
    reward: float | None
    close: bool


@dataclass
class _Open:
    """An open session: how often it may act, the next step, when it was used, the last reply."""

    rate: Rate
    step: int = 0
    used: float = 0.0
    reply: dict | None = None


class PolicyServer:
    """Sessions of a policy, which clients open, step and close by name.

    Steps are numbered, so that neither a lost request nor a lost reply harms a session: step 0
    opens it or begins it anew, the last step again gives the last reply again, and any other number
    is an error, as is a step of a session that has expired.

    Args:
        policy: The policy.
        limits: What it lets in.
        clock: Returns seconds.
    """

    def __init__(
        self,
        policy: AttentionPolicy,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.policy, self.limits, self._clock = policy, limits, clock
        self._open: dict[str, _Open] = {}  # those unused for longest first
        self._rate = Rate(limits.max_rate, clock())

    def __len__(self) -> int:
        """Returns how many sessions are open."""
        return len(self._open)

    def parse(self, body: bytes) -> Turn:
        """Reads and checks a request.

        Args:
            body: JSON: {"session": name, "step": number, "obs": observation}, with "reward" of the
                step before where the policy reads it, or {"session": name, "close": true}.

        Raises:
            RequestError: If it is not that, too long (413), or one too many (429).
        """
        if not self._rate.lets(self._clock()):
            raise RequestError(429, f"at most {self.limits.max_rate:g} requests per second")
        if len(body) > self.limits.max_body:
            raise RequestError(413, f"at most {self.limits.max_body} bytes")
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            raise RequestError(400, "expects JSON") from None
        if not isinstance(given, dict) or not given.keys() <= _KEYS:
            raise RequestError(400, f"expects a JSON object with no keys but {sorted(_KEYS)}")
        session = given.get("session")
        if not isinstance(session, str) or not 0 < len(session) <= 64:
            raise RequestError(400, "`session` expects a name of 1 to 64 characters")
        if given.get("close") is True:
            return Turn(session, 0, None, None, close=True)
        step, reward = given.get("step"), given.get("reward")
        if type(step) is not int or step < 0:
            raise RequestError(400, f"`step` expects a number from 0 on, got {str(step)[:50]}")
        if reward is not None:
            reward = _number(reward, "reward")
        try:
            obs = _as_observation(self.policy.observation_space, given.get("obs"))
        except (ValueError, TypeError, OverflowError):
            raise RequestError(
                400, f"`obs` expects finite numbers of {self.policy.observation_space}"
            ) from None
        return Turn(session, step, obs, reward, close=False)

    def decide(self, turns: list[Turn]) -> list[dict | RequestError]:
        """Decides for some sessions in one batch.

        Args:
            turns: From `parse`.

        Returns:
            For each the reply, {"step": number, "action": action}, or why there is none.
        """
        now = self._clock()
        self._expire(now)
        replies: dict[int, dict | RequestError] = {}
        acting: dict[str, int] = {}
        for number, turn in enumerate(turns):
            try:
                if turn.session in acting:
                    raise RequestError(409, "one request at a time in each session")
                reply = self._without_acting(turn, now)
                if reply is None:
                    acting[turn.session] = number
                else:
                    replies[number] = reply
            except RequestError as refused:
                replies[number] = refused
        self._act({name: turns[number] for name, number in acting.items()}, acting, replies)
        return [replies[number] for number in range(len(turns))]

    def _without_acting(self, turn: Turn, now: float) -> dict | None:
        """Returns the reply where the policy is not asked; opens a new session."""
        known = self._open.get(turn.session)
        if known is not None and not known.rate.lets(now):
            each = f"{self.limits.session_rate:g} requests per second in a session"
            raise RequestError(429, f"at most {each}")
        if turn.close:
            self._close(turn.session)
            return {"closed": known is not None}
        if known is None and turn.step:
            raise RequestError(404, "unknown or expired: begin anew with step 0")
        if known is None:
            if len(self._open) >= self.limits.max_sessions:
                raise RequestError(429, "too many sessions: try again later")
            known = _Open(Rate(self.limits.session_rate, now))
        elif turn.step and turn.step == known.step - 1:
            return known.reply
        elif turn.step not in (0, known.step):
            raise RequestError(409, f"expects step {known.step}, or 0 to begin anew")
        if turn.step and turn.reward is None and self.policy.reads_rewards:
            raise RequestError(400, "`reward` of the step before is missing")
        known.used = now
        self._open.pop(turn.session, None)
        self._open[turn.session] = known  # to the end
        return None

    def _act(
        self,
        turns: dict[str, Turn],
        numbers: dict[str, int],
        replies: dict[int, dict | RequestError],
    ) -> None:
        if not turns:
            return
        rewards = {name: turn.reward for name, turn in turns.items() if turn.step}
        for name, turn in turns.items():
            if not turn.step:
                self.policy.reset(name)
        try:
            actions = self.policy.act(
                {name: turn.obs for name, turn in turns.items()}, prev_reward=rewards
            )
        except Exception as error:
            for name, number in numbers.items():
                self._close(name)  # it has an observation, but no action
                replies[number] = RequestError(500, f"the policy failed: {type(error).__name__}")
            return
        for name, action in actions.items():
            known, step = self._open[name], turns[name].step
            plain = tree.map_structure(lambda x: np.asarray(x).tolist(), action)
            known.step, known.reply = step + 1, {"step": step, "action": plain}
            replies[numbers[name]] = known.reply

    def _expire(self, now: float) -> None:
        while self._open:
            name, oldest = next(iter(self._open.items()))
            if now - oldest.used < self.limits.idle_seconds:
                return
            self._close(name)

    def _close(self, name: str) -> None:
        if self._open.pop(name, None) is not None:
            self.policy.close(name)


def _number(value: Any, name: str) -> float:
    """Returns a finite number."""
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise RequestError(400, f"`{name}` expects a finite number")


def _as_observation(space: gym.Space, value: Any) -> Any:
    """Turns plain JSON into an observation; anything else raises."""
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(value, dict) or value.keys() != set(space.spaces):
            raise ValueError
        return {key: _as_observation(part, value[key]) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        pairs = zip(space.spaces, value, strict=True)
        return tuple(_as_observation(*pair) for pair in pairs)
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.shape != space.shape or not np.isfinite(array).all():
        raise ValueError
    with np.errstate(all="ignore"):
        typed = array.astype(space.dtype)[()]
    if not np.isfinite(typed).all():
        raise ValueError  # too large for its type
    if typed.dtype.kind in "iu" and not np.array_equal(typed, array):
        raise ValueError  # a fraction, or out of range
    if not isinstance(space, gym.spaces.Box) and not space.contains(typed):
        raise ValueError
    return typed
