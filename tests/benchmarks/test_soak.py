"""The soak script reads what it says, of the processes that it means."""

import pytest

from tests.benchmarks.soak import drift, make_config, soak


def test_drift_compares_the_last_quarter_with_the_second():
    rates = [1, 1, 10, 10, 50, 50, 20, 20]
    rows = [{"minutes": i, "rate": rate, "driver": 7.0} for i, rate in enumerate(rates)]
    assert drift(rows) == {"rate": 2.0, "driver": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_rows(stop, name):
    algo = stop(make_config(name).build_algo())
    rows = soak(algo, minutes=0.5, interval=1.0)
    assert all(row["rate"] > 0 for row in rows)
    assert all(row[process] > 50 for row in rows for process in ("driver", "runner", "learner"))
