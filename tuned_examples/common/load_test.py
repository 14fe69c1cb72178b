"""Measures a server of `serve_policy.py`: its capacity, and what it does at twice that."""

import asyncio
import collections
import time
from typing import Any

import aiohttp
import gymnasium as gym
import numpy as np

SESSIONS = 64
"""Sessions that keep a server busy: a whole batch."""

TIMEOUT = 10.0  # seconds for a reply
_NO_REPLY = 0


async def load_test(url: str, space: gym.Space, *, seconds: float) -> dict[str, dict]:
    """Measures in two halves: sessions that act one step after another, then twice that rate.

    Args:
        url: The server's address.
        space: Of the observations.
        seconds: For both halves together.

    Returns:
        Figures of both halves: decisions a second, milliseconds of the median and the 99th percent,
        requests by status (0: no reply in time), and sessions that the server forgot.
    """
    space.seed(0)
    samples = [_plain(space.sample()) for _ in range(100)]
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        await _Load(http, url, samples, SESSIONS, None).run(1.0)  # warms up
        full = await _Load(http, url, samples, SESSIONS, None).run(seconds / 2)
        rate = 2 * full["decisions per second"]
        twice = await _Load(http, url, samples, 4 * SESSIONS, rate).run(seconds / 2)
    return {"at capacity": full, "at twice the capacity": {"offered per second": rate, **twice}}


class _Load:
    """Some sessions, which act one step after another.

    Args:
        http: To send requests with.
        url: Where to.
        samples: Observations.
        sessions: How many sessions.
        rate: Requests a second of all sessions together; None for as many as are answered.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        samples: list,
        sessions: int,
        rate: float | None,
    ):
        self._http, self._url, self._samples, self._sessions = http, url, samples, sessions
        self._pause = 0.0 if rate is None else sessions / rate
        self._times: list[float] = []
        self._status: collections.Counter[int] = collections.Counter()
        self._lost = self._sent = 0

    async def run(self, seconds: float) -> dict[str, Any]:
        """Runs for so long and returns the figures."""
        start = time.perf_counter()
        names = (f"{id(self)}-{number}" for number in range(self._sessions))
        await asyncio.gather(
            *(self._play(n, name, start + seconds) for n, name in enumerate(names))
        )
        elapsed = time.perf_counter() - start
        times = np.array(self._times or [np.nan]) * 1e3
        return {
            "decisions per second": round(len(self._times) / elapsed),
            "requests per second": round(self._sent / elapsed),
            "p50 ms": round(float(np.percentile(times, 50)), 1),
            "p99 ms": round(float(np.percentile(times, 99)), 1),
            "status": dict(sorted(self._status.items())),
            "sessions": self._sessions,
            "sessions lost": self._lost,
        }

    async def _play(self, number: int, name: str, until: float) -> None:
        step, due = 0, time.perf_counter() + self._pause * number / self._sessions
        while time.perf_counter() < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due = max(due, time.perf_counter() - self._pause) + self._pause
            obs = self._samples[(number + step) % len(self._samples)]
            turn = {"session": name, "step": step, "obs": obs, "reward": 0.0}
            start = time.perf_counter()
            self._sent += 1
            status, reply = await self._post(turn)
            self._status[status] += 1
            if status == 200:
                assert reply["step"] == step
                self._times.append(time.perf_counter() - start)
                step += 1
            elif status in (404, 409):
                self._lost, step = self._lost + 1, 0
        for _ in range(20):
            if (await self._post({"session": name, "close": True}))[0] == 200:
                return
            await asyncio.sleep(0.1)

    async def _post(self, turn: dict) -> tuple[int, dict]:
        try:
            async with self._http.post(self._url, json=turn) as response:
                reply = await response.json() if response.status == 200 else {}
                return response.status, reply
        except (TimeoutError, aiohttp.ClientError):
            return _NO_REPLY, {}


def _plain(obs: Any) -> Any:
    """Returns an observation as JSON takes it."""
    if isinstance(obs, dict):
        return {key: _plain(value) for key, value in obs.items()}
    if isinstance(obs, tuple):
        return [_plain(value) for value in obs]
    return np.asarray(obs).tolist()
