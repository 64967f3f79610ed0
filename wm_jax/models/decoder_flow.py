"""A sharp decoder beside a plain one: a conditional flow from noise to the frame, in few steps.

A decoder trained on squared error paints the mean of all frames that its tokens allow, which is
blurred wherever they leave something open. This one draws one of them. With data x (what the plain
decoder's frame lacks of the true one, as in residual corrective diffusion, Mardani et al. 2023,
arXiv 2309.15214, over how large that is expected to be at each pixel, which another network is
taught: so noise is where something is open, and nowhere else), noise ε, x_t = (1 − t) ε + t x, and
what is known c (the plain decoder's frame and the tokens), a network predicts x itself,
x̂ = f(x_t, t, d, c), whose velocity is v = (x̂ − x_t) / (1 − t) (x-prediction, Li & He 2025, arXiv
2511.13720: data are easier to predict than noise is, from patches as large as ours). From t = 0 to
1 in steps of d (rectified flow, Liu et al. 2022, arXiv 2209.03003):

  x_{t+d} = x_t + d · v(x_t, t, d, c)

That few large steps suffice is trained (shortcut models, Frans et al. 2024, arXiv 2410.12557,
section 3): f is told d; at the smallest d it learns the flow, and at every larger one that a step
of 2d is two steps of d, with x' where the first of them arrives:

  |v(x_t, t, d_min) − (x − ε)|²
  |v(x_t, t, 2d) − stop(v(x_t, t, d) + v(x', t + d, d)) / 2|²

Both are taken times (1 − t)² and the square of what was expected to be missing, so each is a sum of
squared errors of pixels, in which the first step, the only one where a frame is drawn in one,
counts as much as the last. No gradient reaches the tokens or the plain decoder: the rest of the
model learns what it would without a flow (but for a clip of the gradient's global norm, which all
share), so the plain frames are those to compare with.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import GridMix, from_patches, to_patches
from wm_jax.nn.mlp import MLP

#: Number of the smallest steps from noise to frame; step counts are powers of two up to this.
FINEST = 8
#: What the network is told of the plain frame: (frame − 0.5) / CONTRAST.
CONTRAST = 0.25
#: What a pixel of the plain frame is expected to lack: about so much before it is learned, and
#: never less than an eighth of a grey level.
SPREAD, LEAST = 0.1, 5e-4
#: One frame in so many is taught that two steps are one; the others the flow itself.
BOOTSTRAPPED = 4


class FlowDecoder(nn.Module):
    """Tokens → frames (…, h, w, 3), around [0, 1]: those of ``plain``, made sharp in ``steps``.

    ``cells`` and ``patch`` are of the network, a patch a cell. Tokens that are a grid of these
    cells are read by their patches; of others (a vector, slots) ``plain``'s frame tells.
    """

    plain: nn.Module
    cells: tuple[int, int]
    patch: int
    steps: int = 2
    width: int = 64
    depth: int = 2

    def setup(self) -> None:
        self.network = PatchFlow(self.cells, self.patch, self.width, self.depth)
        self.spread = PatchSpread(self.cells, self.patch, self.width)

    def __call__(
        self,
        tokens: Float[Array, "*lead n d"],
        predicted: bool = False,
        key: jax.Array | None = None,
    ) -> Float[Array, "*lead h w c"]:
        """A frame for each index of ``lead``. With a ``key`` each has noise of its own; without one
        all have the same, so that equal tokens are equal frames and a still scene does not flicker.
        """
        frames, known = self._known(tokens, predicted)
        if key is None:
            noise = jax.random.normal(jax.random.key(0), frames.shape[-3:])
        else:
            noise = jax.random.normal(key, frames.shape)
        x = jnp.broadcast_to(noise, frames.shape)
        size = jnp.full(frames.shape[:1], 1 / self.steps)
        for step in range(self.steps):
            t = step * size
            x = x + self._velocity(x, t, size, known) / self.steps
        frames = frames + self.spread(*known) * x
        return frames.reshape(*tokens.shape[:-2], *x.shape[1:])

    def plain_frames(
        self, tokens: Float[Array, "*lead n d"], predicted: bool = False
    ) -> Float[Array, "*lead h w c"]:
        """What the plain decoder makes of the tokens."""
        return self.plain(tokens, predicted)

    def sharp_error(
        self,
        tokens: Float[Array, "*lead n d"],
        frames: Float[Array, "*lead h w c"],
        key: jax.Array,
    ) -> Float[Array, "*lead"]:
        """The losses of the module's docstring, one of the two for each frame, and by how much it
        lacks more or less than was expected, squared (all in squared units of a frame, summed over
        it)."""
        plain, known = jax.lax.stop_gradient(self._known(tokens, True))
        lead = frames.shape[:-3]
        lacks = frames.reshape(plain.shape) - plain
        spread = self.spread(*known)
        off = jnp.square(spread - jnp.abs(lacks)).sum((1, 2, 3))
        spread = jax.lax.stop_gradient(spread)
        x = lacks / spread
        order_key, noise_key, when_key = jax.random.split(key, 3)
        order = jax.random.permutation(order_key, len(x))
        x, spread, known = jax.tree.map(lambda a: a[order], (x, spread, known))
        noise = jax.random.normal(noise_key, x.shape)
        count = len(x) // BOOTSTRAPPED
        size, t = _times(when_key, len(x), count)
        at = t[:, None, None, None]
        x_t = (1 - at) * noise + at * x
        few = jax.tree.map(lambda a: a[:count], (x_t, t, size, known))
        two = jax.lax.stop_gradient(self._two_steps(*few))
        target = jnp.concatenate([two, (x - noise)[count:]])
        off_by = (1 - at) * (self._velocity(x_t, t, size, known) - target)
        error = jnp.square(spread * off_by).sum((1, 2, 3))
        return (error[jnp.argsort(order)] + off).reshape(lead)

    def _known(self, tokens, predicted):
        """The plain decoder's frames, leading axes folded, and what the network is told: them,
        scaled, and the tokens."""
        frames = self.plain(tokens, predicted)
        frames = frames.reshape(-1, *frames.shape[-3:])
        tokens = tokens.reshape(-1, *tokens.shape[-2:])
        return frames, ((frames - 0.5) / CONTRAST, tokens)

    def _velocity(self, x, t, size, known):
        lacks = self.network(x, t, size, *known)
        return (lacks - x) / (1 - t)[:, None, None, None]

    def _two_steps(self, x, t, size, known):
        """Mean velocity over two steps of half the ``size``."""
        half = size / 2
        first = self._velocity(x, t, half, known)
        second = self._velocity(x + half[:, None, None, None] * first, t + half, half, known)
        return (first + second) / 2


def _times(key: jax.Array, total: int, large: int) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Step sizes and the times at which steps begin: the first ``large`` of a size above the
    smallest, each size as often; times are whole numbers of steps."""
    size_key, time_key = jax.random.split(key)
    levels = FINEST.bit_length() - 1
    level = jax.random.randint(size_key, (total,), 0, levels)
    level = jnp.where(jnp.arange(total) < large, level, levels)
    steps = 2.0**level
    t = jnp.floor(jax.random.uniform(time_key, (total,)) * steps) / steps
    return 1 / steps, t


class PatchFlow(nn.Module):
    """f of `FlowDecoder`: patches of x_t and of the plain frame, mixed with their neighbours."""

    cells: tuple[int, int]
    patch: int
    width: int
    depth: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        size: Float[Array, " b"],
        plain: Float[Array, "b h w c"],
        tokens: Float[Array, "b n d"],
    ) -> Float[Array, "b h w c"]:
        phase = jnp.pi * t[:, None] * jnp.arange(1, 4)
        when = jnp.concatenate([jnp.sin(phase), jnp.cos(phase), jnp.log2(size)[:, None]], -1)
        when = MLP((self.width, 2 * self.depth * self.width))(when)[:, None]
        scales_shifts = jnp.split(when, 2 * self.depth, -1)
        painted = to_patches(plain, self.patch)
        h = Dense(self.width)(jnp.concatenate([to_patches(x, self.patch), painted], -1))
        if tokens.shape[1] == self.cells[0] * self.cells[1]:
            h = h + Dense(self.width, use_bias=False)(tokens)
        for scale, shift in zip(scales_shifts[::2], scales_shifts[1::2], strict=True):
            mixed = GridMix(self.cells, self.width)(nn.RMSNorm(epsilon=1e-4)(h))
            h = h + Dense(self.width)(nn.silu(mixed * (1 + scale) + shift))
        lacks = MLP((2 * self.width, painted.shape[-1]), gain=0.1)(nn.RMSNorm(epsilon=1e-4)(h))
        return from_patches(lacks, self.cells, self.patch)


class PatchSpread(nn.Module):
    """How much of each pixel of the plain frame is expected to be wrong, mean of the absolute."""

    cells: tuple[int, int]
    patch: int
    width: int

    @nn.compact
    def __call__(
        self, plain: Float[Array, "b h w c"], tokens: Float[Array, "b n d"]
    ) -> Float[Array, "b h w c"]:
        painted = to_patches(plain, self.patch)
        h = Dense(self.width)(painted)
        if tokens.shape[1] == self.cells[0] * self.cells[1]:
            h = h + Dense(self.width, use_bias=False)(tokens)
        h = nn.silu(GridMix(self.cells, self.width)(nn.silu(h)))
        spread = LEAST + SPREAD * nn.softplus(MLP((self.width, painted.shape[-1]), gain=0.1)(h))
        return from_patches(spread, self.cells, self.patch)
