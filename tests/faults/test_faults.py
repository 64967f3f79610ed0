"""A few kills and a few corruptions; ``tests/faults/run.py`` does hundreds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.ci
def test_killed_runs_end_alike_and_no_corruption_is_silent(tmp_path):
    command = [sys.executable, "tests/faults/run.py", "--json", "--work", str(tmp_path)]
    asked = ["--kills", "4", "--corruptions", "24", "--data", "24"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, *asked], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    result = json.loads(done.stdout)
    assert result["complete"] and result["passed"]
    assert result["kill_9"]["kills"] >= 4
    for what in ("corruption", "data_corruption"):
        assert sum(result[what]["outcomes"].values()) == 24
        assert result[what]["outcomes"]["detected"] > 12
