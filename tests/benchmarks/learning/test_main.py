"""The command: it runs what is missing in processes of their own, and writes the report."""

import json
import subprocess
import sys
from pathlib import Path


def test_the_command_runs_and_reports(tmp_path: Path) -> None:
    training = '{"train_batch_size_per_learner": 512, "num_epochs": 1}'
    command = [sys.executable, "-m", "tests.benchmarks.learning", f"--out={tmp_path}"]
    command += ["--tasks", "t_maze_10", "--models", "mlp", "--seeds", "0", "--budget=512"]
    root = Path(__file__).parents[3]
    command += [f"--training={training}", f"--ledger={tmp_path / 'ledger.jsonl'}"]

    def run() -> str:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        assert "t_maze_10" in (tmp_path / "report.md").read_text()
        return done.stdout

    assert "t_maze_10-mlp-0-512:" in run()
    [file] = tmp_path.glob("*.json")
    assert [row["steps"] for row in json.loads(file.read_text())["curve"]] == [512]
    # The ledger alone is enough: nothing is run again.
    file.unlink()
    again = run()
    assert "t_maze_10-mlp-0-512:" not in again
    assert "| mlp | 1 |" in again
