"""Serves a trained policy over HTTP with Ray Serve: sessions by name, decisions in batches.

This example:
    - takes the checkpoint of any of the other examples; each client plays its own episodes in a
      session of its own, with a clock and a context of its own.
    - decides for all sessions that ask at about the same time in one batch.
    - stays within limits: sessions expire, there are only so many, a new one beyond them gets 429,
      as do too many requests in a second, and one that would have to queue for long gets 503.
      Nobody's session is lost by that.
    - with `--load-test`, measures itself on this machine: capacity, and twice the capacity.

How to run this script
----------------------
`python serve_policy.py results/ppo_repeat_previous-.../checkpoint`

Needs `pip install "rllib-attention[serve]"`. It listens on this machine only; `--host=0.0.0.0`
lets others in, without a password. A turn is a POST of JSON; `common/policy_client.py` is a client.

`curl localhost:8000 -d '{"session": "anna", "step": 0, "obs": [1, 0, 0, 0]}'`

Results to expect
-----------------
The action: `{"step": 0, "action": 2}`; the next turn has step 1. `docs/acting.md` has figures of
the load test.
"""

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

from common import require
from common.policy_server import Limits, PolicyServer, RequestError, Turn

require("starlette", "Serving", "serve")
import ray  # noqa: E402
from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402

from rllib_attention import AttentionPolicy  # noqa: E402

MAX_BATCH, MAX_ONGOING, MAX_QUEUED = 64, 64, 32
READ_SECONDS = 5.0  # to read a request


@serve.deployment(
    num_replicas=1,  # sessions live in it
    max_ongoing_requests=MAX_ONGOING,
    max_queued_requests=MAX_QUEUED,  # beyond it Serve answers 503
)
class ServedPolicy:
    """Answers turns of sessions.

    Args:
        checkpoint: As for `AttentionPolicy.from_checkpoint`.
        module_id: As there.
        limits: What is let in.
    """

    def __init__(self, checkpoint: str, module_id: str | None, limits: Limits):
        policy = AttentionPolicy.from_checkpoint(checkpoint, module_id)
        self._server = PolicyServer(policy, limits)
        self._max_body = limits.max_body

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.002)
    async def _decide(self, turns: list[Turn]) -> list[dict | RequestError]:
        return self._server.decide(turns)

    async def __call__(self, request: Request) -> JSONResponse:
        """Answers one request."""
        try:
            body = await asyncio.wait_for(self._read(request), READ_SECONDS)
            reply = await self._decide(self._server.parse(body))
        except TimeoutError:
            reply = RequestError(408, f"a request must arrive within {READ_SECONDS:g} seconds")
        except RequestError as refused:
            reply = refused
        if isinstance(reply, RequestError):
            headers = {"Retry-After": "1"} if reply.status == 429 else None
            return JSONResponse({"error": str(reply)}, reply.status, headers)
        return JSONResponse(reply)

    async def _read(self, request: Request) -> bytes:
        """Reads the body as far as it may be long, whatever the headers say."""
        if request.method != "POST":
            raise RequestError(405, "expects a POST")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > self._max_body:
                raise RequestError(413, f"at most {self._max_body} bytes")
        return body


def start(args: argparse.Namespace) -> str:
    """Starts Serve and the policy; returns its address.

    Args:
        args: The parsed command line.
    """
    if not ray.is_initialized():
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    options = {"host": args.host, "port": args.port, "request_timeout_s": 30.0}
    serve.start(http_options=options)
    limits = Limits(
        args.max_sessions,
        args.idle_seconds,
        max_rate=args.max_rate,
        session_rate=args.session_rate,
    )
    checkpoint = os.path.abspath(args.checkpoint)
    serve.run(ServedPolicy.bind(checkpoint, args.module_id, limits), name="policy")
    return f"http://127.0.0.1:{args.port}/"


def make_parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="folder of a checkpoint")
    add("--module-id", help="which module of several acts")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="port to listen on")
    add("--max-sessions", type=int, default=1000, help="open sessions at a time")
    add("--idle-seconds", type=float, default=60.0, help="until an unused session is closed")
    add("--max-rate", type=float, default=Limits.max_rate, help="requests per second, of all")
    add("--session-rate", type=float, default=Limits.session_rate, help="the same in one session")
    add("--load-test", type=float, metavar="SECONDS", help="measure for so long, and end")
    return parser


async def _measure(url: str, args: argparse.Namespace) -> dict[str, Any]:
    from common.load_test import load_test  # it needs aiohttp

    policy = AttentionPolicy.from_checkpoint(args.checkpoint, args.module_id)
    return await load_test(url, policy.observation_space, seconds=args.load_test)


def main() -> None:
    """Serves until Ctrl-C, or for the load test."""
    args = make_parser().parse_args()
    url = start(args)
    print(f"serving {args.checkpoint} at {url}", flush=True)
    try:
        if args.load_test:
            for name, figures in asyncio.run(_measure(url, args)).items():
                print(f"{name}: {json.dumps(figures)}", flush=True)
        else:
            while True:
                asyncio.run(asyncio.sleep(3600))
    except KeyboardInterrupt:
        pass
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
