"""What every time layer of the parallel stack promises, whatever its mathematics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax.models.dynamics.contract import reset
from wm_jax.models.dynamics.gated_delta import GatedDeltaLayer
from wm_jax.models.dynamics.mamba2 import Mamba2Layer
from wm_jax.models.dynamics.s5 import S5Layer
from wm_jax.models.dynamics.transformer import WindowAttention
from wm_jax.shapes import time_major

B, T, N, D = 2, 10, 3, 8
CUT = 6

#: Chunks and windows that 10 steps are no multiple of, and shorter than.
LAYERS = {
    "s5": S5Layer(state=8, blocks=2),
    "mamba2": Mamba2Layer(heads=2, state=3, chunk=4),
    "gated_delta": GatedDeltaLayer(heads=2, chunk=4),
    "transformer": WindowAttention(heads=2, window=4),
}


class Case:
    """A layer with parameters, inputs, and a state that other frames left behind."""

    def __init__(self, layer):
        self.layer = layer
        random = np.random.default_rng(0)
        self.x = jnp.asarray(random.normal(size=(B, T, N, D)), jnp.float32)
        self.fresh = layer.initial(B, N, D)
        self.variables = random_variables(layer, self.x, self.fresh, jnp.zeros((B, T), bool))
        self.apply = quick_jit(layer.apply)
        self.by_steps = quick_jit(self.steps)
        earlier = jnp.asarray(random.normal(size=(B, 5, N, D)), jnp.float32)
        _, self.used = self.apply(self.variables, earlier, self.fresh, flags(5))

    def run(self, x=None, state=None, is_first=None):
        x = self.x if x is None else x
        is_first = flags(x.shape[1]) if is_first is None else is_first
        return self.apply(self.variables, x, self.used if state is None else state, is_first)

    def steps(self, variables, state, is_first):
        def body(state, inputs):
            x, is_first = inputs
            state = reset(state, self.fresh, is_first)
            out, state = self.layer.apply(variables, x[:, None], state, flags(1))
            return state, out[:, 0]

        state, out = jax.lax.scan(body, state, time_major((self.x, is_first)))
        return jnp.swapaxes(out, 0, 1), state


def flags(time, *starts):
    """``is_first`` (b, time) with starts at (stream, t)."""
    is_first = np.zeros((B, time), bool)
    for start in starts:
        is_first[start] = True
    return jnp.asarray(is_first)


@pytest.fixture(scope="module", params=sorted(LAYERS))
def case(request):
    return Case(LAYERS[request.param])


def assert_close(a, b, tolerance=1e-4):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


STARTS = {"none": (), "one": ((1, CUT),), "many": ((0, 0), (1, 2), (1, 3), (1, CUT), (0, T - 1))}


@pytest.mark.parametrize("starts", sorted(STARTS))
def test_window_is_repeated_step(case, starts):
    is_first = flags(T, *STARTS[starts])
    steps = case.by_steps(case.variables, case.used, is_first)
    assert_close(case.run(is_first=is_first), steps)


def test_gradients_are_those_of_repeated_step(case):
    is_first = flags(T, (1, CUT))
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(B, T, N, D)), jnp.float32)
    floats = [leaf for leaf in jax.tree.leaves(case.used) if leaf.dtype == jnp.float32]

    def put(floats):
        left = iter(floats)
        pick = lambda leaf: next(left) if leaf.dtype == jnp.float32 else leaf  # noqa: E731
        return jax.tree.map(pick, case.used)

    def by_window(variables, floats):
        out, _ = case.layer.apply(variables, case.x, put(floats), is_first)
        return (weight * out).sum()

    def by_steps(variables, floats):
        out, _ = case.steps(variables, put(floats), is_first)
        return (weight * out).sum()

    a, b = (quick_jit(jax.grad(f, (0, 1)))(case.variables, floats) for f in (by_window, by_steps))
    assert_close(a, b, 1e-3)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(a))


def test_windows_in_two_parts(case):
    """State handed from one window to the next is all that it takes, wherever the cut."""
    is_first = flags(T, (0, 1), (1, CUT))
    whole, last = case.run(is_first=is_first)
    for cut in (1, CUT):
        first, state = case.run(case.x[:, :cut], is_first=is_first[:, :cut])
        second, state = case.run(case.x[:, cut:], state, is_first[:, cut:])
        assert_close((jnp.concatenate([first, second], 1), state), (whole, last))


def test_a_start_is_exact(case):
    """Bit for bit, neither what came before it nor the state carried in matters."""
    is_first = flags(T, (0, CUT), (1, CUT + 2))
    a, last_a = case.run(is_first=is_first)
    junk = jax.tree.map(lambda x: x + 3 * jnp.ones_like(x), case.used)
    b, last_b = case.run(case.x.at[:, :CUT].multiply(-3), junk, is_first)
    after = [(0, slice(CUT, T)), (1, slice(CUT + 2, T))]
    assert_same(([a[at] for at in after], last_a), ([b[at] for at in after], last_b))
    assert np.all(np.any(a[:, :CUT] != b[:, :CUT], (2, 3)))


def test_a_start_is_a_fresh_start(case):
    out, last = case.run(is_first=flags(T, (0, CUT), (1, CUT)))
    fresh, fresh_last = case.run(case.x[:, CUT:], case.fresh)
    assert_close((out[:, CUT:], last), (fresh, fresh_last))


def test_no_gradient_from_the_future_or_across_a_start(case):
    is_first = flags(T, (0, 2), (1, 2))

    @quick_jit
    def gradient(x):
        late = lambda x: case.layer.apply(case.variables, x, case.used, is_first)[0][:, CUT]  # noqa: E731
        return jax.vjp(late, x)[1](jnp.ones((B, N, D)))[0]

    got = gradient(case.x)
    assert not np.any(got[:, CUT + 1 :])
    assert not np.any(got[:, :2])
    assert np.all(np.any(got[:, CUT - 1 : CUT + 1], (2, 3)))


def test_cells_and_streams_do_not_mix(case):
    other = case.x.at[0, :, 1].multiply(-2)
    a, b = case.run()[0], case.run(other)[0]
    assert_same(a[:, :, ::2], b[:, :, ::2])
    assert_same(a[1], b[1])
    assert np.any(a[0, :, 1] != b[0, :, 1])


def test_state_is_small_constant_and_float32_or_a_count(case):
    _, state = case.run()
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert describe(state) == describe(case.fresh)
    for leaf in jax.tree.leaves(state):
        assert leaf.shape[0] == B and leaf.dtype in (jnp.float32, jnp.int32)


def test_exports_with_a_symbolic_batch(case):
    (b,) = jax.export.symbolic_shape("b")
    spec = lambda shape, dtype: jax.ShapeDtypeStruct((b, *shape[1:]), dtype)  # noqa: E731
    state = jax.tree.map(lambda leaf: spec(leaf.shape, leaf.dtype), case.fresh)
    for time in (1, T):
        inputs = (spec((B, time, N, D), jnp.float32), state, spec((B, time), bool))
        program = jax.export.export(jax.jit(case.layer.apply), platforms=("cpu", "cuda", "tpu"))
        exported = program(case.variables, *inputs)
        got = exported.call(case.variables, case.x[:1, :time], _first(case.used), flags(time)[:1])
        expected = case.run(case.x[:, :time])
        assert_close(got, _first(expected))


def _first(tree):
    return jax.tree.map(lambda leaf: leaf[:1], tree)
