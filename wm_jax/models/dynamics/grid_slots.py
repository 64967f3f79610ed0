"""A grid of cells for the stage, and slots with a place for what moves on it.

The stage is a small `grid_gru` that changes slowly. An object is a slot: where it is, how fast it
moves, its colour, a vector for its looks and one of memory. Places are shares of the frame, speeds
shares a step. A step is, as in a Kalman filter, a prediction and, where a frame is seen, a
correction.

Predict. Slots act on each other and on themselves. Matrices multiply velocities, as an elastic
collision does to the relative velocity of two bodies whose contact is known; without them an
object goes on as it went (an interaction network, Battaglia et al. 2016):

  m_ij, P_ij, Q_ij = f(s_i, s_j)
  a, b, A, B, h'   = g(s_i, Σ_j m_ij, told)
  v ← v + a + A v + Σ_j P_ij (v_j − v_i)
  x ← x + v + b + B v + Σ_j Q_ij (v_j − v_i)                       v the old one

Correct. One step of expectation-maximisation for a mixture over colour and place (soft k-means,
which slot attention is with learned features; Locatello et al. 2020): a pixel p belongs to slot i
in proportion to

  r_ip ∝ present_i · exp(−‖c_p − [b, c_i]‖² − near ‖x_p − x_i‖²)

beside the background b and nothing at all; [b, c_i] are the colours from b to c_i, which a pixel at
an anti-aliased edge has. Weighed by how far along it lies, the mean place is that of the visible
mask to a fraction of a pixel. It corrects place and speed with the gains of a least-squares line
(an α–β filter), a glimpse of r_i the looks and the memory. A slot is born where a pixel has a
colour that neither the background, nor the recent past of that pixel, nor another slot explains:
what moves is an object. If a slot of that colour is missing, it is that one, found again. A slot
dies when it is not found where it should be seen.

What is hidden keeps its slot, its colour and its looks, so it comes out as it went in; nothing in
the prediction can make an object fade. Everything that an edit would want to change has an address.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics.contract import Output, reset
from wm_jax.models.dynamics.grid_gru import GridGRU
from wm_jax.nn.dense import Dense
from wm_jax.nn.gradient import steady
from wm_jax.nn.grid import addresses
from wm_jax.nn.mlp import MLP
from wm_jax.nn.paste import read

#: Colours in [0, 1] times this: two colours 0.1 apart are one unit of surprise apart.
CONTRAST = 10.0
#: Squared surprise from which a pixel is the start of a new slot.
NEW = 8.0
#: Squared distance of colours below which a missing slot is recognised.
SAME = 6.0
#: Largest speed along an axis, shares of the frame a step.
FASTEST = 0.2
#: Mean place and total r of a slot count from about this many pixels on.
FEW = 2.0


class Scene(NamedTuple):
    """The carry. k slots; n cells of the stage; p pixels of the encoder's grid.

    present is in [0, 1]; colour is times CONTRAST; visible is the share of the slot's evidence that
    the last frame gave (0 where none was seen); age counts the frames from which place and speed
    are known; past is the mean of recent frames and whether there
    was one; told is what the last step was told.
    """

    stage: Float[Array, "b n d"]
    place: Float[Array, "b k 2"]
    speed: Float[Array, "b k 2"]
    present: Float[Array, "b k 1"]
    colour: Float[Array, "b k c"]
    look: Float[Array, "b k l"]
    memory: Float[Array, "b k m"]
    visible: Float[Array, "b k 1"]
    age: Float[Array, "b k 1"]
    past: Float[Array, "b p e"]
    told: Float[Array, "b t"]


class Seen(NamedTuple):
    """What can be computed of frames before the scan: (b, …) or (b, t, …)."""

    stage: Float[Array, "*lead n d"]
    pixels: Float[Array, "*lead p c"]
    background: Float[Array, "*lead 1 c"]


class GridSlots(nn.Module):
    """See the module's docstring. Its encoder is 'pool', its decoder 'slots'.

    slots: most objects at a time        pool: encoder cells on a side of a stage cell
    width, hidden: of the stage          look, memory: sizes of a slot's vectors
    sight: side of the glimpse, in encoder cells
    foresight: steps that `teach` runs ahead from every frame
    told_size: width of what a step is told; 1 if it is told nothing
    """

    cells: tuple[int, int]
    slots: int = 6
    pool: int = 4
    width: int = 32
    hidden: int = 64
    look: int = 24
    memory: int = 32
    sight: int = 12
    foresight: int = 12
    channels: int = 3
    told_size: int = 1
    posterior_reads_carry = True

    @property
    def stage_cells(self) -> tuple[int, int]:
        return self.cells[0] // self.pool, self.cells[1] // self.pool

    def setup(self) -> None:
        self.stage = GridGRU(self.stage_cells, self.width, self.hidden, keep=5.0)
        self.stage_in = Dense(self.width)
        self.told_in = Dense(16)
        self.one_in, self.other_in = Dense(64), Dense(64, use_bias=False)
        self.pair = MLP((64, 48 + 8))
        self.alone = MLP((128, 96, 12 + 2 * self.memory), gain=0.1)
        self.tint = MLP((16, self.channels), gain=0.1)
        self.gains = MLP((96, 64, 6 + 2 * self.look + 2 * self.memory), gain=0.1)
        self.near = self.param("near", nn.initializers.constant(32.0), ())
        self.nothing = self.param("nothing", nn.initializers.constant(-3.0), ())

    def initial(self, batch_size: int) -> Scene:
        cells, pixels = (side[0] * side[1] for side in (self.stage_cells, self.cells))

        def slots(size: int) -> jax.Array:
            return jnp.zeros((batch_size, self.slots, size))

        return Scene(
            stage=jnp.zeros((batch_size, cells, self.width)),
            place=slots(2) + 0.5,
            speed=slots(2),
            present=slots(1),
            colour=slots(self.channels),
            look=slots(self.look),
            memory=slots(self.memory),
            visible=slots(1),
            age=slots(1),
            past=jnp.zeros((batch_size, pixels, self.channels + 1)),
            told=jnp.zeros((batch_size, self.told_size)),
        )

    def tokens(self, carry: Scene) -> Float[Array, "b n d"]:
        """Cells of the stage, then slots (place, present, colour, look), padded to one width."""
        slots = (carry.place, carry.present, carry.colour / CONTRAST, carry.look)
        parts = carry.stage, jnp.concatenate(slots, -1)
        width = max(part.shape[-1] for part in parts)
        pad = [(0, 0)] * (carry.stage.ndim - 1)
        return jnp.concatenate(
            [jnp.pad(x, [*pad, (0, width - x.shape[-1])]) for x in parts], axis=-2
        )

    def address(self, carry: Scene) -> Float[Array, "b n 2"]:
        """Where each token is in the frame."""
        cells = addresses(self.stage_cells)
        cells = jnp.broadcast_to(cells, (carry.place.shape[0], *cells.shape))
        return jnp.concatenate([cells, carry.place], 1)

    def step(self, carry, embedding, observed, told, key):
        prior = self._predict(carry, told)
        carry = prior
        if embedding is not None:
            carry = self._correct(prior, self._prepare(embedding), observed)
        return carry, self._output(carry, prior)

    def scan(
        self,
        carry: Scene,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> tuple[Scene, Output]:
        """Sequential. Steps at which no stream sees a frame cost a prediction only."""
        carry, (after, before) = self._run(carry, embeddings, observed, told, is_first)
        return carry, self._output(after, before)

    def teach(
        self,
        carry: Scene,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
    ) -> Output:
        """What the loss compares, instead of `scan`: nothing in it rewards hedging.

        tokens: after every frame, all of them seen
        prior:  the stage as imagined where it is not ``observed`` (a prefix is), with the objects
                where the frames show them: the stage need not fade what may be elsewhere
        terms:  place: from every frame ``foresight`` steps are imagined; mean distance of slots
                from where the frames then show them, in eighths of the frame, over steps and summed
                over slots. It trains the dynamics with t · foresight targets and no pixels.
        """
        _, (after, before) = self._run(carry, embeddings, None, told, is_first)
        fresh, heard = self.initial(is_first.shape[0]).stage, self.stage.told_in(told)

        def imagine(module, stage, inputs):
            seen, observed, is_first, heard = inputs
            prior = module.stage.predict(reset(stage, fresh, is_first), heard)
            return reset(prior, seen, observed), prior

        if observed is None:
            observed = jnp.ones_like(is_first)
        inputs = (after.stage, observed, is_first, heard)
        _, stage = _scan(imagine)(self, carry.stage, inputs)
        shown = jax.lax.stop_gradient(after)._replace(stage=stage)
        terms = {"place": self._place_error(after, told, is_first)}
        return Output(self.tokens(after), self.tokens(shown), terms)

    def _run(self, carry, embeddings, observed, told, is_first):
        """States after and before each frame was seen. ``past`` is not kept: it is large."""
        fresh = self.initial(is_first.shape[0])

        def body(module, carry, inputs):
            seen, observed, told, is_first = inputs
            prior = module._predict(_steady(reset(carry, fresh, is_first)), told)
            if observed is None or module.is_initializing():
                carry = module._correct(prior, seen, observed)
            else:
                carry = nn.cond(
                    observed.any(),
                    lambda module: module._correct(prior, seen, observed),
                    lambda module: prior,
                    module,
                )
            return carry, tuple(x._replace(past=x.visible) for x in (carry, prior))

        inputs = (self._prepare(embeddings), observed, told, is_first)
        return _scan(body)(self, carry, inputs)

    def _output(self, after: Scene, before: Scene) -> Output:
        return Output(self.tokens(after), self.tokens(before), {})

    def _predict(self, scene: Scene, told: Float[Array, "b t"], stage: bool = True) -> Scene:
        news = self.told_in(jnp.concatenate([told, scene.told], -1))
        push, shift, memory = self._interact(scene, news)
        colour = scene.colour
        if self.told_size > 1:  # a light may have changed; of the slot itself it knows nothing
            colour = colour * (1 + self.tint(news)[:, None])
        return scene._replace(
            stage=self.stage.predict(scene.stage, self.stage.told_in(told))
            if stage
            else scene.stage,
            place=jnp.clip(scene.place + scene.speed + shift, -0.2, 1.2),
            speed=jnp.clip(scene.speed + push, -FASTEST, FASTEST),
            colour=colour,
            memory=memory,
            visible=jnp.zeros_like(scene.visible),
            told=told,
        )

    def _interact(self, scene: Scene, news):
        """Changes of speed and place beyond going on, and the new memory."""
        place, speed = 8 * scene.place - 4, 32 * scene.speed  # of about unit size
        slot = jnp.concatenate([place, speed, scene.look, scene.memory, scene.present], -1)
        pairs = self.one_in(slot)[:, :, None] + self.other_in(slot)[:, None, :]
        message, matrix = jnp.split(self.pair(nn.silu(pairs)), [48], -1)
        others = scene.present[:, None] * (1 - jnp.eye(self.slots))[..., None]
        relative = scene.speed[:, None] - scene.speed[:, :, None]
        kick = (_times(0.1 * matrix, relative) * others).sum(2)
        message = (message * others).sum(2)
        news = jnp.broadcast_to(news[:, None], (*slot.shape[:2], news.shape[-1]))
        out = self.alone(jnp.concatenate([slot, message, news], -1))
        bias, matrix, gate, memory = jnp.split(out, [4, 12, 12 + self.memory], -1)
        change = bias / 32 + _times(matrix, scene.speed) + kick
        gate = nn.sigmoid(gate - 2.0)
        return *jnp.split(change, 2, -1), scene.memory + gate * (jnp.tanh(memory) - scene.memory)

    def _prepare(self, embeddings: Float[Array, "*lead p c"]) -> Seen:
        """The stage's reading of its cells, pixels, and the background's colour: a mean over
        stage cells in which outliers hardly count (four reweightings)."""
        *lead, _, channels = embeddings.shape
        (rows, columns), pool = self.stage_cells, self.pool
        x = embeddings.reshape(*lead, rows, pool, columns, pool, channels)
        x = jnp.moveaxis(x, -4, -3).reshape(*lead, rows * columns, pool * pool, channels)
        means = x.mean(-2)
        centre = means.mean(-2, keepdims=True)
        for _ in range(4):
            far = jnp.square(means - centre).sum(-1, keepdims=True)
            weight = 1 / (far + 0.05 * far.mean(-2, keepdims=True) + 1e-6)
            centre = (weight * means).sum(-2, keepdims=True) / weight.sum(-2, keepdims=True)
        cells = nn.silu(self.stage_in(x.reshape(*x.shape[:-2], -1) - 0.5))
        return Seen(self.stage.seen_in(cells), CONTRAST * embeddings, CONTRAST * centre)

    def _belong(self, scene: Scene, seen: Seen):
        """(b, k, p): r, the share of every pixel that is each slot's, and how much of the pixel the
        object covers, read off its colour between background and object: exact where edges are
        anti-aliased, which is what makes the mean place exact."""
        ahead = scene.colour - seen.background
        pixels = seen.pixels - seen.background
        size = jnp.square(ahead).sum(-1)[..., None]
        lengths = jnp.square(pixels).sum(-1)
        along = ahead @ jnp.swapaxes(pixels, 1, 2)
        covered = along / (size + 1.0)
        between = jnp.clip(covered, 0.0, 1.0)
        off = lengths[:, None] - 2 * between * along + jnp.square(between) * size
        away = _distances(scene.place, addresses(self.cells)[None])
        slots = jnp.maximum(-off - self.near * away, -25.0) + jnp.log(scene.present + 1e-4)
        rest = jnp.logaddexp(self.nothing, jnp.maximum(1 - lengths, -25.0))
        share = nn.softmax(jnp.concatenate([slots, rest[:, None]], 1), 1)[:, :-1]
        return share, jnp.clip((between - 0.1) / 0.9, 0.0, 1.0)

    def _births(self, scene: Scene, seen: Seen) -> tuple[Scene, Bool[Array, "b k"]]:
        """At most two slots a frame start at the most surprising pixels: one that is missing and
        has this colour, or else an empty one. Also says which did."""
        spots, index = addresses(self.cells), jnp.arange(self.slots)
        past, known = scene.past[..., :-1], scene.past[..., -1]
        rare = jnp.square(seen.pixels - seen.background).sum(-1)
        moved = jnp.square(seen.pixels - past).sum(-1) * known
        share, covered = self._belong(scene, seen)
        surprise = jnp.minimum(rare, moved) * (1 - share.sum(1))
        present, unseen = scene.present[..., 0], (share * covered).sum(-1) < FEW
        news = jnp.zeros(present.shape, bool)
        for _ in range(2):
            best = jnp.argmax(surprise, -1)[:, None]
            colour, place = jnp.take_along_axis(seen.pixels, best[..., None], 1), spots[best]
            real = jnp.take_along_axis(surprise, best, 1) > NEW
            # Something of this colour is missing elsewhere: here it is.
            unlike = jnp.square(scene.colour - colour).sum(-1)
            unlike = jnp.where((present > 0.3) & unseen & (unlike < SAME), unlike, jnp.inf)
            back = real & (index == jnp.argmin(unlike, -1)[:, None]) & (unlike < SAME)
            empty = (index == jnp.argmin(present, -1)[:, None]) & (present < 0.3)
            born = real & empty & ~back.any(-1, keepdims=True)
            fresh: dict[str, Any] = {
                "colour": colour,
                "speed": 0.0,
                "present": 0.5,
                "look": 0.0,
                "memory": 0.0,
            }
            for name, value in fresh.items():
                old = getattr(scene, name)
                scene = scene._replace(**{name: jnp.where(born[..., None], value, old)})
            moved_to = jnp.where((born | back)[..., None], place, scene.place)
            scene = scene._replace(place=moved_to)
            present, unseen, news = (
                scene.present[..., 0],
                unseen & ~(born | back),
                news | born | back,
            )
            same = 4 * jnp.square(spots - place).sum(-1)
            same += 0.1 * jnp.square(seen.pixels - colour).sum(-1)
            surprise *= 1 - jnp.exp(-jnp.minimum(same, 25.0))
        return scene, news

    def _correct(self, prior: Scene, seen: Seen, observed: Bool[Array, " b"] | None) -> Scene:
        scene, born = self._births(prior, seen)
        share, covered = self._belong(scene, seen)
        share = share * covered
        found = share.sum(-1, keepdims=True)
        middle = (share @ addresses(self.cells) + 0.5 * scene.place) / (found + 0.5)
        pure = share * covered**3  # not the edges: they are mixed with what is behind
        colour = pure @ seen.pixels + 0.5 * scene.colour
        colour = colour / (pure.sum(-1, keepdims=True) + 0.5)
        image = share.reshape(*share.shape[:-1], *self.cells)
        glimpse = read(image, middle, self.sight, 1 / self.cells[0])
        off = middle - scene.place
        evidence = (
            glimpse.reshape(*glimpse.shape[:2], -1),
            *(colour / CONTRAST - 0.5, scene.colour / CONTRAST - 0.5),
            *(jnp.log1p(found), 32 * off, scene.present, 1 / (1 + scene.age)),
            *(scene.look, scene.memory, 32 * scene.speed),
        )
        out = self.gains(jnp.concatenate(evidence, -1))
        sizes = (1, 1, 1, 1, 2, self.look, self.look, self.memory, self.memory)
        splits = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        shift, turn, doubt, alive, extra, gate, look, gate_m, memory = jnp.split(out, splits, -1)
        visible = found / (found + FEW)
        off = (
            off + jnp.clip(extra, -2.0, 2.0) / 64
        )  # the middle of what is seen is not the middle of what is there
        new = born[..., None]
        # What is found cannot be talked out of being there.
        present = nn.sigmoid(jnp.clip(alive, -4.0, 4.0) + 2 * (found - 3.0)) - scene.present
        # The gains of a least-squares line through the frames of an object's age (an α–β filter).
        # It starts anew when it is off by more than a 64th of the frame, as after a collision.
        # What is learned is how far to trust a frame.
        astray = jnp.minimum(jnp.square(64 * off).sum(-1, keepdims=True), 8.0)
        astray = astray * (scene.age > 1.5)  # else its speed is not known yet
        age = 1 + jnp.where(new, 0.0, nn.sigmoid(4.0 - 2 * astray) * scene.age)
        shift = jnp.minimum(2 * (2 * age - 1) / (age * (age + 1)), 1.0) * _trust(shift) * visible
        turn = 6 / (age * (age + 1)) * _trust(turn) * visible * (age > 1.5)
        past, known = scene.past[..., :-1], scene.past[..., -1:]
        recent = jnp.where(known > 0, past + 0.1 * (seen.pixels - past), seen.pixels)
        corrected = scene._replace(
            stage=self.stage.correct(scene.stage, seen.stage, None),
            place=scene.place + shift * off,
            speed=scene.speed + turn * off,
            present=scene.present + nn.sigmoid(doubt) * present * (scene.present > 0),
            colour=scene.colour + 0.1 * visible * (colour - scene.colour),
            look=_toward(scene.look, look, nn.sigmoid(gate - 1 + 3 * new) * visible),
            memory=_toward(scene.memory, memory, nn.sigmoid(gate_m)),
            visible=visible,
            age=jnp.where(found > FEW, age, 0.9 * scene.age),
            past=jnp.concatenate([recent, jnp.ones_like(known)], -1),
        )
        return corrected if observed is None else reset(prior, corrected, observed)

    def _place_error(self, after: Scene, told, is_first) -> Float[Array, "b t"]:
        batch, time = is_first.shape
        steps, starts = self.foresight, time - 1
        target = jax.lax.stop_gradient(after)
        trusted = (target.present * (0.1 + 0.9 * target.visible))[..., 0]
        there = target.present[:, :starts, :, 0] > 0.8
        stream = jnp.cumsum(is_first, 1)
        # Neither stage nor past is needed to go on.
        begin = after._replace(stage=after.visible, past=after.visible)
        begin = jax.tree.map(lambda x: x[:, :starts].reshape(-1, *x.shape[2:]), begin)

        def ahead(module, scene, step):
            at = jnp.arange(starts) + step
            real = (at < time) & (stream[:, jnp.minimum(at, time - 1)] == stream[:, :starts])
            at = jnp.minimum(at, time - 1)
            scene = module._predict(
                _steady(scene), told[:, at].reshape(batch * starts, -1), stage=False
            )
            off = scene.place.reshape(batch, starts, -1, 2) - target.place[:, at]
            distance = jnp.sqrt(64 * jnp.square(off).sum(-1) + 4e-4) - 0.02
            return scene, (distance * trusted[:, at] * there).sum(-1) * real

        _, error = _scan(ahead, axis=0)(self, begin, jnp.arange(1, steps + 1))
        return jnp.pad(error.mean(0), ((0, 0), (0, 1)))


def _scan(body, axis: int = 1):
    """`flax.linen.scan` over time, weights shared by all steps."""
    return nn.scan(
        body,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=axis,
        out_axes=axis,
    )


def _trust(x: Array) -> Array:
    """In (0.5, 1.5), near 1 for an untrained layer."""
    return 0.5 + nn.sigmoid(0.3 * x)


def _steady(scene: Scene) -> Scene:
    """Gradients of no more than 100 (of a loss per frame) go back to the step before."""
    return jax.tree.map(lambda x: steady(x, 100.0), scene)


def _toward(old: Array, new: Array, gate: Array) -> Array:
    return old + gate * (jnp.tanh(new) - old)


def _times(matrices: Float[Array, "*lead 8"], vector: Float[Array, "*lead 2"]) -> Array:
    """Two 2×2 matrices times one vector, (…, 4)."""
    return (matrices.reshape(*matrices.shape[:-1], 4, 2) * vector[..., None, :]).sum(-1)


def _distances(a: Float[Array, "b k d"], b: Float[Array, "#b p d"]) -> Float[Array, "b k p"]:
    """Squared distances between all of a and all of b."""
    lengths = jnp.square(a).sum(-1)[..., None] + jnp.square(b).sum(-1)[:, None]
    return lengths - 2 * a @ jnp.swapaxes(b, 1, 2)
