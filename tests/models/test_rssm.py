"""The RSSM against the paper's equations in plain numpy, and the sizes of the 1M model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.quick import quick_jit, random_variables
from wm_jax import shapes
from wm_jax.config import load
from wm_jax.errors import UserError
from wm_jax.models import build
from wm_jax.models.decoder_conv import ConvDecoder, UpsampledConv
from wm_jax.models.dynamics.rssm import RSSM, RSSMState
from wm_jax.models.encoder_conv import ConvEncoder
from wm_jax.models.heads import ContinueHead, RewardHead
from wm_jax.models.vector_to_grid import VectorToGrid

B, E, K = 3, 5, 4
SIZES = {"deter": 16, "hidden": 6, "stoch": 3, "classes": 4, "blocks": 4}


@pytest.fixture(scope="module")
def rssm():
    """A module, its parameters, a carry, an embedding and what the step is told."""
    module = RSSM(cells=(1, 2), **SIZES)
    random = np.random.default_rng(0)
    embedding = jnp.asarray(random.normal(size=(B, 2, E)), jnp.float32)
    told = jnp.asarray(3 * random.normal(size=(B, K)), jnp.float32)
    deter = jnp.asarray(np.tanh(random.normal(size=(B, 16))), jnp.float32)
    stoch = jnp.asarray(np.eye(4)[random.integers(4, size=(B, 3))], jnp.float32)
    carry = RSSMState(deter, stoch)
    inputs = (carry, embedding, None, told, None)
    variables = random_variables(module, *inputs, gain=3.0, method="step")
    return module, variables, carry, embedding, told


@functools.partial(quick_jit, static_argnames=("module", "method"))
def apply(module, variables, *arguments, method=None):
    return module.apply(variables, *arguments, method=method)


# The reference: everything on concatenations, as the paper writes it.


def silu(x):
    return x / (1 + np.exp(-x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * scale


def layer(p, x):
    return silu(norm(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], p["RMSNorm_0"]["scale"]))


def block_gru(p, h, z, c):
    """One step of the sequence model, block by block."""
    blocks, size = SIZES["blocks"], h.shape[-1] // SIZES["blocks"]
    c = c / np.maximum(1, np.abs(c))
    inputs = np.concatenate([layer(p["deter_in"], h), layer(p["stoch_in"], z)], -1)
    inputs = np.concatenate([inputs, layer(p["told_in"], c)], -1)
    shared = np.concatenate([p["hidden_shared"]["kernel"], p["hidden_told"]["kernel"]], 0)
    hidden = []
    for i in range(blocks):
        own = slice(i * size, (i + 1) * size)
        kernel = np.concatenate([p["hidden_block"]["kernel"][i], shared[:, own]], 0)
        x = np.concatenate([h[:, own], inputs], -1)
        hidden.append(x @ kernel + p["hidden_block"]["bias"][own])
    hidden = silu(norm(np.concatenate(hidden, -1), p["hidden_norm"]["scale"]))
    new = []
    for i in range(blocks):
        own, gates = slice(i * size, (i + 1) * size), slice(3 * i * size, 3 * (i + 1) * size)
        x = hidden[:, own] @ p["gates"]["kernel"][i] + p["gates"]["bias"][gates]
        reset, candidate, update = np.split(x, 3, -1)
        update = sigmoid(update - 1)
        new.append(update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * h[:, own])
    return np.concatenate(new, -1)


def distribution(p, x):
    logits = (x @ p["kernel"] + p["bias"]).reshape(-1, SIZES["stoch"], SIZES["classes"])
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return 0.99 * e / e.sum(-1, keepdims=True) + 0.01 / SIZES["classes"]


def test_a_step_is_the_papers(rssm):
    module, variables, carry, embedding, told = rssm
    p = jax.tree.map(np.float64, variables["params"])
    h = block_gru(
        p, np.float64(carry.deter), np.float64(carry.stoch).reshape(B, -1), np.float64(told)
    )
    x = layer(p["prior_hidden_1"], layer(p["prior_hidden_0"], h))
    prior = distribution(p["prior_logits"], x)
    x = np.concatenate([h, np.float64(embedding).reshape(B, -1)], -1)
    x = x @ p["posterior_hidden"]["kernel"] + p["posterior_hidden"]["bias"]
    posterior = distribution(p["posterior_logits"], silu(norm(x, p["posterior_norm"]["scale"])))
    kl = (posterior * np.log(posterior / prior)).sum((-1, -2))

    new, out = apply(module, variables, carry, embedding, None, told, None, method="step")
    np.testing.assert_allclose(new.deter, h, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(new.stoch.argmax(-1), posterior.argmax(-1))
    np.testing.assert_array_equal(out.tokens[:, 0, 16:].reshape(B, 3, 4), new.stoch)
    guess = out.prior[:, 0, 16:].reshape(B, 3, 4)
    np.testing.assert_array_equal(guess.argmax(-1), prior.argmax(-1))
    for term in ("kl_dyn", "kl_rep"):
        np.testing.assert_allclose(out.terms[term], np.maximum(1, kl), rtol=1e-4)
    assert kl.max() > 1  # so that not all of what was compared is clipped


def test_samples_of_a_step_follow_the_posterior_and_imagined_ones_the_prior(rssm):
    module, variables, carry, embedding, told = rssm
    draws = 4000

    @quick_jit
    def frequencies(embedding):
        def one(key):
            arguments = (carry, embedding, None, told, key)
            return module.apply(variables, *arguments, method="step")[0].stoch

        return jax.vmap(one)(jax.random.split(jax.random.key(6), draws)).mean(0)

    h = apply(module, variables, carry, None, None, told, None, method="step")[0].deter
    seen = apply(module, variables, embedding, method="_seen")
    posterior = apply(module, variables, h, seen, method="_posterior")
    prior = apply(module, variables, h, method="_prior")
    assert np.abs(np.exp(posterior) - np.exp(prior)).max() > 0.1
    for frequency, log_p in ((frequencies(embedding), posterior), (frequencies(None), prior)):
        p = np.exp(log_p)
        assert np.all(np.abs(frequency - p) < 5 * np.sqrt(p * (1 - p) / draws) + 1e-6)


def test_unseen_frames_cost_nothing(rssm):
    module, variables, carry, embedding, told = rssm
    observed = jnp.array([True, False, True])
    out = apply(module, variables, carry, embedding, observed, told, None, method="step")[1]
    for term in out.terms.values():
        assert term[1] == 0 and term[0] >= 1 and term[2] >= 1


def count(module, *arguments, **kwargs):
    made = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, **kwargs))
    return sum(leaf.size for leaf in jax.tree.leaves(made))


def test_parameters_of_the_1m_size():
    """DreamerV3's own counts at 64 × 64, with two action dimensions: 0.57 M in all."""
    frames = jnp.zeros((1, 64, 64, 3))
    encoder, dynamics, decoder = ConvEncoder(), RSSM(cells=(4, 4)), ConvDecoder(64)
    embedding, tokens = jnp.zeros((1, 16, 16)), jnp.zeros((1, 1, 512 + 32 * 4))
    step = (dynamics.initial(1), embedding, None, jnp.zeros((1, 2)), None)
    counts = {
        "encoder": count(encoder, frames),
        "dynamics": count(dynamics, *step, method="step"),
        "decoder": count(decoder, tokens),
        "reward": count(RewardHead(), tokens),
        "continue": count(ContinueHead(), tokens),
    }
    assert counts == {
        "encoder": 14_304,
        "dynamics": 376_448,
        "decoder": 80_595,
        "reward": 57_663,
        "continue": 41_153,
    }
    assert 0.565e6 < sum(counts.values()) < 0.575e6


@pytest.mark.parametrize("variant", ["quickstart_rssm", "small_rssm"])
def test_the_shipped_baselines_are_of_the_1m_size(variant):
    """With the patch stem, at either resolution: a baseline of another size would be unfair."""
    config = load(f"experiments/configs/twins.py:{variant}")
    size, model = config.model.resolution, build(config.model)
    frames = jnp.zeros((1, 2, size, size, 3), jnp.uint8)
    flags = jnp.ones((1, 2), bool)
    batch = shapes.Batch(frames, flags, flags, shapes.no_conditions(1, 2))
    made = jax.eval_shape(model.init, jax.random.key(0), batch)
    assert 0.5e6 < sum(leaf.size for leaf in jax.tree.leaves(made)) < 0.8e6


def test_encoder_treats_every_frame_alone():
    frames = jnp.linspace(0, 1, 2 * 3 * 16 * 16 * 3).reshape(2, 3, 16, 16, 3)
    encoder = ConvEncoder(depth=2, mults=(1, 2))
    variables = random_variables(encoder, frames)
    embedding = apply(encoder, variables, frames)
    assert embedding.shape == (2, 3, 16, 4)
    one = apply(encoder, variables, frames[:, 1])
    np.testing.assert_allclose(one, embedding[:, 1], rtol=1e-4, atol=1e-4)
    assert np.abs(embedding[:, 1] - embedding[:, 0]).max() > 0.01


def test_decoder_gives_images():
    decoder = ConvDecoder(16, depth=4, mults=(1, 2), deter=16, units=3)
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 1, 24)), jnp.float32)
    images = apply(decoder, random_variables(decoder, tokens), tokens)
    assert images.shape == (2, 3, 16, 16, 3)
    assert np.all(images > 0) and np.all(images < 1)


@pytest.mark.parametrize("resolution", [60, 1024, 32])
def test_a_resolution_that_does_not_fit_is_refused(resolution):
    frames = jnp.zeros((1, resolution, resolution, 3))
    with pytest.raises(UserError, match=f"{resolution}×{resolution} frames halved 4 times"):
        jax.eval_shape(lambda: ConvEncoder().init(jax.random.key(0), frames))


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_upsampled_conv_is_doubling_and_a_convolution(kernel):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    module = UpsampledConv(5, kernel)
    variables = random_variables(module, x)
    weights, bias = (np.asarray(variables["params"][name]) for name in ("kernel", "bias"))
    reach = kernel // 2
    doubled = np.pad(
        np.asarray(x).repeat(2, 1).repeat(2, 2), [(0, 0), (reach,) * 2, (reach,) * 2, (0, 0)]
    )
    expected = np.zeros((2, 8, 12, 5)) + bias
    for i in range(kernel):
        for j in range(kernel):
            expected += doubled[:, i : i + 8, j : j + 12] @ weights[i, j]
    np.testing.assert_allclose(apply(module, variables, x), expected, rtol=1e-4, atol=1e-4)


def test_vector_to_grid_keeps_blocks_apart():
    """Before the norm mixes them, features of block i depend on block i of the vector alone."""
    module = VectorToGrid((2, 2), features=8, deter=16, blocks=4, units=3)
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 20)), jnp.float32)
    variables = random_variables(module, tokens)

    @quick_jit
    def run(tokens):
        def by_block(tokens):
            out, state = module.apply(variables, tokens, capture_intermediates=True)
            x = state["intermediates"]["deter"]["__call__"][0]
            return x.reshape(4, 4, 2).sum((1, 2)), out  # blocks, cells, features of a block

        return jax.jacobian(by_block, has_aux=True)(tokens)

    jacobian, out = run(tokens)
    assert out.shape == (1, 4, 8)
    depends = np.any(jacobian[:, 0, 0, :16].reshape(4, 4, 4), -1)
    np.testing.assert_array_equal(depends, np.eye(4, dtype=bool))


def test_heads_start_at_their_priors():
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 1, 24)), jnp.float32)
    reward, proceed = RewardHead(units=8), ContinueHead(units=8)

    @quick_jit
    def run(key):
        logits, _ = reward.init_with_output(key, tokens)
        logit, _ = proceed.init_with_output(key, tokens)
        ones = jnp.ones((2, 3))
        return reward.mean(logits), reward.loss(logits, ones), proceed.loss(logit, ones)

    mean, loss, binary = run(jax.random.key(1))
    assert not np.any(mean)
    np.testing.assert_allclose(loss, np.full((2, 3), np.log(255)), rtol=1e-5)
    assert binary.shape == (2, 3) and np.all(binary > 0)
