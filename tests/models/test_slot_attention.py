"""Slot attention against its algorithm in plain numpy, and the decoders that paint by slots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax import models
from wm_jax.config import base_config, change
from wm_jax.errors import UserError
from wm_jax.models.decoder_mixture import MixtureDecoder
from wm_jax.models.decoder_slots import SlotDecoder
from wm_jax.models.dynamics.slot_attention import SOME, SlotAttention, cell_shares
from wm_jax.nn.grid import addresses

B, CELLS, E, K = 2, (2, 3), 5, 4
RANDOM = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def backbone():
    module = SlotAttention(CELLS, slots=3, width=8, hidden=12, heads=2, iterations=2)
    carry = module.initial(B)
    arguments = carry, draw(B, 6, E), None, draw(B, K), None
    return module, random_variables(module, *arguments, gain=2.0, method="step")


def test_correction_is_the_algorithm(backbone):
    module, variables = backbone
    p = jax.tree.map(np.asarray, variables["params"])
    seen = [np.asarray(x) for x in module.apply(variables, draw(B, 6, E), method="_read")]
    prior = module.initial(B)._replace(moved=draw(B, 3, 8))
    found = module.apply(variables, prior, *seen, method="_correct")

    def norm(name, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-2) * p[name]["scale"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    key, value = seen
    for b in range(B):
        slots = p["start"] + np.asarray(prior.moved[b])
        for _ in range(module.iterations):
            query = norm("query_norm", slots) @ p["query"]["kernel"]
            attention = np.exp(query @ key[b].T / np.sqrt(8))
            attention = attention / attention.sum(0, keepdims=True) + SOME
            weights = attention / attention.sum(1, keepdims=True)
            found_z, found_r, found_n = np.split(
                weights @ value[b] @ p["gates"]["kernel"] + p["gates"]["bias"], 3, -1
            )
            z, r, n = np.split(slots @ p["update"]["kernel"], 3, -1)
            z, r = sigmoid(found_z + z), sigmoid(found_r + r)
            new = np.tanh(found_n + r * n)
            slots = (1 - z) * new + z * slots
            hidden = norm("mlp_norm", slots) @ p["mlp"]["Dense_0"]["kernel"]
            hidden = hidden + p["mlp"]["Dense_0"]["bias"]
            hidden = hidden * sigmoid(hidden)
            slots = slots + hidden @ p["mlp"]["Dense_1"]["kernel"] + p["mlp"]["Dense_1"]["bias"]
        np.testing.assert_allclose(p["start"] + found.moved[b], slots, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.place[b], weights @ addresses(CELLS), atol=1e-5)


def test_slots_compete_for_cells_and_share_what_they_won():
    query, key = jnp.eye(2)[None] * 50, jnp.eye(2)[None][:, [0, 0, 1]] * 50
    np.testing.assert_allclose(cell_shares(query, key)[0], [[0.5, 0.5, 0], [0, 0, 1]], atol=1e-5)
    shares = cell_shares(draw(3, 4, 8), draw(3, 5, 8))
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    alike = cell_shares(jnp.zeros((1, 4, 8)), draw(1, 5, 8))
    np.testing.assert_allclose(alike, 0.2, rtol=1e-5)


def test_which_slot_is_which_lies_in_the_start_alone(backbone):
    module, variables = backbone
    order = np.array([2, 0, 1])
    other = {"params": variables["params"] | {"start": variables["params"]["start"][order]}}
    arguments = module.initial(B), draw(B, 6, E), None, draw(B, K), None
    run = quick_jit(lambda v: module.apply(v, *arguments, method="step")[1])
    a, b = run(variables), run(other)
    np.testing.assert_allclose(a.tokens[:, order], b.tokens, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(a.prior[:, order], b.prior, rtol=1e-4, atol=1e-4)
    assert np.abs(a.tokens[:, order] - a.tokens).max() > 1e-2


def test_a_long_rollout_never_grows(backbone):
    module, variables = backbone
    told = draw(B, K)
    start = module.initial(B)._replace(moved=5 * draw(B, 3, 8))

    @quick_jit
    def run(carry):
        def step(carry, _):
            carry = module.apply(variables, carry, None, None, told, None, method="step")[0]
            return carry, module.apply(variables, carry, method="tokens")

        return jax.lax.scan(step, carry, None, length=300)[1]

    first = np.abs(module.apply(variables, start, method="tokens")).max()
    after = np.abs(run(start))
    assert first > 1 and after.max() <= first + 1e-4


def test_mixture_is_a_mean_of_slots_by_masks_that_sum_to_one():
    module = MixtureDecoder(CELLS, patch=2, hidden=6)
    tokens = draw(2, 3, 4, 8)
    variables = random_variables(module, tokens)
    masks = module.apply(variables, tokens, method="masks")
    assert masks.shape == (2, 3, 4, 4, 6)
    np.testing.assert_allclose(masks.sum(-3), 1, rtol=1e-5)
    frames = module.apply(variables, tokens)
    alone = [module.apply(variables, tokens[..., k : k + 1, :]) for k in range(4)]
    expected = sum(masks[..., k, :, :, None] * alone[k] for k in range(4))
    np.testing.assert_allclose(frames, expected, rtol=1e-4, atol=1e-4)
    shuffled = module.apply(variables, tokens[..., [1, 3, 0, 2], :])
    np.testing.assert_allclose(frames, shuffled, rtol=1e-4, atol=1e-5)


def test_a_mask_of_grid_slots_is_where_its_colour_shows():
    module = SlotDecoder((2, 2), patch=8, resolution=16, width=5, hidden=6)
    tokens = draw(1, 4 + 3, 12)
    tokens = tokens.at[:, 4:, :3].set(jnp.array([[0.3, 0.3, 1], [0.4, 0.35, 1], [0.8, 0.7, 0.9]]))
    variables = random_variables(module, tokens)
    run = quick_jit(lambda tokens: module.apply(variables, tokens))
    masks = module.apply(variables, tokens, method="masks")
    assert masks.shape == (1, 4, 16, 16) and masks.min() >= -1e-6
    np.testing.assert_allclose(masks.sum(1), 1, rtol=1e-5)
    for slot in range(3):
        change = run(tokens.at[:, 4 + slot, 3:6].add(0.5)) - run(tokens)
        mask = masks[0, 1 + slot][..., None]
        slope = (change[0] * mask).sum((0, 1)) / (mask**2).sum()
        assert np.abs(slope).min() > 0.1
        np.testing.assert_allclose(change[0], mask * slope, atol=1e-4)


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("slot_attention", {"decoder": "patch"}, "'slot_attention' goes with 'mixture', and only"),
        ("grid_gru", {"decoder": "mixture"}, "model.decoder=mixture does not fit model.name=grid_"),
        ("slot_attention", {"encoder": "pool"}, "'grid_slots' goes with 'pool'"),
        ("slot_attention", {"dynamics.heads": 3}, "dynamics.width=64 is not a multiple of"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(name, changes, words):
    config = change(base_config(name), {f"model.{key}": value for key, value in changes.items()})
    with pytest.raises(UserError, match=words) as error:
        models.build(config.model)
    assert "\n" not in str(error.value)
