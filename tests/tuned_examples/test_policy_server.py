"""Sessions and limits of the served policy, without Serve; and all of it with Serve."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from common.policy_client import PolicyClient
from common.policy_server import Limits, PolicyServer, RequestError, _as_observation
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
        b'{"session": "a", "step": -1, "obs": [1, 2]}',
        b'{"session": "a", "step": 1.0, "obs": [1, 2]}',
        b'{"session": "a", "step": true, "obs": [1, 2]}',
        b'{"session": "a", "obs": [1, 2]}',
        b'{"session": "a", "step": 0}',
        b'{"session": "a", "step": 0, "obs": [1]}',
        b'{"session": "a", "step": 0, "obs": [[1, 2]]}',
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
        names = [f'{{"session": "{n}", "step": 0, "obs": [0, 0]}}'.encode() for n in range(40)]
        assert [status(url, body) for body in names] == [200] * 18 + [429] * 22
        for client in clients:
            client.act([0.0, 0.0])
            client.close()
        assert status(url, names[-1]) == 200
    finally:
        process.send_signal(2)
        process.wait(60)


def status(url, body=None):
    try:
        with urllib.request.urlopen(url, body, 30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
