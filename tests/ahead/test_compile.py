"""`wm-jax compile`: its choices and its refusals; with libtpu, real compiles."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from tests import tiny
from wm_jax import __main__ as cli
from wm_jax import mesh as meshes
from wm_jax.ahead import cli as cli_of_compile
from wm_jax.ahead import program, report
from wm_jax.ahead.chips import topology
from wm_jax.ahead.cli import axes
from wm_jax.config import load
from wm_jax.errors import UserError
from wm_jax.optim import make_optimizer
from wm_jax.train_step import abstract_state, init_state

ROOT = Path(__file__).parent.parent.parent
DEBUG = "experiments/configs/scale.py:debug"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'wm_jax[libtpu]'",
)


def test_an_unknown_topology_is_one_sentence(capsys):
    assert cli.main(["compile", "--config", DEBUG, "--topology", "v5p:4x4x5"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "wm-jax compile: unknown topology 'v5p:4x4x5': the nearest are v5p:4x4x"
    )


def test_without_libtpu_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'wm_jax\[libtpu\]'"):
        program.devices(topology("v5e:2x2"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model=2", "no axis 'model'"),
        ("data=x", "'x' is not a number"),
        ("data=0", "at least 1"),
        ("64", "no axis '64'"),
    ],
)
def test_a_mesh_that_is_none_is_refused(text, why):
    with pytest.raises(UserError, match=why):
        axes(text)
    assert axes("data=4,fsdp=16") == {"data": 4, "fsdp": 16}
    assert axes("tensor=4") == {"tensor": 4}


def test_the_largest_batch_lies_on_the_line():
    # 10 bytes are there without a window, each takes 2; of 64 chips.
    assert report.fitted((64, 128), (138, 266), 1000, 64) == 448
    assert report.fitted((64, 128), (138, 266), 137, 64) == 0
    assert report.fitted((64, 128), (138, 138), 1000, 64) is None


def task(*changes):
    chips = [SimpleNamespace(process_index=i // 4) for i in range(8)]
    return report.Task(load(DEBUG, changes), topology("v5e:2x4"), chips, 8)


def test_the_mesh_of_a_task_is_the_text_s_or_else_the_configs(capsys):
    sizes = cli_of_compile.on_mesh(task(), "data=2,tensor=4", print).config.mesh
    assert (sizes.data, sizes.fsdp, sizes.tensor) == (2, 1, 4)
    with pytest.raises(UserError, match="at most one axis may be -1"):
        cli_of_compile.on_mesh(task(), "tensor=-1", print)
    for text, changes in (("auto", ()), (None, ["--config.mesh.auto=true"])):
        sizes = cli_of_compile.on_mesh(task(*changes), text, print).config.mesh
        assert (sizes.data, sizes.fsdp, sizes.tensor, sizes.auto) == (8, 1, 1, False)
        assert "data=8 (the weights fit every device" in capsys.readouterr().out
    assert cli_of_compile.on_mesh(task(), None, print).config.mesh.fsdp == -1


def test_a_refusal_for_memory_is_read():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
    )
    there = int(15.75 * 2**30)
    assert program.out_of_memory(message) == ({"total": int(20.5 * 2**30)}, there)
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (122.21G) exceeds available HBM (15.75G)."
    )
    assert program.out_of_memory(message) == ({"temporaries": int(122.21 * 2**30)}, there)
    assert program.out_of_memory("INTERNAL: something else") is None


def test_the_abstract_state_is_the_real_one_without_its_arrays():
    model, settings = tiny.TinyModel(), tiny.config()
    mesh = meshes.make_mesh(settings.mesh, jax.devices()[:1])
    optimizer, batch = make_optimizer(settings.optim), meshes.to_batch(tiny.arrays())
    real = init_state(model, optimizer, batch, 0, mesh, ema=0.9)
    abstract = abstract_state(model, optimizer, batch, 0, mesh, ema=0.9)
    assert jax.tree.structure(abstract) == jax.tree.structure(real)

    def same(want, got):
        assert isinstance(got, jax.ShapeDtypeStruct)
        assert (got.shape, got.dtype, got.sharding) == (want.shape, want.dtype, want.sharding)

    jax.tree.map(same, real, abstract)


def test_every_size_of_scale_has_heads_as_wide_as_the_matrix_units():
    for size in ("200m", "1b", "7b"):
        config = load(f"experiments/configs/scale.py:{size}")
        assert config.model.dynamics.width == 128 * config.model.dynamics.heads
        assert config.model.dynamics.window == config.data.window


def compiled(*options):
    """The verb in a process of its own, for libtpu stays in the one that loads it."""
    command = [sys.executable, "-m", "wm_jax", "compile", "--config", DEBUG, *options, "--json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.ci
def test_the_real_step_compiles_for_four_chips():
    found = compiled("--topology", "v5e:2x2")
    assert found["fits"] and found["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1, "cells": 1}
    assert 0 < found["predicted_mfu"] < 1 and found["step_seconds"] > 0
    memory = found["memory_per_chip"]
    assert found["hbm_bytes_per_chip"] == memory["total"] < 16 * 2**30
    assert memory["temporaries"] > 0 and memory["shared"] <= memory["outputs"]
    assert found["collectives"]["all-gather"]["bytes_sent"] > 0
    assert found["largest_batch"]["windows"] % 4 == 0
    # Without remat the program does what the model does.
    assert found["flops"]["model"] == found["flops"]["program"] > 0


@needs_libtpu
@pytest.mark.slow
def test_a_step_that_does_not_fit_says_what_it_would_need():
    found = compiled("--topology", "v5e:2x2", "--batch", "4096", "--no-largest")
    assert not found["fits"] and found["predicted_mfu"] is None
    assert found["hbm_bytes_per_chip"] > found["hbm_bytes_limit"]


@needs_libtpu
@pytest.mark.slow
def test_the_sweep_puts_the_fastest_first():
    found = compiled("--topology", "v5e:2x2", "--sweep", "--no-largest")
    assert len(found["sweep"]) == 6  # tensor, then fsdp: 1 (1, 2, 4), 2 (1, 2), 4 (1)
    assert found["step_seconds"] == min(r["step_seconds"] for r in found["sweep"])
