"""Interventions as a model is told them: `wm_jax.edit.Edits`, a vector and a mask a frame, or words
with all their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from data_pipelines.twins.geometry import project
from data_pipelines.twins.language import a_thing
from data_pipelines.twins.render import PALETTE
from data_pipelines.twins.world import ARENA, HUES
from wm_jax.edit import KINDS, OF_OBJECTS, TOLD, Edits, as_vector, no_edits


def fields(
    kind: str, params: Float[np.ndarray, "r 8"], camera: Float[np.ndarray, "r 3"]
) -> dict[str, np.ndarray]:
    """Those of `Edits` that the parameters of a kind say: places and sizes as the camera shows
    them, in shares of the frame."""
    zoom = np.exp(camera[:, 2])

    def shown(places: np.ndarray) -> np.ndarray:
        return project(places, camera, 1)

    def length(sizes: np.ndarray) -> np.ndarray:
        return sizes * (zoom[:, None] if sizes.ndim == 2 else zoom) / ARENA

    if kind == "move":
        return {"place": shown(params[:, :2])}
    if kind == "push":
        return {"speed": length(params[:, :2])}
    if kind == "recolour":
        return {"paint": PALETTE[params[:, 0].astype(int)]}
    if kind == "gravity":
        return {"pull": length(params[:, :2])}
    if kind != "add":
        return {}
    return {
        "place": shown(params[:, :2]),
        "speed": length(params[:, 2:4]),
        "paint": PALETTE[params[:, 4].astype(int)],
        "shape": params[:, 5].astype(np.int32),
        "radius": length(params[:, 6]),
    }


def exactly(
    kind: str,
    who: str,
    params: Float[np.ndarray, " 8"],
    camera: Float[np.ndarray, " 3"],
    resolution: int,
    light: Float[np.ndarray, " 3"] | None = None,
) -> str | None:
    """The sentence that says all there is to say of an intervention: lengths in px of frames of
    this resolution, as the camera shows them. None of a recolouring and a removal, of which the
    data set's own says all, and of the light where it is not told how it is now.

    >>> exactly("push", "the red circle", np.array([1.25, -2, 0, 0, 0, 0, 0, 0]), np.zeros(3), 32)
    'the red circle is pushed by (0.62, -1.00)'
    """
    told = {k: resolution * v[0] for k, v in fields(kind, params[None], camera[None]).items()}

    def pair(name: str, digits: int) -> str:
        return "(" + ", ".join(f"{x:.{digits}f}" for x in told[name]) + ")"

    if kind == "move":
        return f"{who} is moved to {pair('place', 1)}"
    if kind == "push":
        return f"{who} is pushed by {pair('speed', 2)}"
    if kind == "gravity":
        return f"gravity now pulls by {pair('pull', 4)}"
    if kind == "camera":
        x, y, zoom = params[:3]
        return f"the camera moves by ({x:.2f}, {y:.2f}) and zooms {np.exp(zoom):.3f} times"
    if kind == "light" and light is not None:
        gain, x, y = light + params[:3]
        return f"the light goes to {gain:.3f} with a gradient of ({x:.3f}, {y:.3f})"
    if kind != "add":
        return None
    what, size = a_thing(params[4], params[5]), f"{told['radius']:.1f} px"
    return f"{what} of {size} appears at {pair('place', 1)} and moves by {pair('speed', 2)}"


def filled(given: Mapping[str, Any], count: int) -> Edits:
    """Edits with these fields, and zeros for the rest."""
    out = no_edits(count)
    like = out._asdict()
    return out._replace(**{k: np.asarray(v, like[k].dtype) for k, v in given.items()})


def intervention(
    episode: Mapping[str, Any], camera: Float[np.ndarray, "T 3"] | None = None
) -> tuple[Float[np.ndarray, "T 24"], Bool[np.ndarray, " T"]]:
    """The condition ``intervention`` of an episode, said of the frame after which it acts, and
    where it is said. A change of what is told anyway, light and camera, is not said.

    Nothing of ``truth`` is read: the object that is meant is the one that the sentence names.
    """
    length = len(episode["is_first"])
    values, said = np.zeros((length, 24), np.float32), np.zeros(length, bool)
    kind, frame = str(episode["intervention/kind"]), int(episode["intervention/frame"])
    if not kind or kind in TOLD or not 0 <= frame < length:
        return values, said
    view = np.zeros((1, 3), np.float32) if camera is None else camera[frame : frame + 1]
    params = np.asarray(episode["intervention/params"])[None]
    named = [HUES.index(w) for w in str(episode["intervention/sentence"]).split() if w in HUES]
    given: dict[str, Any] = fields(kind, params, view) | {"kind": [KINDS.index(kind)]}
    if named and kind in OF_OBJECTS:
        given["named"] = PALETTE[named[:1]]
    values[frame], said[frame] = as_vector(filled(given, 1))[0], True
    return values, said
