"""`model.dtype` and `model.remat` reach every backbone, and only what they should reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.models.quick import quick_jit
from wm_jax import shapes
from wm_jax.config import base_config, change
from wm_jax.models import build
from wm_jax.models.dynamics import DYNAMICS

B, T, SIDE = 2, 4, 16
BATCH = shapes.Batch(
    np.random.default_rng(0).integers(0, 256, (B, T, SIDE, SIDE, 3), np.uint8),
    np.broadcast_to(np.arange(T) == 0, (B, T)),
    np.ones((B, T), bool),
    shapes.no_conditions(B, T),
)
#: What sums over many numbers, or makes small differences large.
WIDE = {"reduce_sum", "exp", "log", "rsqrt", "reduce_max", "logsumexp", "cumsum", "erf"}


def model(name, **changes):
    config = base_config(name)
    change(config, {"model.resolution": SIDE, "model.loss.context": "all"})
    patch = 2 if name == "grid_slots" else 4
    sizes = {"model.patch": patch, "model.loss.context_low": 1}
    return build(change(config, sizes | {f"model.{k}": v for k, v in changes.items()}).model)


def loss_of(model):
    key = jax.random.PRNGKey(1)
    return lambda params: model.loss(params, BATCH, key)[0]


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for sub in jaxprs_in_params(equation.params):
            yield from equations(sub)


def traced(model):
    params = jax.eval_shape(model.init, jax.random.PRNGKey(0), BATCH)
    closed = jax.make_jaxpr(loss_of(model))(params)
    return closed, list(equations(closed.jaxpr))


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_every_backbone_rounds_products_and_nothing_that_sums(name):
    closed, found = traced(model(name, dtype="bfloat16"))
    types = {equation.primitive.name: set() for equation in found}
    for equation in found:
        types[equation.primitive.name] |= {
            str(v.aval.dtype) for v in equation.invars if hasattr(v.aval, "dtype")
        }
    assert "bfloat16" in types["dot_general"]
    assert not [primitive for primitive in WIDE & types.keys() if "bfloat16" in types[primitive]]
    assert closed.out_avals[0].dtype == jnp.float32


@pytest.mark.parametrize("name", sorted(DYNAMICS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_chip_rounds_what_is_float32(name, dtype):
    exact = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    for equation in traced(model(name, dtype=dtype))[1]:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            wide = equation.invars[0].aval.dtype == jnp.float32
            assert (equation.params["precision"] == exact) == wide


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_remat_reaches_every_backbone(name):
    def marks(**changes):
        primitives = [e.primitive.name for e in traced(model(name, **changes))[1]]
        return sum(primitive in ("checkpoint", "remat2") for primitive in primitives)

    parts = {"rssm": 2}.get(name, 3)  # encoder and decoder, of priors too where they are compared
    scans = int(name != "grid_slots")  # its filter has little gradient to keep anything for
    assert marks(remat="full") >= marks() + parts + scans


def test_the_loss_in_bfloat16_is_near_that_in_float32():
    sizes = {"deter": 32, "hidden": 16, "stoch": 4, "classes": 4}
    sizes = {f"dynamics.{key}": value for key, value in sizes.items()}
    wide, narrow = (model("rssm", dtype=dtype, **sizes) for dtype in ("float32", "bfloat16"))
    params = wide.init(jax.random.PRNGKey(0), BATCH)
    exact, near = (float(quick_jit(loss_of(m))(params)) for m in (wide, narrow))
    assert exact != near and abs(near / exact - 1) < 0.01
