"""S5 against the system in continuous time that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.special

from tests.models.quick import quick_jit, random_variables
from wm_jax.errors import UserError
from wm_jax.models.dynamics.s5 import S5Layer, hippo_frequencies

B, T, N, D, P = 2, 9, 2, 6, 8
LAYER = S5Layer(state=P, blocks=2)


@pytest.fixture(scope="module")
def run():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, N, D)), jnp.float32)
    state, is_first = LAYER.initial(B, N, D), jnp.zeros((B, T), bool)
    variables = random_variables(LAYER, x, state, is_first)
    variables["params"]["log_step"] = jnp.asarray([-2.0, -1.0, 0.0, 0.5])
    variables["params"]["frequency"] = jnp.asarray([0.3, -1.0, 4.0, 9.0])
    return variables["params"], x, LAYER.apply(variables, x, state, is_first)


def norm(x, scale):
    return scale * x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)


def pulse_responses(params, steps):
    """The system's real-valued answer (steps, d, d) to a pulse of one frame on each input: the
    exponential of its real 2×2 blocks, integrated numerically over the frame."""
    b, c = (np.asarray(params[name]["kernel"], np.float64) for name in "BC")
    half = P // 2
    answers = np.zeros((steps, D, D))
    for mode in range(half):
        re, im = -np.exp(params["log_decay"][mode]), params["frequency"][mode]
        block = np.array([[re, -im], [im, re]], np.float64)  # multiplication by re + i im
        step = float(np.exp(params["log_step"][mode]))
        held, _ = scipy.integrate.quad_vec(lambda tau, a=block: scipy.linalg.expm(a * tau), 0, step)
        parts = [mode, half + mode]
        for t in range(steps):
            answers[t] += b[:, parts] @ (scipy.linalg.expm(block * step * t) @ held).T @ c[parts]
    return answers


def test_output_is_the_convolution_with_the_continuous_pulse_response(run):
    params, x, (out, state) = run
    u = norm(np.asarray(x, np.float64), params["RMSNorm_0"]["scale"])
    kernel = pulse_responses(params, T)
    y = np.stack(
        [sum(u[:, s] @ kernel[t - s] for s in range(t + 1)) for t in range(T)], 1
    ) + np.asarray(params["D"] * u)
    hidden = np.asarray(jax.nn.gelu(jnp.float32(y)))
    value, gate = np.split(hidden @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 2, -1)
    np.testing.assert_allclose(out, value * scipy.special.expit(gate), rtol=1e-3, atol=1e-4)
    assert state.shape == (B, N, P)


def test_modes_of_the_start_are_those_of_hippo():
    """−½ ± iω are the eigenvalues of HiPPO-LegS with its rank-one part added back."""
    i = np.arange(12)
    root = np.sqrt(2 * i + 1)
    legs = -(np.tril(np.outer(root, root), -1) + np.diag(i + 1))
    eigenvalues = np.linalg.eigvals(legs + np.outer(root, root) / 2)
    np.testing.assert_allclose(eigenvalues.real, -0.5, atol=1e-8)
    omega = np.sort(eigenvalues.imag)[6:]
    np.testing.assert_allclose(hippo_frequencies(12), omega, rtol=1e-5)


def test_a_start_is_stable_and_remembers_for_1_to_70_frames():
    layer = S5Layer(state=64, blocks=8)
    x = jnp.zeros((1, 1, 1, D))
    state = layer.initial(1, 1, D)
    init = quick_jit(layer.init)
    params = init(jax.random.key(0), x, state, jnp.zeros((1, 1), bool))["params"]
    half_lives = np.log(2) / np.exp(params["log_decay"] + params["log_step"])
    assert 1.3 < half_lives.min() < 3 and 40 < half_lives.max() < 70
    assert params["frequency"].shape == (32,) and np.all(params["frequency"] > 0)


def test_a_state_that_is_not_whole_pairs_is_refused():
    layer = S5Layer(state=12, blocks=8)
    x = jnp.zeros((1, 1, 1, D))
    with pytest.raises(UserError, match="s5: state 12 is not whole conjugate pairs in 8 blocks"):
        layer.init(jax.random.key(0), x, layer.initial(1, 1, D), jnp.zeros((1, 1), bool))
