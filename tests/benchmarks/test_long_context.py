"""The comparison of long contexts runs, and its ratios are those of its rounds."""

import pytest

from tests.benchmarks import long_context, phases
from tests.benchmarks.long_context import make_algo, profile, rollout, table, update


def test_an_algorithm_plays_and_trains_on_full_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"num_layers": 2, "window": 3, "dilation": 3}
    monkeypatch.setitem(long_context.STACKS, 8, small)
    algo = make_algo(8, num_envs=2, factor=2.0)
    attention = algo.config.model_config["attention"]
    assert (attention["window"], attention["dilation"]) == (3, 3)
    assert rollout(algo, 20) > 0
    assert update(algo, phases.rollout(algo, 2 * 1_000)) > 0
    algo.stop()


def test_the_table_compares_rounds_with_the_plain_stack() -> None:
    plain = {"rollout": [1e-3, 2e-3], "update": [1e-3, 1e-3]}
    long = {"rollout": [2e-3, 4e-3], "update": [1e-3, 3e-3]}
    *_, row = table({62: plain, 1_023: long}).splitlines()
    assert row.startswith("| 1,023 | 3.000 (2.000–4.000) | 2.00 (2.00–2.00) |")
    assert row.endswith("| 2.000 (1.000–3.000) | 2.00 (1.00–3.00) |")


def test_a_profile_names_functions_without_the_machines_folders() -> None:
    text = profile(lambda: sorted(range(1_000), key=lambda x: -x))
    assert "sorted" in text
    assert "test_long_context.py" in text
    assert __file__ not in text
