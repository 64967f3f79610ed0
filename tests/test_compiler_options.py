"""What XLA is told for an update of the default, on a CPU that understands it."""

from types import SimpleNamespace

import jax
import pytest

from tests import tiny
from wm_jax import kept, train_step
from wm_jax import mesh as meshes
from wm_jax.config import base_config, change
from wm_jax.models import build


@pytest.fixture
def mesh():
    return meshes.make_mesh(base_config().mesh, jax.devices()[:1])


def test_it_is_for_models_of_small_operations_alone(mesh, monkeypatch):
    monkeypatch.setattr(train_step, "_understood", lambda: {"an_option": False})
    slots, rssm = (
        build(change(base_config(), {"model.name": name, "model.size": "debug"}).model)
        for name in ("grid_slots", "rssm")
    )
    assert train_step.compiler_options(slots, mesh) == {"an_option": False}
    assert not train_step.compiler_options(rssm, mesh)
    assert not train_step.compiler_options(tiny.TinyModel(), mesh)


def test_a_chip_is_told_nothing():
    chips = SimpleNamespace(flat=[SimpleNamespace(platform="tpu")])
    model = SimpleNamespace(small_operations=True)
    assert not train_step.compiler_options(model, SimpleNamespace(devices=chips))


def test_an_option_that_xla_does_not_know_is_not_given(monkeypatch):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    understood = train_step._understood.__wrapped__
    assert understood() in ({}, {"xla_cpu_use_fusion_emitters": False})
    monkeypatch.setattr(train_step.jax, "jit", refuse)
    assert not understood()


def test_a_program_compiled_otherwise_is_another_one(mesh):
    lowered = jax.jit(lambda x: x + 1).lower(1)
    names = {
        kept.compiled(lowered, mesh, options)[1] for options in ({}, {"a": True}, {"a": False})
    }
    assert len(names) == 3
