"""Every backbone in the registry keeps the contract of `wm_jax.models.dynamics.contract`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.models import build
from wm_jax.models.dynamics import DYNAMICS
from wm_jax.models.dynamics.contract import reset
from wm_jax.shapes import time_major

B, T, CELLS, E, K = 3, 6, (2, 3), 5, 4
CUT = 3  # where windows are reset or stop being observed

SEEN, NO_RESET = jnp.ones((B, T), bool), jnp.zeros((B, T), bool)
OBSERVED = {
    "all": None,
    "context": jnp.asarray(np.broadcast_to(np.arange(T) < CUT, (B, T))),
    "by stream": jnp.asarray(np.random.default_rng(1).random((B, T)) < 0.5),
}

#: Small sizes, to be quick. A backbone that isn't listed is tested at its defaults.
SMALL = {
    "slot_attention": {"width": 8, "slots": 3, "heads": 2, "hidden": 12, "iterations": 2},
    "rssm": {"deter": 16, "hidden": 8, "stoch": 3, "classes": 4, "prior_layers": 1},
    "grid_linear": {"width": 8, "hidden": 16, "layers": 2},
    "grid_gru": {"width": 8, "hidden": 12},
    "s5": {"width": 8, "hidden": 8, "layers": 1, "state": 8, "blocks": 2},
    "mamba2": {"width": 8, "hidden": 8, "layers": 1, "heads": 2, "state": 3, "chunk": 4},
    "gated_delta": {"width": 8, "hidden": 8, "layers": 1, "heads": 2, "chunk": 4},
    "transformer": {"width": 8, "hidden": 8, "layers": 1, "heads": 2, "window": 4},
    "grid_slots": {
        "width": 8,
        "hidden": 8,
        "slots": 3,
        "pool": 1,
        "sight": 3,
        "channels": E,
        "told_size": K,
    },
}

#: Options of a backbone, by what they are called here: changes to its small size.
VARIANTS: dict[str, dict[str, dict]] = {
    "grid_gru": {
        "attention": {"mixing": "attention", "mixing_heads": 2},
        "places": {"places": True},
    },
    "grid_linear": {
        "categorical, attention": {
            "latent": "categorical",
            "stoch": 2,
            "classes": 3,
            "layers": 1,
            "mixing": "attention",
            "mixing_heads": 2,
        },
        "fsq": {"latent": "fsq", "stoch": 3, "classes": 4, "layers": 1},
        "gaussian, carry": {"latent": "gaussian", "stoch": 3, "layers": 1, "posterior": "carry"},
    },
    "rssm": {
        "gaussian, frame": {"latent": "gaussian", "posterior": "frame", "temperature": 0.5},
        "fsq": {"latent": "fsq"},
    },
}
#: What goes wrong in a variant of a backbone: changes, and a key that the refusal names.
REFUSED = [
    ("grid_gru", {"mixing": "global"}, "mixing"),
    ("grid_gru", {"width": 12, "mixing": "attention", "mixing_heads": 2}, "mixing_heads"),
    ("grid_linear", {"posterior": "prior"}, "posterior"),
    ("grid_linear", {"posterior": "carry", "passes": 1}, "passes"),
    ("grid_linear", {"latent": "vector"}, "latent"),
    ("grid_linear", {"mixing": "attention"}, "mixing_heads"),
    ("rssm", {"latent": "fsq", "classes": 2}, "classes"),
    ("rssm", {"latent": "deterministic"}, "latent"),
    ("rssm", {"posterior": "both"}, "posterior"),
]


def at_first(t: int, stream=slice(None)):
    """``is_first`` with a start at t."""
    is_first = np.zeros((B, T), bool)
    is_first[stream, t] = True
    return jnp.asarray(is_first)


class Case:
    """A backbone with parameters and a window of random inputs."""

    def __init__(self, name: str, variant: str | None):
        changes = VARIANTS[name][variant] if variant else {}
        self.module = DYNAMICS[name](cells=CELLS, **SMALL.get(name, {}) | changes)
        random = np.random.default_rng(0)
        shape = (B, T, CELLS[0] * CELLS[1], E)
        self.embeddings = jnp.asarray(random.normal(size=shape), jnp.float32)
        self.told = jnp.asarray(random.normal(size=(B, T, K)), jnp.float32)
        self.keys = jax.random.split(jax.random.key(0), T)
        self.start = self.module.initial(B)
        inputs = (self.start, self.embeddings[:, 0], None, self.told[:, 0], None)
        self.variables = random_variables(self.module, *inputs, method="step")
        self._step = quick_jit(lambda v, *a: self.module.apply(v, *a, method="step"))
        self._scan = quick_jit(lambda v, *a: self.module.apply(v, *a, method="scan"))
        self._gradients = quick_jit(self._gradients_at_cut)

    def scan(self, embeddings=None, observed=None, is_first=None, keys=None, carry=None):
        embeddings = self.embeddings if embeddings is None else embeddings
        is_first = NO_RESET if is_first is None else is_first
        carry = self.start if carry is None else carry
        return self._scan(self.variables, carry, embeddings, observed, self.told, is_first, keys)

    def step(self, carry, t, embedding, observed, key):
        return self._step(self.variables, carry, embedding, observed, self.told[:, t], key)

    def gradients(self, observed=None):
        """∂ tokens[:, CUT] (as far as the frame there corrects them) and ∂ prior[:, CUT], each
        projected at random, by embeddings."""
        return self._gradients(observed)

    def _gradients_at_cut(self, observed):
        def at_cut(embeddings):
            arguments = (self.start, embeddings, observed, self.told, NO_RESET, self.keys)
            _, out = self.module.apply(self.variables, *arguments, method="scan")
            return out.tokens[:, CUT], out.prior[:, CUT]

        (tokens, _), pull = jax.vjp(at_cut, self.embeddings)
        corrected = getattr(self.module, "deter", 0)  # the rest of a token came before the frame
        some, none = jax.random.normal(jax.random.key(1), tokens.shape), jnp.zeros_like(tokens)
        some = some.at[..., :corrected].set(0.0)
        return pull((some, none))[0], pull((none, some))[0]


CASES = [
    (name, variant) for name in sorted(DYNAMICS) for variant in (None, *VARIANTS.get(name, ()))
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: ": ".join(filter(None, case)))
def case(request):
    return Case(*request.param)


def assert_close(a, b, tolerance=1e-4):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("sampled", [False, True], ids=["mode", "sampled"])
@pytest.mark.parametrize("watched", sorted(OBSERVED))
def test_scan_is_repeated_step(case, watched, sampled):
    observed, keys = OBSERVED[watched], case.keys if sampled else None
    is_first = at_first(0) | at_first(CUT - 1, 1)
    last, out = case.scan(observed=observed, is_first=is_first, keys=keys)
    carry, steps = case.start, []
    for t in range(T):
        carry = reset(carry, case.start, is_first[:, t])
        key = None if keys is None else keys[t]
        seen = None if observed is None else observed[:, t]
        carry, one = case.step(carry, t, case.embeddings[:, t], seen, key)
        steps.append(one)
    assert_close(out, jax.tree.map(lambda *x: np.stack(x, 1), *steps))
    assert_close(last, carry)


def test_scan_has_the_gradients_of_repeated_step(case):
    def by_scan(variables):
        arguments = (case.embeddings, None, case.told, NO_RESET, case.keys)
        _, out = case.module.apply(variables, case.start, *arguments, method="scan")
        return jnp.sin(out.tokens).sum() + jnp.sin(out.prior).sum()

    def by_steps(variables):
        def body(carry, inputs):
            embedding, told, key = inputs
            arguments = (carry, embedding, None, told, key)
            carry, out = case.module.apply(variables, *arguments, method="step")
            return carry, jnp.sin(out.tokens).sum() + jnp.sin(out.prior).sum()

        inputs = (*time_major((case.embeddings, case.told)), case.keys)
        return jax.lax.scan(body, case.start, inputs)[1].sum()

    a, b = (quick_jit(jax.grad(loss))(case.variables) for loss in (by_scan, by_steps))
    assert_close(a, b, 1e-3)


def test_flags_that_are_all_true_change_nothing(case):
    a = case.scan(is_first=at_first(CUT, 1), keys=case.keys)
    b = case.scan(is_first=at_first(CUT, 1), keys=case.keys, observed=SEEN)
    assert_close(a, b)


@pytest.mark.parametrize("watched", sorted(OBSERVED))
def test_nothing_crosses_a_reset(case, watched):
    """Bit for bit, what was before a reset does not matter, nor does the carry at the start."""
    other = case.embeddings.at[:, :CUT].multiply(-3)
    carry = jax.tree.map(lambda x: x + jnp.ones_like(x), case.start)
    window = {"is_first": at_first(CUT), "keys": case.keys, "observed": OBSERVED[watched]}
    _, a = case.scan(**window)
    _, b = case.scan(embeddings=other, carry=carry, **window)
    assert_same(*(jax.tree.map(lambda x: x[:, CUT:], out) for out in (a, b)))
    assert not np.array_equal(a.prior[:, 1:CUT], b.prior[:, 1:CUT])


def test_reset_is_a_fresh_start(case):
    _, out = case.scan(is_first=at_first(CUT, 1), keys=case.keys)
    carry = case.start
    for t in range(CUT, T):
        carry, one = case.step(carry, t, case.embeddings[:, t], None, case.keys[t])
        assert_close(out.tokens[1, t], one.tokens[1])
        assert_close(out.prior[1, t], one.prior[1])
    _, unbroken = case.scan(keys=case.keys)
    assert_same(out.tokens[0], unbroken.tokens[0])  # the other streams go on


@pytest.mark.parametrize("observed", [None, OBSERVED["by stream"]], ids=["parallel", "flags"])
def test_no_gradient_from_the_future(case, observed):
    tokens, prior = case.gradients(observed)
    assert not np.any(tokens[:, CUT + 1 :])
    assert not np.any(prior[:, CUT:])  # nor from the frame that it predicts
    seen = slice(None) if observed is None else observed[:, CUT]
    assert np.all(np.any(tokens[seen][:, CUT], axis=(1, 2)))
    assert np.any(prior[:, :CUT])


def test_posterior_reads_carry_as_declared(case):
    tokens, _ = case.gradients()
    assert bool(np.any(tokens[:, :CUT])) == case.module.posterior_reads_carry


def test_unseen_frames_do_not_matter(case):
    observed = OBSERVED["by stream"]
    other = jnp.where(observed[..., None, None], case.embeddings, 1e3)
    a = case.scan(observed=observed, keys=case.keys)
    b = case.scan(embeddings=other, observed=observed, keys=case.keys)
    assert_same(a, b)


def test_imagination_is_a_step_that_sees_nothing(case):
    carry, _ = case.scan(keys=case.keys)
    nobody = jnp.zeros(B, bool)
    blind = case.step(carry, 0, case.embeddings[:, 0], nobody, case.keys[0])
    imagined = case.step(carry, 0, None, None, case.keys[0])
    assert_close(imagined, blind, 1e-6)
    for out in (blind[1], imagined[1]):
        assert_same(out.tokens, out.prior)


def test_tokens_belong_to_the_carry(case):
    carry, out = case.scan(observed=OBSERVED["by stream"], keys=case.keys)
    tokens = case.module.apply(case.variables, carry, method="tokens")
    assert_close(tokens, out.tokens[:, -1], 1e-6)


def test_shapes(case):
    carry, out = case.scan(keys=case.keys)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert describe(carry) == describe(case.start)  # the size never depends on time
    assert out.tokens.shape == out.prior.shape
    tokens = out.tokens.shape[2]
    if hasattr(case.module, "address"):
        assert case.module.address(carry).shape == (B, tokens, 2)
    else:
        assert tokens in (1, CELLS[0] * CELLS[1])
    assert out.tokens.shape[:2] == (B, T)
    _, imagined = case.step(carry, 0, None, None, None)
    assert imagined.terms.keys() == out.terms.keys()
    for term in out.terms.values():
        assert term.shape == (B, T) and term.dtype == jnp.float32
        assert np.all(np.isfinite(term)) and np.all(term >= 0)
    for term in imagined.terms.values():
        assert term.shape == (B,)


def test_parameters_are_float32_and_a_scan_makes_the_same_as_a_step(case):
    leaves = jax.tree.leaves(case.variables)
    assert leaves and all(leaf.dtype == jnp.float32 for leaf in leaves)
    window = (case.start, case.embeddings, SEEN, case.told, NO_RESET, case.keys)
    init = functools.partial(case.module.init, method="scan")
    made = jax.eval_shape(init, jax.random.key(0), *window)
    shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)  # noqa: E731
    assert shapes(made) == shapes(case.variables)


@pytest.mark.parametrize(("name", "changes", "key"), REFUSED)
def test_what_does_not_go_together_is_refused(name, changes, key):
    module = DYNAMICS[name](cells=CELLS, **SMALL.get(name, {}) | changes)
    with pytest.raises(UserError, match=f"model.dynamics.{key}"):
        module.check()


def test_a_model_of_what_is_refused_is_not_built():
    config = change(base_config("rssm"), {"model.dynamics.latent": "vector"})
    with pytest.raises(UserError, match="model.dynamics.latent"):
        build(config.model)


def test_what_is_tested_is_not_refused(case):
    if hasattr(case.module, "check"):
        case.module.check()
