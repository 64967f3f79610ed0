"""Encoders: what each reads, and which combinations are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import conv_general_dilated

from tests.models.quick import quick_jit, random_variables
from wm_jax import models
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.models.encoder_conv import ConvEncoder, PooledConv, StridedConv
from wm_jax.models.encoder_vit import VitEncoder
from wm_jax.shapes import Batch, no_conditions

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_strided_conv_is_a_convolution_with_a_stride_of_two(kernel):
    x = jnp.asarray(RANDOM.normal(size=(2, 8, 6, 3)), jnp.float32)
    module = StridedConv(5, kernel)
    variables = random_variables(module, x)
    weights, bias = variables["params"]["kernel"], variables["params"]["bias"]
    axes = ("NHWC", "HWIO", "NHWC")
    expected = conv_general_dilated(x, weights, (2, 2), "SAME", dimension_numbers=axes) + bias
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_pooled_conv_is_a_convolution_and_its_gradient_with_a_max_pool():
    x = jnp.asarray(RANDOM.normal(size=(2, 8, 12, 3)), jnp.float32)
    module = PooledConv(5)
    variables = random_variables(module, x)

    def expected(variables):
        weights, bias = variables["params"]["kernel"], variables["params"]["bias"]
        axes = ("NHWC", "HWIO", "NHWC")
        y = conv_general_dilated(x, weights, (1, 1), "SAME", dimension_numbers=axes) + bias
        return y.reshape(2, 4, 2, 6, 2, 5).max((2, 4))

    np.testing.assert_allclose(module.apply(variables, x), expected(variables), atol=1e-5)
    ours, theirs = (
        jax.grad(lambda v, f=f: jnp.sin(f(v)).sum())(variables)["params"]["kernel"]
        for f in (lambda v: module.apply(v, x), expected)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_strided_and_pooled_encoders_make_the_same_grid():
    frames = jnp.zeros((2, 3, 16, 16, 3))
    for strided in (False, True):
        module = ConvEncoder(depth=2, mults=(1, 2), strided=strided)
        out = jax.eval_shape(lambda m=module: m.init_with_output(jax.random.key(0), frames)[0])
        assert out.shape == (2, 3, 16, 4)


def test_every_cell_of_vit_reads_the_whole_frame_and_knows_its_place():
    module = VitEncoder(patch=4, width=8, depth=1, heads=2)
    frames = jnp.asarray(RANDOM.random((2, 1, 8, 12, 3)), jnp.float32)
    variables = random_variables(module, frames)
    run = quick_jit(lambda x: module.apply(variables, x))
    out = run(frames)
    assert out.shape == (2, 1, 6, 8)
    changed = run(frames.at[0, 0, 7, 11].add(0.5))
    assert np.all(np.abs(changed - out)[0, 0].max(-1) > 1e-5)
    np.testing.assert_array_equal(changed[1], out[1])
    plain = run(jnp.full_like(frames, 0.3))[0, 0]
    assert np.abs(plain[:, None] - plain).max(-1)[~np.eye(6, dtype=bool)].min() > 1e-2


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("grid_gru", {"encoder": "vit", "vit_heads": 3}, "model.embed=64 is not a multiple of"),
        ("grid_gru", {"encoder": "conv"}, "makes 4×4 cells of 64 px .* set model.patch=16"),
        ("grid_gru", {"encoder": "pool"}, "'grid_slots' goes with 'pool' and 'slots'"),
        ("grid_gru", {"decoder": "conv"}, "starts from a vector state"),
        ("grid_slots", {"encoder": "vit"}, "'grid_slots' goes with 'pool' and 'slots'"),
        ("grid_slots", {"dynamics.train_pool": 3}, "train_pool=3 does not divide .*pool=4"),
        ("grid_slots", {"dynamics.train_pool": 2}, "looks are read .* set sight=24"),
        ("rssm", {"encoder": "conv", "resolution": 24}, "halved 4 times"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(name, changes, words):
    config = change(base_config(name), {f"model.{key}": value for key, value in changes.items()})
    with pytest.raises(UserError, match=words) as error:
        models.build(config.model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("grid_gru", {"encoder": "vit", "vit_depth": 1}),
        ("grid_gru", {"encoder": "conv", "patch": 16, "conv_strided": True}),
        ("rssm", {"encoder": "conv", "decoder": "conv", "conv_strided": True}),
    ],
)
def test_encoders_fit_their_backbones(name, changes):
    """From frames to a loss of the whole model, without computing any."""
    config = change(base_config(name), {f"model.{key}": value for key, value in changes.items()})
    model = models.build(config.model)
    frames = jnp.zeros((2, 8, 64, 64, 3), jnp.uint8)
    flags = jnp.ones((2, 8), bool)
    batch = Batch(frames, ~flags, flags, no_conditions(2, 8))
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    loss = jax.eval_shape(model.loss, params, batch, jax.random.key(0))[0]
    assert loss.shape == ()
