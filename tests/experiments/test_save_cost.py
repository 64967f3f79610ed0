"""What a save costs: the row says what was saved, and its numbers belong together."""

from experiments.benchmarks import save_cost


def test_a_row_of_a_small_state(tmp_path):
    row = save_cost.measure(megabytes=2, rounds=2, folder=tmp_path)
    assert 1.5 < row["state_megabytes"] < 2.5
    for kind in ("blocked_ms", "written_seconds", "verified_seconds_a_gigabyte"):
        spread = row[kind]
        assert 0 < spread["least"] <= spread["median"] <= spread["most"]
