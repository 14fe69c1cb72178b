"""The command line, from a checkpoint to the files."""

import subprocess
import sys

import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from rllib_attention import AttentionConfig, AttentionRecord
from rllib_attention.inspection.command import main
from tests.harness import RandomEnv, build, prepare

SMALL = AttentionConfig(dim=8, num_heads=2, num_layers=2, window=3, max_seq_len=16)


class Rendered(RandomEnv):
    """Shows pictures."""

    def render(self):
        import numpy as np

        return np.zeros((20, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    algo = build(prepare(PPOConfig(), Rendered, lengths=(9, 10)), SMALL)
    yield algo.save_to_path(tmp_path_factory.mktemp("checkpoint"))
    algo.stop()


def test_files_of_each_episode(checkpoint, tmp_path, capsys):
    main(["inspect", checkpoint, "--episodes=2", f"--out={tmp_path / 'new'}", "--seed=3"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "index.html")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"index.html"} | {
        f"episode_{n}.{kind}" for n in (1, 2) for kind in ("png", "npz")
    }
    record = AttentionRecord.load(tmp_path / "new" / "episode_2.npz")
    assert len(record) == 9
    text = (tmp_path / "new" / "index.html").read_text()
    assert text.count("data:image/jpeg") == 18


def test_another_environment_and_shorter_episodes(checkpoint, tmp_path):
    options = ["--env=tests.harness:RandomEnv", '--env-config={"lengths": [30, 31]}']
    main(["inspect", checkpoint, f"--out={tmp_path}", *options, "--max-steps=20"])
    assert len(AttentionRecord.load(tmp_path / "episode_1.npz")) == 20
    assert "data:image/jpeg" not in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env=Nothing-v0"], "error: `env` expects an ID that Gymnasium or Tune knows, or "),
        (["--env-config=[1]"], "expected a JSON object such as {\"n\": 3}, got '[1]'"),
        (["--env-config={"], "expected JSON, got '{'"),
        (["--episodes=0"], "error: `episodes` must be at least 1, got 0."),
        (["--module-id=x"], "error: `module_id` must name a module with attention, one of "),
    ],
)
def test_wrong_options(options, message, checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["inspect", checkpoint, f"--out={tmp_path}", *options])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_it_is_the_module_s_command():
    command = [sys.executable, "-m", "rllib_attention", "inspect", "/no/checkpoint"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "error: AttentionPolicy expects a checkpoint" in result.stderr
    assert "found no such folder" in result.stderr
    assert "Traceback" not in result.stderr
