"""Every mesh computes the gradients of one device, for every backbone.

In float64: in float32 rounding alone moves some tensor of `grid_slots` by 4e-4, by cancellation.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks.gradients import MESHES, OUT
from wm_jax.models.dynamics import DYNAMICS

ROOT = Path(__file__).parent.parent
#: A pair takes up to half a minute: the default on the mesh with three axes, and others.
PAIRS = ("grid_slots:2x2x2", "s5:4x2", "transformer:2x2x1x2")


def measured(folder, *options):
    """What the script finds, in a process of its own that has eight devices."""
    out = folder / "found.json"
    script = [sys.executable, "experiments/benchmarks/gradients.py", "--out", str(out), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (kind,) = json.loads(out.read_text()).values()
    return {(name, mesh): e for name, row in kind.items() for mesh, e in row.items()}


def wrong(found, most):
    return {pair: one for pair, one in found.items() if not one["error"] <= most}


@pytest.mark.slow
@pytest.mark.ci
def test_gradients_of_some_pairs(tmp_path):
    found = measured(tmp_path, "--double", "--only", ",".join(PAIRS))
    assert len(found) == len(PAIRS) and not wrong(found, 1e-9)


@pytest.mark.slow
def test_gradients_of_every_backbone_on_every_mesh(tmp_path):
    found = measured(tmp_path, "--double")
    assert len(found) == len(DYNAMICS) * len(MESHES) and not wrong(found, 1e-9)


def test_what_the_table_stores_is_within_bounds():
    """Gradients of every pair; losses, where they go further, as far as one device's own do when
    its weights are moved by their last bits."""
    for kind, rows in json.loads((ROOT / OUT).read_text()).items():
        assert set(rows) == set(DYNAMICS)
        if kind.startswith("gradients"):
            found = {f"{name}:{mesh}": e for name, row in rows.items() for mesh, e in row.items()}
            assert set(found) == {f"{name}:{mesh}" for name in DYNAMICS for mesh in MESHES}
            assert not wrong(found, 1e-9 if "float64" in kind else 1e-3), kind
            continue
        for name, row in rows.items():
            control = row["ulp"]["error"]
            asked = 1e-8 if "float64" in kind else 1e-4
            assert len(row) == 4 and not wrong(row, max(asked, 5 * control)), (kind, name)
