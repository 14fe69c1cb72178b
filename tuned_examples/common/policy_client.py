"""A client of `serve_policy.py`, of the standard library alone."""

import json
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

_BUSY = (429, 503)


class PolicyClient:
    """One session of a served policy.

    Args:
        url: The server's address.
        patience: Seconds for which a busy server is asked again.
        timeout: Seconds to wait for a reply.
    """

    def __init__(self, url: str, *, patience: float = 10.0, timeout: float = 10.0):
        self._url, self._patience, self._timeout = url, patience, timeout
        self._session, self._step = uuid.uuid4().hex, 0

    def reset(self) -> None:
        """Begins a new episode with the next `act`."""
        self._step = 0

    def act(self, obs: Any, reward: float | None = None) -> Any:
        """Returns the action.

        Args:
            obs: The observation: numbers, lists, dicts of them, or arrays.
            reward: The reward of the step before, where the policy reads it.

        Raises:
            RuntimeError: If the server refuses, or is busy for too long.
        """
        turn = {"session": self._session, "step": self._step, "obs": obs, "reward": reward}
        reply = self._post(json.dumps(turn, default=lambda array: array.tolist()).encode())
        self._step += 1
        return reply["action"]

    def close(self) -> None:
        """Ends the session."""
        self._post(json.dumps({"session": self._session, "close": True}).encode())

    def _post(self, body: bytes) -> dict:
        """Sends a turn until it is answered: whatever got lost, to repeat a step is safe."""
        until, wait = time.monotonic() + self._patience, 0.05
        while True:
            try:
                with urllib.request.urlopen(self._url, body, self._timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                problem = f"{error.code}: {error.read(500).decode(errors='replace')}"
                if error.code not in _BUSY:
                    raise RuntimeError(f"The server refused: {problem}") from None
            except OSError as error:
                problem = str(error)
            if time.monotonic() > until:
                raise RuntimeError(f"No answer within {self._patience:g} seconds: {problem}")
            time.sleep(wait)
            wait = min(1.0, 2 * wait)
