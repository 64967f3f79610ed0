"""Meshes: the same gradients on every one of them, and weights where the rules put them."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests import tiny
from wm_jax import mesh as meshes
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.optim import make_optimizer
from wm_jax.shapes import CONDITION_SIZES
from wm_jax.train_step import TrainState, state_shardings

ON_EIGHT = """
import json, jax, numpy as np
from types import SimpleNamespace
from tests import tiny
from wm_jax import mesh as meshes, optim
from wm_jax.config import base_config
from wm_jax.train_step import init_state, jit_train_step, make_train_step

MESHES = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 1), (1, 8, 1), (4, 2, 1), (2, 4, 1)]
MESHES += [(1, 1, 2), (1, 1, 8), (2, 2, 2), (1, 4, 2), (1, 2, 4), (4, 1, 2)]
MESHES += [(1, 1, 1, 2), (1, 1, 1, 4), (2, 1, 1, 2), (1, 2, 2, 2)]
model, out = tiny.TinyModel(), {}
optimizer = optim.make_optimizer(base_config().optim)
params = model.init(jax.random.PRNGKey(0), None)
gradient = jax.grad(lambda p, batch: model.loss(p, batch, jax.random.PRNGKey(1))[0])

def lists(tree):
    return [np.asarray(x).ravel().tolist() for x in jax.tree.leaves(tree)]

for sizes in MESHES:
    section = SimpleNamespace(**dict(zip(meshes.AXES, (*sizes, 1))))
    mesh = meshes.make_mesh(section, jax.devices()[: np.prod(sizes)])
    batch = meshes.shard_batch(tiny.arrays(), mesh)
    split = meshes.param_shardings(params, model.logical_axes(params), mesh)
    got = {"gradients": lists(jax.jit(gradient)(jax.device_put(params, split), batch))}
    if sizes in [(1, 1, 1), (2, 4, 1), (2, 2, 2), (1, 2, 2, 2)]:
        state = init_state(model, optimizer, batch, 0, mesh, ema=0.5)
        shards = lambda: [x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state)]
        before = shards()
        step = jit_train_step(make_train_step(model, optimizer, ema=0.5), state, mesh)
        for _ in range(3):
            state, metrics = step(state, batch, np.float32(0.1))
        assert shards() == before
        got |= {"state": lists(state), "metrics": {k: float(v) for k, v in metrics.items()}}
    out["x".join(map(str, sizes))] = got
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def on_eight():
    """What meshes of up to eight fake devices compute."""
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
    command = [sys.executable, "-W", "error", "-c", ON_EIGHT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.ci
def test_gradients_are_those_of_one_device(on_eight):
    want = on_eight["1x1x1"]["gradients"]
    for name, got in on_eight.items():
        for a, b in zip(got["gradients"], want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("mesh", ["2x4x1", "2x2x2", "1x2x2x2"])
def test_three_updates_are_those_of_one_device(on_eight, mesh):
    one, many = on_eight["1x1x1"], on_eight[mesh]
    for name, value in one["metrics"].items():
        np.testing.assert_allclose(many["metrics"][name], value, rtol=1e-4, err_msg=name)
    for a, b in zip(many["state"], one["state"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def fake_mesh(**shape):
    """A mesh that has only sizes, for rules that ask no more."""
    return SimpleNamespace(shape=dict.fromkeys(meshes.AXES, 1) | shape)


def specs(shape, names, fsdp, monkeypatch, tensor=1):
    monkeypatch.setattr(meshes, "NamedSharding", lambda mesh, spec: spec)
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    mesh = fake_mesh(fsdp=fsdp, tensor=tensor)
    return meshes.param_shardings({"w": leaf}, {"w": names}, mesh)["w"]


@pytest.mark.parametrize(
    "shape, names, fsdp, want",
    [
        ((6, 8), ("inputs", "outputs"), 2, (None, "fsdp")),
        ((6, 8), ("inputs", "outputs"), 3, ("fsdp", None)),
        ((6, 8), ("inputs", "outputs"), 5, (None, None)),
        ((6, 8), ("inputs", "outputs"), 1, (None, None)),
        ((64, 8), ("space", "outputs"), 2, (None, "fsdp")),
        ((6, 8), None, 2, (None, None)),
    ],
)
def test_rules(shape, names, fsdp, want, monkeypatch):
    assert specs(shape, names, fsdp, monkeypatch) == PartitionSpec(*want)


@pytest.mark.parametrize(
    "shape, names, want",
    [
        # The wide side of both layers of a perceptron, so that nothing is gathered between them.
        ((6, 24), ("inputs", "outputs"), ("fsdp", "tensor")),
        ((24, 6), ("inputs", "outputs"), ("tensor", "fsdp")),
        ((7, 8), ("inputs", "outputs"), (None, "tensor")),
        ((6, 7), ("inputs", "outputs"), ("tensor", None)),
        ((8,), ("features",), ("fsdp",)),
        ((64, 64, 4, 8), (None, None, "inputs", "outputs"), (None, None, "fsdp", "tensor")),
    ],
)
def test_a_parameter_is_split_by_both_on_axes_of_their_own(shape, names, want, monkeypatch):
    assert specs(shape, names, 2, monkeypatch, tensor=2) == PartitionSpec(*want)


def test_moments_lie_where_their_weights_lie(monkeypatch):
    """Also where Muon and AdamW share the weights out."""
    monkeypatch.setattr(meshes, "NamedSharding", lambda mesh, spec: spec)
    optimizer = make_optimizer(change(base_config(), {"optim.name": "muon"}).optim)
    model = tiny.TinyModel()
    params = model.init(jax.random.PRNGKey(0), None)
    state = TrainState(jnp.zeros([]), jnp.zeros(2), params, optimizer.init(params))
    got = state_shardings(state, model, optimizer, fake_mesh(fsdp=2))

    def check(leaf, spec):
        split = [axis for axis, name in zip(leaf.shape, spec, strict=False) if name == "fsdp"]
        assert split == ([leaf.shape[-1]] if leaf.ndim == 2 and 16 in leaf.shape else [])

    jax.tree.map(check, state, got)


def test_an_unknown_logical_axis_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"logical axis of \['w'\] 'input': did you mean 'inputs'"):
        specs((6, 8), ("input", None), 2, monkeypatch)
    with pytest.raises(UserError, match="has logical axes"):
        specs((6, 8), ("inputs",), 2, monkeypatch)


def test_a_batch_that_the_mesh_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"batch_size=6 does not divide over 4 devices.*use 4 or 8"):
        meshes.check_batch_size(6, fake_mesh(data=2, fsdp=2))
    with pytest.raises(UserError, match="use 4"):
        meshes.check_batch_size(2, fake_mesh(data=2, fsdp=2))
    meshes.check_batch_size(4, fake_mesh(data=2, fsdp=2, tensor=8))  # which see the same windows


def test_a_mesh_that_the_devices_do_not_make_is_refused():
    with pytest.raises(UserError, match="does not make 1, the number of devices"):
        meshes.make_mesh(SimpleNamespace(data=1, fsdp=2, tensor=1, cells=1), jax.devices()[:1])


def test_what_is_left_goes_to_the_axis_that_asks():
    mesh = meshes.make_mesh(SimpleNamespace(data=1, fsdp=1, tensor=-1, cells=1), jax.devices()[:1])
    assert dict(mesh.shape) == dict.fromkeys(meshes.AXES, 1)


class Device:
    """Of another process: a name in a mesh, on which nothing runs."""

    platform = device_kind = "cpu"  # which jax 0.11 reads

    def __init__(self, number, process):
        self.id, self.process_index = number, process


def rows_of(processes, batch_size, **sizes):
    """The rows of each process, of which ``processes`` says how many devices it has."""
    owners = [process for process, count in enumerate(processes) for _ in range(count)]
    devices = [Device(i, process) for i, process in enumerate(owners)]
    section = SimpleNamespace(**(dict.fromkeys(meshes.AXES, 1) | {"data": -1} | sizes))
    mesh = meshes.make_mesh(section, devices)
    return [meshes.rows_of_process(mesh, batch_size, p) for p in range(len(processes))]


@pytest.mark.parametrize(
    "processes, sizes, want",
    [
        ((4,), {"fsdp": 2}, [range(8)]),
        ((2, 2), {}, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ((2, 2), {"fsdp": 2}, [(0, 1, 4, 5), (2, 3, 6, 7)]),
        ((2, 2), {"fsdp": 4}, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ((4, 4), {"fsdp": 2}, [(0, 1, 4, 5), (2, 3, 6, 7)]),
        ((2, 2), {"tensor": 2}, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ((2, 2), {"tensor": 4}, [range(8), range(8)]),  # they share the work on all of them
        ((2, 2), {"cells": 2}, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ((1, 1, 1, 1), {"cells": 2}, [(0, 1, 2, 3)] * 2 + [(4, 5, 6, 7)] * 2),
        ((1, 1, 1, 1), {"tensor": 2}, [(0, 1, 2, 3)] * 2 + [(4, 5, 6, 7)] * 2),
        ((6, 6), {"tensor": 3}, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ((4, 4, 4), {"tensor": 3}, [(0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7)]),
    ],
)
def test_a_process_reads_the_rows_that_its_devices_hold(processes, sizes, want):
    assert rows_of(processes, 8, **sizes) == [tuple(rows) for rows in want]


def test_a_process_without_rows_is_one_sentence():
    with pytest.raises(UserError, match="process 1 has no device in the mesh .*; use the devices"):
        rows_of((4, 0), 8)


def test_processes_with_more_devices_than_others_are_refused():
    with pytest.raises(UserError, match="process 0 has 3, process 1 has 1; start each with"):
        rows_of((3, 1), 8)


def test_a_batch_carries_every_modality_present_or_not():
    arrays = tiny.arrays(batch=2, frames=3)
    arrays |= {"camera": np.ones((2, 3, 3), np.float32), "camera_mask": arrays["mask"]}
    batch = meshes.to_batch(arrays)
    for name, size in CONDITION_SIZES.items():
        signal = getattr(batch.conditions, name)
        assert signal.value.shape == (2, 3, size)
        assert bool(signal.mask.all()) == (name == "camera")
    arrays["camera"] = np.ones((2, 3, 5), np.float32)
    with pytest.raises(UserError, match="'camera' of this data set has 5 numbers"):
        meshes.to_batch(arrays)
