"""Frames split into bands of rows: each device has its share of the work, and few words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Prints, of a backbone's gradient on two devices, the share of one device's work that each has
#: (XLA's count) and the collectives.
SHARES = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
from experiments.benchmarks.gradients import QUICK, config_of, mesh_of, weights, windows
from wm_jax import mesh as meshes
from wm_jax.models import build

model = build(config_of(sys.argv[1]).model)
params = weights(model)
def loss(params, batch):
    return model.loss(params, batch, jax.random.PRNGKey(2), jnp.int32(5))[0]

def compiled(shape):
    mesh = mesh_of(shape)
    everywhere = jax.device_put(params, meshes.replicated(mesh))
    function = jax.jit(meshes.on_mesh(jax.grad(loss), mesh), compiler_options=QUICK)
    return function.lower(everywhere, meshes.shard_batch(windows(), mesh)).compile()

one, two = compiled("1"), compiled("1x1x1x2")
kinds = ("all-gather", "all-to-all", "collective-permute", "all-reduce")
counts = {kind: two.as_text().count(kind + "(") for kind in kinds}
print(json.dumps({"share": two.cost_analysis()["flops"] / one.cost_analysis()["flops"]} | counts))
"""


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("backbone", ["transformer", "grid_gru"])
def test_each_of_two_devices_has_half_of_the_work_and_gathers_nothing(backbone):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SHARES, backbone]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["share"] < 0.6 and found["collective-permute"] > 0, found
    assert found["all-gather"] == found["all-to-all"] == 0, found
