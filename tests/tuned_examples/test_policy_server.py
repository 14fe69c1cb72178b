"""Sessions and limits of the served policy, without Serve; and all of it with Serve."""

import contextlib
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from unittest.mock import ANY

import numpy as np
import pytest
from common.policy_client import PolicyClient
from common.policy_server import Limits, PolicyServer, RequestError, _as_observation
from common.rate import Rate
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

from rllib_attention import AttentionConfig, AttentionPolicy
from tests.tuned_examples.conftest import EXAMPLES

SMALL = AttentionConfig(dim=8, num_heads=2, num_layers=1, window=3, max_seq_len=10)
VECTOR = Box(-1.0, 1.0, (2,), np.float32)


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def make_server(attention=SMALL, observations=VECTOR, **limits):
    policy = AttentionPolicy.from_spaces(attention, observations, Discrete(3))
    clock = Clock()
    return PolicyServer(policy, Limits(**limits), clock), clock


def ask(server, *turns):
    """Sends some turns in one batch; returns replies, and the status of those refused."""
    parsed = [server.parse(json.dumps(turn).encode()) for turn in turns]
    return [r.status if isinstance(r, RequestError) else r for r in server.decide(parsed)]


def turn(session, step, obs=(0.5, -0.5), **more):
    return {"session": session, "step": step, "obs": list(obs), **more}


def test_sessions_act_as_in_the_policy_itself():
    server, _ = make_server()
    twin = AttentionPolicy.from_spaces(SMALL, VECTOR, Discrete(3))
    twin.module.load_state_dict(server.policy.module.state_dict())
    rng = np.random.default_rng(0)
    for step in range(10):
        obs = {name: rng.uniform(-1, 1, 2).astype(np.float32) for name in "ab"}
        first = 0 if step < 5 else step - 5  # b begins anew in step 5
        if step == 5:
            twin.reset("b")
        turns = [
            turn("a", step, obs["a"].tolist()),
            turn("b", first if step >= 5 else step, obs["b"].tolist()),
        ]
        replies = ask(server, *turns)
        expected = twin.act(obs)
        assert [reply["action"] for reply in replies] == [expected["a"], expected["b"]]


def test_a_repeated_step_gives_the_last_reply_and_moves_nothing():
    server, _ = make_server()
    ask(server, turn("a", 0))
    [reply] = ask(server, turn("a", 1))
    assert ask(server, turn("a", 1, (0.0, 0.0))) == [reply]
    assert ask(server, turn("a", 2)) != [409]
    assert ask(server, turn("a", 9), turn("b", 3)) == [409, 404]


def test_two_turns_of_one_session_in_a_batch():
    server, _ = make_server()
    reply, refused = ask(server, turn("a", 0), turn("a", 0))
    assert (reply["step"], refused) == (0, 409)


def test_sessions_expire_and_are_only_so_many():
    server, clock = make_server(max_sessions=2, idle_seconds=10)
    ask(server, turn("a", 0), turn("b", 0))
    assert ask(server, turn("c", 0)) == [429]
    clock.seconds = 9
    assert ask(server, turn("b", 1))[0]["step"] == 1
    clock.seconds = 10
    assert ask(server, turn("a", 1)) == [404]
    assert ask(server, turn("c", 0))[0]["step"] == 0
    assert ask(server, turn("d", 0)) == [429]
    assert ask(server, {"session": "b", "close": True}) == [{"closed": True}]
    assert ask(server, {"session": "b", "close": True}) == [{"closed": False}]
    assert ask(server, turn("d", 0))[0]["step"] == 0
    assert set(server.policy.sessions) == {"c", "d"}


def test_any_number_of_names_takes_no_more_memory():
    server, clock = make_server(max_sessions=5, idle_seconds=1)
    for number in range(300):
        clock.seconds += 0.1
        ask(server, turn(f"name {number}", 0))
    assert len(server) == len(server.policy.sessions) == 5
    [memory] = [found.memory for found in server.policy._pass._memory._connected.values()]
    assert memory.slots.num_slots <= 8


def test_a_rate_saves_up_for_one_second():
    rate = Rate(2.0, 0.0)
    assert [rate.lets(now) for now in (0, 0, 0, 0.4, 0.5, 0.5, 9, 9, 9)] == [
        *(True, True, False, False, True, False),
        *(True, True, False),
    ]
    slow = Rate(0.5, 0.0)
    assert [slow.lets(now) for now in (0, 1, 2, 3, 4)] == [True, False, True, False, True]


def test_requests_in_a_second_are_only_so_many():
    server, clock = make_server(max_rate=5, session_rate=2)
    assert ask(server, turn("a", 0))[0]["step"] == 0
    assert ask(server, turn("a", 1))[0]["step"] == 1
    assert ask(server, turn("a", 2))[0]["step"] == 2
    assert ask(server, turn("a", 3), turn("b", 0)) == [429, {"step": 0, "action": ANY}]
    with pytest.raises(RequestError, match="at most 5 requests per second") as caught:
        server.parse(b"not even JSON")
    assert caught.value.status == 429
    clock.seconds = 1.0
    assert ask(server, turn("a", 3))[0]["step"] == 3  # nothing was lost


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"session": ' + b"9" * 10_000 + b"}",
        b"[1]",
        b'"a"',
        b'{"session": "a", "step": 0, "obs": [1, 2], "more": 1}',
        b'{"session": "", "step": 0, "obs": [1, 2]}',
        b'{"session": 7, "step": 0, "obs": [1, 2]}',
        b'{"session": "' + b"a" * 65 + b'", "step": 0, "obs": [1, 2]}',
        b'{"session": "' + b"a" * 990_000 + b'", "step": 0, "obs": [1, 2]}',
        b'{"session": "a", "step": -1, "obs": [1, 2]}',
        b'{"session": "a", "step": -1' + b"0" * 4000 + b', "obs": [1, 2]}',
        b'{"session": "a", "step": Infinity, "obs": [1, 2]}',
        b'{"session": "a", "step": 1.0, "obs": [1, 2]}',
        b'{"session": "a", "step": true, "obs": [1, 2]}',
        b'{"session": "a", "obs": [1, 2]}',
        b'{"session": "a", "step": 0}',
        b'{"session": "a", "step": 0, "obs": [1]}',
        b'{"session": "a", "step": 0, "obs": [[1, 2]]}',
        b'{"session": "a", "step": 0, "obs": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
        b'{"session": "a", "step": 0, "obs": [' + b"1," * 400_000 + b"1]}",
        b'{"session": "a", "step": 0, "obs": {"0": 1, "1": 2}}',
        b'{"session": "a", "step": 0, "obs": "1, 2"}',
        b'{"session": "a", "step": 0, "obs": [-Infinity, 1]}',
        b'{"session": "a", "step": 0, "obs": [true, false]}',
        b'{"session": "a", "step": 0, "obs": [[1], 2]}',
        b'{"session": "a", "step": 0, "obs": ["1", "2"]}',
        b'{"session": "a", "step": 0, "obs": [null, 1]}',
        b'{"session": "a", "step": 0, "obs": [NaN, 1]}',
        b'{"session": "a", "step": 0, "obs": [1e400, 1]}',
        b'{"session": "a", "step": 0, "obs": [1e300, 1]}',
        b'{"session": "a", "step": 0, "obs": [1' + b"0" * 400 + b", 1]}",
        b'{"session": "a", "step": 0, "obs": [1, 2], "reward": NaN}',
        b'{"session": "a", "step": 0, "obs": [1, 2], "reward": "1"}',
        b'{"session": "a", "step": 0, "obs": [1, 2], "reward": 1' + b"0" * 400 + b"}",
    ],
    ids=lambda body: body[:70].decode(errors="replace"),
)
def test_hostile_bodies_are_refused(body):
    server, _ = make_server()
    with pytest.raises(RequestError) as caught:
        server.parse(body)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 200
    assert not len(server)


def test_long_bodies_are_refused():
    server, _ = make_server(max_body=100)
    with pytest.raises(RequestError) as caught:
        server.parse(b"[" * 101)
    assert caught.value.status == 413


def test_observations_of_every_kind():
    space = Dict(
        {
            "x": Discrete(3),
            "y": Tuple([MultiDiscrete([2, 3]), Box(0, 255, (2, 1), np.uint8)]),
            "z": Box(-np.inf, np.inf, (), np.float32),
        }
    )

    given = {"x": 2, "y": [[1, 2], [[0], [255]]], "z": 0.5}
    assert space.contains(_as_observation(space, given))
    for key, wrong in (
        ("x", 3),
        ("x", 0.5),
        ("y", [[1, 2], [[0], [256]]]),
        ("y", [[1, 2]]),
        ("z", [1]),
    ):
        with pytest.raises((ValueError, TypeError)):
            _as_observation(space, given | {key: wrong})


def test_rewards_that_the_policy_reads():
    attention = AttentionConfig.from_dict(SMALL.to_dict() | {"prev_rewards": 1})
    server, _ = make_server(attention)
    assert ask(server, turn("a", 0))[0]["step"] == 0
    assert ask(server, turn("a", 1), turn("b", 0))[0] == 400
    assert ask(server, turn("a", 1, reward=1))[0]["step"] == 1


def test_a_failure_of_the_policy_costs_its_sessions_and_nothing_else(monkeypatch):
    server, _ = make_server()
    ask(server, turn("a", 0), turn("b", 0))
    act = server.policy.act
    monkeypatch.setattr(server.policy, "act", lambda *args, **kwargs: 1 / 0)
    assert ask(server, turn("a", 1)) == [500]
    monkeypatch.setattr(server.policy, "act", act)
    assert ask(server, turn("a", 2), turn("b", 1))[0] == 404
    assert ask(server, turn("a", 0), turn("b", 2))[1]["step"] == 2


# With Serve


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_it_is_served(tmp_path):
    pytest.importorskip("ray.serve", reason="needs the extra `serve`", exc_type=ImportError)
    policy = AttentionPolicy.from_spaces(SMALL, VECTOR, Discrete(3))
    policy.module.save_to_path(tmp_path)
    command = [sys.executable, EXAMPLES / "serve_policy.py", tmp_path, "--port=8765"]
    command += ["--max-sessions=20", "--idle-seconds=100"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[-1]
        clients = [PolicyClient(url) for _ in range(2)]
        rng = np.random.default_rng(0)
        for _ in range(8):
            obs = rng.uniform(-1, 1, (2, 2)).astype(np.float32)
            actions = [client.act(one) for client, one in zip(clients, obs, strict=True)]
            assert actions == list(policy.act(dict(enumerate(obs))).values())
        assert status(url, b"{}") == 400
        assert status(url, b'{"session": "a", "step": 0, "obs": [NaN, 1]}') == 400
        assert status(url, b" " * 3_000_000) == 413
        assert status(url) == 405
        for head in ("Content-Length: -5", "Content-Length: 1e9", "Content-Length: 5" * 9000):
            assert raw(f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n") in (400, 431)
        chunk = f"{10**6:x}\r\n" + "1" * 10**6 + "\r\n"
        head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert raw(head + chunk * 3) == 413  # and is not waited for to its end
        assert raw("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{") == 408
        names = [f'{{"session": "{n}", "step": 0, "obs": [0, 0]}}'.encode() for n in range(40)]
        assert [status(url, body) for body in names] == [200] * 18 + [429] * 22
        for client in clients:
            client.act([0.0, 0.0])
            client.close()
        assert status(url, names[-1]) == 200
    finally:
        process.send_signal(2)
        process.wait(60)


def raw(request):
    """Returns the status of the answer to some bytes, whatever they are."""
    with socket.create_connection(("127.0.0.1", 8765), 30) as connection:
        with contextlib.suppress(ConnectionError):  # answered, and closed
            connection.sendall(request.encode())
        return int(connection.recv(100).split()[1])


def status(url, body=None):
    try:
        with urllib.request.urlopen(url, body, 30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
