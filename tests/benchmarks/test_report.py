"""Verdicts, worst doublings, tables, and a report of parts."""

import pytest

from tests.benchmarks.aims import Figure, figures, worst_doubling
from tests.benchmarks.labels import ATTENTION, PPO_MODELS
from tests.benchmarks.options import Size, parse_options
from tests.benchmarks.report import render, table
from tests.benchmarks.timing import spread


@pytest.fixture
def results():
    """Attention takes twice as long as each other model."""
    phases = ("rollout", "learner", "iteration")
    times = {
        model: {phase: [2e-3 if model == ATTENTION else 1e-3] for phase in phases}
        for model in PPO_MODELS
    }
    return {"machine": {"cpu": "abacus"}, "options": {"batch": 100}, "ppo": {"64x32": times}}


@pytest.mark.parametrize(
    ("value", "aim", "verdict"),
    [(0.8, 0.8, "met"), (0.804, 0.8, "met"), (0.81, 0.8, "not met"), (5.0, None, "")],
)
def test_verdict_is_about_the_printed_median(value, aim, verdict):
    assert Figure("name", spread([value]), aim).verdict == verdict


def test_worst_doubling():
    curve = {8: [1.0], 16: [2.0], 32: [5.0], 100: [1000.0]}
    assert worst_doubling(curve) == ((16, 32), (2.5, 2.5, 2.5))
    assert worst_doubling({8: [1.0], 32: [5.0]}) is None


def test_worst_doubling_stands_beside_its_flops():
    points = {
        "32": {"pass": [1.0], "flops": [4.0]},
        "64": {"pass": [3.0], "flops": [10.0]},
    }
    update = {"update": [1.0]}
    learner = {
        "encoder": {"chunk": points, "window": points},
        "update": dict.fromkeys(("base", "chunk doubled", "window doubled"), update),
        "short episodes": dict.fromkeys(("10", "11", "128"), update),
    }
    found = [figure for figure in figures({"learner": learner}) if figure.value.median != 1]
    assert [figure.value.median for figure in found] == [3.0, 2.5, 3.0, 2.5]
    assert [figure.verdict for figure in found] == ["not met", "", "not met", ""]


def test_table():
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_figures_are_attention_by_the_others(results):
    found = {figure.name: figure for figure in figures(results)}
    assert len(found) == 3 * 4
    mlp = found["PPO learner, 64x32, against RLlib's MLP"]
    assert (mlp.value.median, mlp.aim) == (2.0, None)
    assert found["PPO rollout, 64x32, against RLlib's MLP"].verdict == "not met"


def test_report_of_one_part(results):
    report = render(results)
    assert "Machine: cpu: abacus." in report
    assert (
        "| PPO rollout, 64x32, against RLlib's MLP | 2.00 (2.00–2.00) | ≤ 1.6 | not met |" in report
    )
    time = "2,000 (2,000–2,000)"
    assert f"| attention | {time} | {time} | {time} | 500 | 5.00 |" in report
    assert "SAC, 64x32" not in report


def test_report_of_replay(results):
    phases = ("rollout", "sample", "learner", "priorities", "sync", "iteration")
    times = {
        name: {phase: [scale * 1e-3] for phase in phases} | {"bytes": [1000.0 * size]}
        for name, scale, size in (("mlp", 1, 1), ("1", 6, 63), ("32", 1.2, 3))
    }
    results |= {"replay": {"64x32": {"sac": times}}}
    found = {figure.name: figure for figure in figures(results)}
    whole = found["SAC, iteration, 64x32, runs of 32, against the MLP"]
    assert (whole.value.median, whole.verdict) == (pytest.approx(1.2), "met")
    assert found["SAC, bytes of a batch, runs of 32 against windows"].verdict == "met"
    report = render(results)
    assert "## SAC, 64x32: a step of each sub-environment, an update, ms" in report
    assert "| attention, runs of 1 | 6.0 (6.0–6.0) |" in report


def test_report_of_acting_and_of_the_callback(results):
    results |= {
        "acting": {"64x32": {"1": [2e-3, 4e-3], "64": [64e-3, 64e-3]}},
        "callback": {"small": {"without": [1.0, 2.0], "with the callback": [1.5, 2.0]}},
    }
    report = render(results)
    assert "## Acting with `AttentionPolicy`, 64x32, CPU time" in report
    assert "| 1 | 3.00 (2.00–4.00) | 3.000 (2.000–4.000) |" in report
    assert "| 64 | 64.00 (64.00–64.00) | 1.000 (1.000–1.000) |" in report
    row = "| small | 1.50 (1.00–2.00) | 1.75 (1.50–2.00) | 1.25 (1.00–1.50) |"
    assert row in report


def test_options_override_quick_ones():
    options = parse_options(["--quick", "--rounds", "7", "--sizes", "16x4"])
    assert (options.rounds, options.sizes, options.batch) == (7, (Size(16, 4),), 512)
    assert options.threads >= 1
