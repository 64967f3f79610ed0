"""What `GridSlots.teach` measures: three errors, none of which rewards hedging.

All take the bound module (``dynamics``), whose prediction and reading they are about, and slots
that `GridSlots.follow` found: fields (b, t, …) of a `Scene`, without a gradient.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wm_jax.models.dynamics import motion, templates
from wm_jax.models.dynamics.contract import reset
from wm_jax.models.dynamics.tracking import Scene
from wm_jax.nn.compute import over_time
from wm_jax.nn.gradient import steady

#: A slot's future is compared from where its speed is known this well: variance, 64ths a step.
KNOWN = 0.01
#: A turn is compared where it is known this well: variance, radians. It counts as the way that a
#: point makes so far from the middle, in shares of the frame.
TURN_KNOWN, RIM = 0.01, 0.05
#: Longest gradient (see `motion.LONGEST`) of all that the steps from one start say of a slot's
#: outline. Sound weights have 4 in the longest of a hundred.
LONGEST_BODY = 4.0


def stages(
    dynamics: Any,
    start: Float[Array, "b n d"],
    cells: Float[Array, "b t n e"],
    observed: Bool[Array, "b t"] | None,
    told: Float[Array, "b t k"],
    is_first: Bool[Array, "b t"],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Fields of a `Scene` that are about the stage (b, t, …): after each frame, all seen, and
    before it, where only the ``observed`` were; in between it is as it was last seen."""
    fresh, heard = dynamics.initial(is_first.shape[0]), dynamics.stage.told_in(told)

    def see(module, stage, inputs):
        cells, heard, is_first = inputs
        prior = module.stage.predict(reset(stage, fresh.stage, is_first), heard)
        stage = module.stage.correct(prior, cells, None)
        return stage, stage

    def imagine(module, last, inputs):
        seen, observed, is_first = inputs
        last = reset(last, (fresh.stage, fresh.told), is_first)
        return reset(last, seen, observed), last

    shown = over_time(see)(dynamics, start, (cells, heard, is_first))[1]
    if observed is None:
        observed = jnp.ones_like(is_first)
    inputs = (shown, told), observed, is_first
    stage, then = over_time(imagine)(dynamics, (start, fresh.told), inputs)[1]
    seen, imagined = {"stage": shown, "shown": told}, {"stage": stage, "shown": then}
    return {**seen, "told": told}, {**imagined, "told": told}


def whole_error(dynamics: Any, slots: Scene, key: jax.Array) -> Float[Array, "b t"]:
    """Hides a part of every slot that was seen whole; its looks and its middle should stay. In
    eighths of the frame, summed over slots."""
    template = slots.template.reshape(-1, *slots.template.shape[2:])
    part, target = templates.hide(template, key, dynamics.cells)
    left = templates.coarse(templates.coverage_and_known(part)[0]).sum(-1) > 1
    seen = templates.whole(*templates.coverage_and_known(template))[..., 0] > 0.95
    look, shift = dynamics.look_at(part)
    off = 8 * jnp.sqrt(jnp.square(shift - target).sum(-1) + 1e-6)
    unlike = jnp.square(look - jax.lax.stop_gradient(dynamics.look_at(template)[0])).mean(-1)
    error = ((off + unlike) * left * seen).reshape(slots.present.shape[:-1])
    return (error * (slots.present[..., 0] > 0.8)).sum(-1)


def _fullest(slots: Scene, count: int) -> Scene:
    """The ``count`` slots of a window that hold something for longest: pairs of empty ones cost as
    much and teach nothing. (b, t, …) as before."""
    if not 0 < count < slots.present.shape[2]:
        return slots
    held = slots.present[..., 0].sum(1)
    chosen = jnp.sort(jnp.argsort(-held, axis=-1)[:, :count], -1)[:, None, :, None]
    whole = ("stage", "past", "told", "shown")
    fewer = {
        name: jnp.take_along_axis(value, chosen, 2)
        for name, value in slots._asdict().items()
        if name not in whole
    }
    return slots._replace(**fewer)


def place_error(
    dynamics: Any, slots: Scene, told: Float[Array, "b t k"], is_first: Bool[Array, "b t"]
) -> Float[Array, "b t"]:
    """From every frame ``dynamics.foresight`` steps are imagined: the mean distance of slots from
    where the frames then show them, in eighths of the frame, over steps and summed over slots."""
    batch, time = is_first.shape
    starts = time - 1
    slots = _fullest(slots, dynamics.taught)
    trusted = (slots.present * slots.visible)[..., 0]
    known = (slots.present[..., 0] > 0.8) & (slots.spread[..., 4:6].max(-1) < KNOWN)
    # A blow that the prediction missed shows a frame late: until then a speed looks known.
    begun = trusted[:, :starts] * (known[:, :-1] & known[:, 1:])
    told_turn = slots.sway[..., 0] < TURN_KNOWN  # never of a disc
    stream = jnp.cumsum(is_first, 1)
    begin = jax.tree.map(lambda x: x[:, :starts].reshape(-1, *x.shape[2:]), slots)
    bodies = motion.bodies_of(dynamics, begin)
    bodies = jax.tree.map(lambda x: steady(x, LONGEST_BODY), bodies)

    def ahead(module, moving, step):
        at = jnp.arange(starts) + step
        real = (at < time) & (stream[:, jnp.minimum(at, time - 1)] == stream[:, :starts])
        at = jnp.minimum(at, time - 1)
        hears = told[:, at].reshape(batch * starts, -1)
        scene = begin._replace(**{k: steady(x, motion.LONGEST) for k, x in moving.items()})
        alone = {"stage": False, "past": False, "imagined": True}
        scene = motion.predict(module, scene, hears, bodies=bodies, **alone)
        off = scene.place.reshape(batch, starts, -1, 2) - slots.place[:, at]
        off = jnp.square(off).sum(-1)
        if dynamics.spin:
            twist = scene.turn.reshape(batch, starts, -1) - slots.turn[..., 0][:, at]
            off = off + jnp.square(RIM * twist) * told_turn[:, :starts] * told_turn[:, at]
        distance = jnp.sqrt(64 * off + 4e-4) - 0.02
        moving = {name: getattr(scene, name) for name in moving}
        return moving, (distance * trusted[:, at] * begun).sum(-1) * real

    # What stays as it is does not travel through the scan.
    changing = ("place", "speed", "visible", "told", *(("turn", "rate") if dynamics.spin else ()))
    moving = {name: getattr(begin, name) for name in changing}
    steps = jnp.arange(1, dynamics.foresight + 1)
    _, error = over_time(ahead, 0, 0)(dynamics, moving, steps)
    return jnp.pad(error.mean(0), ((0, 0), (0, 1)))
