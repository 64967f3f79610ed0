"""A grid of cells for the stage, and slots with a place for what moves on it.

The stage is a small `grid_gru` that changes slowly. An object is a slot: where it is, how fast it
moves, its colour, a template of what was seen of it and a vector for its looks, read off the
template. A step is, as in a Kalman filter, a prediction and, where a frame is seen, a correction;
the correction is `tracking`, which has no parameters.

Predict. Straight flight, what is learned to change it, and collisions (`wm_jax.nn.contact`):

  h_i, m_i = f(look_i)                                   reach along directions, log of the mass
  a, A     = g(x_i, v_i, look_i, told)                   about 0 of what has a hue: a hand is grey
  v ← v + p + a + A v + Σ_j blows of j and of the walls on i      p the pull, as gravity
  x ← x + v − p/2 + d + what is left of the step after a blow, times the blow

with d what the camera does to every place, linear in what is told; a zoom makes speeds, pulls and
outlines longer too, and walls are where the camera shows them. The pull is one for all that has a
hue, and what they know of it together is each one's as soon as no frame is seen. What is grey, a
hand, does not fall, and weighs, bounces and grips by numbers of its own; there is one
(`motion.followed`). The stage, while nothing is seen, stays as it was last seen, to the last bit:
predicted a hundred times over, the smallest error of a network dissolves it. What was told then and
what is told now say how the decoder moves and lights the picture of it. Where objects turn
(``spin``), a template is kept as the object sees itself, its angle and spin are followed too, and a
blow has an arm and a friction (`wm_jax.nn.contact_turning`).

A collision is a jump: a smooth network makes half of one wherever it is not sure, and is wrong on
both sides. So that there are contacts, and that they change the speed along their normal, is given;
outlines, masses, bounce and walls are learned, from places alone. An object's own mass, bounce and
friction show in no frame before a contact, and are not inferred after one.

What is hidden keeps its slot, its colour and its looks, so it comes out as it went in; nothing in
the prediction can make an object fade. Everything that an edit would want to change has an address.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.edit import Edits, Objects
from wm_jax.models.dynamics import (
    lessons,
    motion,
    said_lesson,
    slot_edit,
    slot_hearing,
    templates,
    tracking,
)
from wm_jax.models.dynamics.contract import Output, reset
from wm_jax.models.dynamics.grid_gru import GridGRU
from wm_jax.models.dynamics.pixels import CONTRAST, background, background_plane
from wm_jax.models.dynamics.slot_hearing import Hearing
from wm_jax.models.dynamics.tracking import Scene
from wm_jax.nn.compute import over_time
from wm_jax.nn.dense import Dense
from wm_jax.nn.grid import addresses, squares
from wm_jax.nn.mlp import MLP
from wm_jax.nn.paste import turned

#: Parts on a side of the frame that a shaded background is read off.
GROUND = 16


class GridSlots(nn.Module):
    """See the module's docstring. Its encoder is 'pool', its decoder 'slots'.

    slots: most objects at a time        pool: encoder cells on a side of a stage cell
    width, hidden: of the stage          look: size of a slot's vector
    sight: side of a template, in encoder cells: about twice that of the largest object
    train_pool: cells on a side of what training sees as one. Slots are followed more exactly in
        finer frames, but no parameter depends on it, so an update need not pay for them
    directions: along which an outline is known, a multiple of four
    taught: most slots of a window, the fullest, whose futures `teach` compares; 0: all
    foresight: steps that `teach` runs ahead from every frame
    pull: standard deviation, over scenes, of a steady acceleration that all slots share, in 64ths
        of the frame a step²; 0: there is none
    spin: standard deviation of how fast objects turn, radians a step; 0: none ever does
    shading: whether the light may fall unevenly on the background
    told_size: width of what a step is told of what holds; 1 if it is told nothing
    said_size: width of what it is told behind that, of what is said once to change something, and
        before it whether anything is (`slot_hearing`); 0: nothing ever is
    """

    cells: tuple[int, int]
    slots: int = 6
    pool: int = 4
    width: int = 16
    hidden: int = 32
    look: int = 24
    sight: int = 12
    train_pool: int = 1
    directions: int = 24
    taught: int = 0
    foresight: int = 12
    pull: float = 0.0
    spin: float = 0.0
    shading: bool = False
    channels: int = 3
    told_size: int = 1
    said_size: int = 0
    posterior_reads_carry = True
    #: Slots are followed by thousands of small operations, and few matrix products.
    small_operations = True
    #: A camera moves every place by what is linear in the numbers that say so.
    hears_plainly = True

    @property
    def stage_cells(self) -> tuple[int, int]:
        return self.cells[0] // self.pool, self.cells[1] // self.pool

    def setup(self) -> None:
        self.stage = GridGRU(self.stage_cells, self.width, self.hidden, keep=5.0)
        self.stage_in = Dense(self.width)
        self.told_in = Dense(16)
        self.looks = MLP((64, self.look))
        self.rest = MLP((128, 64, 2), gain=0.01)
        # Near a disc at first: a direction that reaches too far from the start is never heard.
        self.outline = MLP((64, self.directions + (3 if self.spin else 2)), gain=0.1)
        self.free = MLP((64, 64, 6), gain=0.01)
        self.view = Dense(3, use_bias=False, kernel_init=nn.initializers.zeros)
        self.light = Dense(3, use_bias=False, kernel_init=nn.initializers.zeros)
        zeros = nn.initializers.zeros
        # Off the frame's edges, from a bounce of one half, and from a twentieth of a step.
        self.walls = self.param("walls", zeros, (4,))
        self.bounce = self.param("bounce", zeros, (2,))
        self.late = self.param("late", zeros, (2,))
        if self.told_size > 1:  # a hand is grey; what has a hue does not move by itself
            self.moves_itself = self.param("moves_itself", zeros, (2,))
            self.hand_bounce = self.param("hand_bounce", zeros, (2,))
            self.hand_mass = self.param("hand_mass", zeros, (1,))
        if self.spin:
            self.grip = self.param("grip", zeros, (2,))
            if self.told_size > 1:
                self.hand_grip = self.param("hand_grip", zeros, (2,))
        if self.said_size:
            self.hearing = Hearing()

    def initial(self, batch_size: int) -> Scene:
        cells, pixels = (side[0] * side[1] for side in (self.stage_cells, self.cells))

        def slots(size: int) -> jax.Array:
            return jnp.zeros((batch_size, self.slots, size))

        return Scene(
            stage=jnp.zeros((batch_size, cells, self.width)),
            place=slots(2) + 0.5,
            speed=slots(2),
            pull=slots(2),
            present=slots(1),
            colour=slots(self.channels),
            look=slots(self.look),
            middle=slots(2),
            template=slots(2 * self.sight**2),
            spread=slots(12),
            turn=slots(1),
            rate=slots(1),
            sway=slots(3),
            visible=slots(1),
            age=slots(1),
            past=jnp.zeros((batch_size, pixels, self.channels + 1)),
            told=jnp.zeros((batch_size, self.told_size)),
            shown=jnp.zeros((batch_size, self.told_size)),
        )

    def tokens(self, carry: Scene) -> Float[Array, "b n d"]:
        """Cells of the stage, then slots, padded to one width. A cell: its vector and, where there
        may be a camera and a light, `motion.outlook`. A slot: place, present, colour, speed (which
        no decoder needs, but a read-out does), look; where they turn, cosine, sine and spin."""
        speed = motion.FEEL * carry.speed
        there = motion.followed(self, carry)
        slots = [carry.place, there, carry.colour / CONTRAST, speed, carry.look]
        if self.spin:
            slots += [jnp.cos(carry.turn), jnp.sin(carry.turn), motion.FEEL * carry.rate / 8]
        cells = carry.stage
        if self.told_size > 1:
            outlook = motion.outlook(self, carry)[..., None, :]
            outlook = jnp.broadcast_to(outlook, (*cells.shape[:-1], outlook.shape[-1]))
            cells = jnp.concatenate([cells, outlook], -1)
        parts = cells, jnp.concatenate(slots, -1)
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
        carry, told = self._hear(carry, told)
        prior = motion.predict(self, carry, told, imagined=embedding is None)
        unseen = prior._replace(stage=carry.stage)
        if embedding is None:
            tokens = self.tokens(unseen)
            return unseen, Output(tokens, tokens, {})
        carry = self._correct(prior, unseen, self._read(embedding), observed)
        return carry, Output(self.tokens(carry), self.tokens(unseen), {})

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
        fresh = self.initial(is_first.shape[0])

        def body(module, carry, inputs):
            seen, observed, told, is_first = inputs
            carry, told = module._hear(reset(carry, fresh, is_first), told)
            unobserved = False if observed is None else ~observed
            prior = motion.predict(module, carry, told, imagined=unobserved)
            unseen = prior._replace(stage=carry.stage)
            if observed is None or module.is_initializing():
                carry = module._correct(prior, unseen, seen, observed)
            else:
                carry = nn.cond(
                    observed.any(),
                    lambda module: module._correct(prior, unseen, seen, observed),
                    lambda module: unseen,
                    module,
                )
            return carry, (module.tokens(carry), module.tokens(unseen))

        inputs = (self._read(embeddings), observed, told, is_first)
        carry, (after, before) = over_time(body)(self, carry, inputs)
        return carry, Output(after, before, {})

    def teach(
        self,
        carry: Scene,
        embeddings: Float[Array, "b t n e"],
        observed: Bool[Array, "b t"] | None,
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
        keys: jax.Array | None,
        painted: slice = slice(None),
        followed: dict[str, Array] | None = None,
    ) -> Output:
        """What the loss compares, instead of `scan`: nothing in it rewards hedging.

        The slots are followed through all frames first, and no gradient goes back there: what a
        loss can change about what is seen, it changes to make its own prediction right. Where they
        were ``followed`` before (`remember`), that is taken, and tokens are of no use.

        tokens: of the ``painted`` streams, after every frame, all of them seen
        prior:  the stage as imagined where it is not ``observed`` (a prefix is), with the objects
                where the frames show them: the stage need not fade what may be elsewhere
        terms:  place: from every frame ``foresight`` steps are imagined; mean distance of slots
                from where the frames then show them, in eighths of the frame, over steps and summed
                over slots. It trains the dynamics with t · foresight targets and no pixels.
               whole: looks and middle of slots of which a part is hidden on purpose
               said: where things can be told to change, where they are then, in what colour
        """
        if self.is_initializing():
            return self.scan(carry, embeddings, observed, told, is_first, keys)[1]
        if self.train_pool > 1:
            coarse: Any = self._coarser()
            carry = coarse.initial(is_first.shape[0])
            embeddings = squares(embeddings, self.cells, self.train_pool).mean(-2)
            inputs = carry, embeddings, observed, told, is_first, keys, painted, followed
            return coarse.apply(self.variables, *inputs, method="teach")
        told_and_said = told
        told = told[..., : self.told_size]
        if followed is None:
            # Frozen in what it hears too: the encoder of `told` has weights.
            alone = self.clone(parent=None)
            seen = self._read(embeddings)
            frozen = jax.lax.stop_gradient((self.variables, carry, seen, told))
            slots: Any = alone.apply(*frozen, is_first, method="follow")
            slots = self._looked_at(slots)
        else:
            pixels = self._read(embeddings)[0]
            slots = Scene(**followed, stage=followed["visible"], past=pixels)
        key = jax.random.key(0) if keys is None else keys[0]
        terms = {
            "place": lessons.place_error(
                self, slots, told, self._undisturbed(told_and_said, is_first)
            ),
            "whole": lessons.whole_error(self, slots, key),
        }
        if self.said_size:
            terms["said"] = said_lesson.said_error(self, slots, told_and_said, is_first)
        slots, stage, *inputs = jax.tree.map(
            lambda x: x[painted], (slots, carry.stage, observed, told, is_first)
        )
        shown, imagined = lessons.stages(self, stage, self._read_stage(slots.past), *inputs)
        tokens, prior = (self.tokens(slots._replace(**stage)) for stage in (shown, imagined))
        return Output(tokens, prior, terms)

    def remember(
        self,
        carry: Scene,
        embeddings: Float[Array, "b t n e"],
        told: Float[Array, "b t k"],
        is_first: Bool[Array, "b t"],
    ) -> dict[str, Array]:
        """What `teach` follows, for when it is asked for again: slots after each frame, but neither
        stage nor past. It depends on no weight of what hears."""
        if self.train_pool > 1:
            coarse: Any = self._coarser()
            carry = coarse.initial(is_first.shape[0])
            embeddings = squares(embeddings, self.cells, self.train_pool).mean(-2)
            return coarse.apply(
                self.variables, carry, embeddings, told, is_first, method="remember"
            )
        told = told[..., : self.told_size]
        slots = self._looked_at(self.follow(carry, self._read(embeddings), told, is_first))
        return {k: x for k, x in slots._asdict().items() if k not in ("stage", "past")}

    def _looked_at(self, slots: Scene) -> Scene:
        """Slots that were followed, with how they look and how much of a body each is."""
        look, present = self.look_at(slots.template)[0], motion.followed(self, slots)
        return slots._replace(look=look, present=present)

    def _undisturbed(
        self, told: Float[Array, "b t k"], is_first: Bool[Array, "b t"]
    ) -> Bool[Array, "b t"]:
        """Where a stream begins, or something is said that changes it."""
        return is_first | (told[..., self.told_size] > 0) if self.said_size else is_first

    def _hear(self, scene: Scene, told: Float[Array, "b k"]) -> tuple[Scene, Float[Array, "b t"]]:
        """The scene after what is said of this step, and the rest of what the step is told."""
        told, said = jnp.split(told, [self.told_size], -1)
        if self.said_size:
            scene = slot_hearing.apply(self, scene, self.hearing(scene, said))
        return scene, told

    def _coarser(self) -> GridSlots:
        """The module of the same parameters for frames that are `train_pool` times coarser."""
        by, (rows, columns) = self.train_pool, self.cells
        sizes: dict[str, Any] = {"cells": (rows // by, columns // by), "pool": self.pool // by}
        return self.clone(parent=None, sight=self.sight // by, train_pool=1, **sizes)

    def follow(self, carry: Scene, seen, told, is_first) -> Scene:
        """Slots after each frame of a window, all seen, (b, t, …). The stage is not kept; in place
        of the past are the frames with the background where slots are."""
        fresh = self.initial(is_first.shape[0])

        def body(module, carry, inputs):
            (pixels, ground), told, is_first = inputs
            prior = motion.predict(module, reset(carry, fresh, is_first), told, stage=False)
            sizes = module.cells, module.pull, module.spin
            carry, bare = tracking.correct(prior, pixels, ground, *sizes)
            carry = module._finish(carry._replace(shown=carry.told))
            return carry, carry._replace(stage=carry.visible, past=bare)

        return over_time(body)(self, carry, (seen, told, is_first))[1]

    @property
    def edits(self) -> tuple[str, ...]:
        """Kinds that `edit` takes; gravity if slots are believed to fall."""
        return ("move", "push", "recolour", "remove", "add", *(["gravity"] if self.pull else []))

    def edit(self, scene: Scene, edits: Edits) -> Scene:
        """The scene with a change in it: see `slot_edit`."""
        return slot_edit.apply(scene, edits, self.cells, self.pull, self.look_at)

    def nudged(
        self, scene: Scene, place: Float[Array, "b k 2"], speed: Float[Array, "b k 2"]
    ) -> Scene:
        """The scene with slots so far away and so much faster."""
        return scene._replace(place=scene.place + place, speed=scene.speed + speed)

    def objects(self, carry: Scene) -> Objects:
        """What is in the slots."""
        coverage, known = templates.coverage_and_known(carry.template)
        lead, side = carry.place.shape[:2], self.sight
        return Objects(
            place=carry.place,
            speed=carry.speed,
            present=motion.followed(self, carry)[..., 0],
            colour=carry.colour / CONTRAST,
            coverage=coverage.reshape(*lead, side, side),
            known=templates.whole(coverage, known)[..., 0],
        )

    def _read(self, embeddings: Float[Array, "*lead p c"]):
        """Pixels and background in the tracker's units."""
        coarse = self._coarser()
        if self.shading:
            side = min(GROUND, coarse.cells[0])
            parts = squares(embeddings, self.cells, self.cells[0] // side).mean(-2)
            ground = background_plane(parts, addresses((side, side)), addresses(coarse.cells))
        else:
            shown = squares(embeddings, self.cells, self.train_pool).mean(-2)
            ground = background(squares(shown, coarse.cells, coarse.pool).mean(-2))
        return CONTRAST * embeddings, CONTRAST * ground

    def _read_stage(self, bare: Float[Array, "*lead p c"]):
        """The stage's reading of its cells, of a frame with the background where slots are: what
        moves would leave a mark where it was when frames stopped coming."""
        coarse = self._coarser()
        shown = squares(bare / CONTRAST, self.cells, self.train_pool).mean(-2)
        shown = squares(shown, coarse.cells, coarse.pool)
        shown = shown.reshape(*shown.shape[:-2], -1)
        return self.stage.seen_in(nn.silu(self.stage_in(shown - 0.5)))

    def look_at(self, template: Float[Array, "*lead two_s"]):
        """The looks of the whole object, and how far its middle is from that of what is known."""
        coverage, known = templates.coverage_and_known(template)
        parts = templates.coarse(2 * coverage * known), templates.coarse(known)
        maps = jnp.concatenate(parts, -1)
        missing = jnp.minimum(4 * (1 - templates.whole(coverage, known)), 1.0)
        return jnp.tanh(self.looks(maps)), missing * self.rest(maps) / 8

    def _finish(self, scene: Scene) -> Scene:
        """Looks, and places of which not all was seen, after `tracking.correct`."""
        look, shift = self.look_at(scene.template)
        moved = turned(shift, scene.turn) if self.spin else shift
        return scene._replace(look=look, place=scene.place + moved, middle=scene.middle + shift)

    def _correct(
        self, prior: Scene, unseen: Scene, seen, observed: Bool[Array, " b"] | None
    ) -> Scene:
        pixels, ground = seen
        scene, bare = tracking.correct(prior, pixels, ground, self.cells, self.pull, self.spin)
        stage = self.stage.correct(prior.stage, self._read_stage(bare), None)
        scene = self._finish(scene._replace(stage=stage, shown=scene.told))
        return scene if observed is None else reset(unseen, scene, observed)
