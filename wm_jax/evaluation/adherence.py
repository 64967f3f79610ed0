"""Prompt adherence: the sentence's event happens, to the right object, as the instrument sees it.

A rollout after a sentence is read against the same rollout without it. What a sentence does not say
(how hard a push is, how far a move) is not asked; what it says is: who, which way, which colour,
where. The same reading of the true twin decides which clips are asked at all, so an object behind a
bar is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from wm_jax.evaluation.counterfactual import Twins
from wm_jax.evaluation.lighting import GREY
from wm_jax.evaluation.protocol import CausalProtocol
from wm_jax.evaluation.tracker import Instrument, Tracks
from wm_jax.evaluation.world import Clips
from wm_jax.naming import SHAPE_NAMES
from wm_jax.sentences import WAYS

#: Steps after the change at which its event is read: of what is there at once, of a push, a fall.
SOON, PUSHED, FELL = 2, 4, 10
#: px at 64, least displacement of what was pushed, moved, of all that falls; and by how much places
#: may differ that should be one.
PUSH, MOVE, FALL, SAME = 1.0, 3.0, 0.3, 4.0
#: Least change of the background's brightness, as a share.
BRIGHTER = 0.02
#: Least cosine of the angle between how the view moved and how it should have.
ALONG = 0.7


class View(NamedTuple):
    """Rollouts of r clips, and what the instrument reads off them."""

    frames: UInt8[np.ndarray, "r t h w 3"]
    tracks: Tracks


class Asked(NamedTuple):
    """One sentence: its words, the hues that it is about and that come of it (-1: none), and the
    mean way, px, that objects of the true twin are shifted at step `SOON`."""

    kind: str
    words: str
    hue: int
    new_hue: int
    shift: Float[np.ndarray, "2"]


def look(clips: Clips, protocol: CausalProtocol, instrument: Instrument) -> View:
    """The true future of some clips, as far as sentences are about it."""
    frames = clips.frames[:, protocol.context : protocol.context + FELL]
    return View(frames, instrument.track(frames))


def ask(
    twin: Twins, facts: Clips, plain: View, protocol: CausalProtocol, instrument: Instrument
) -> list[Asked | None]:
    """What each clip is asked; None where the instrument would not see it happen in truth. The
    ``plain`` view is that of ``facts``."""
    after = look(twin.clips, protocol, instrument)
    unit, out = protocol.resolution / 64, []
    changes = twin.stages[0].changes
    for clip, words in enumerate(twin.stages[0].words):
        slot = max(int(changes.target[clip]), 0)
        now = protocol.context - 1
        hue = int(facts.truth.hue[clip, now, slot])
        new_hue = int(twin.clips.truth.hue[clip, now + 1, slot])
        moved = _Pair(clip, plain, after, unit).moved(SOON)
        moved = moved[np.isfinite(moved).all(-1)]
        shift = moved.mean(0) if len(moved) else np.full(2, np.nan)
        one = Asked(changes.kind, words, hue, new_hue, shift)
        seen = changes.valid[clip] and happened(one, clip, plain, after, unit)
        out.append(one if seen else None)
    return out


def answer(
    asked: Sequence[Asked | None], plain: View, after: View, resolution: int
) -> Bool[np.ndarray, " r"]:
    """Whether it happened, by clip; False where nothing was asked."""
    unit = resolution / 64
    each = [a is not None and happened(a, i, plain, after, unit) for i, a in enumerate(asked)]
    return np.array(each, bool)


def happened(asked: Asked, clip: int, plain: View, after: View, unit: float) -> bool:
    """Whether ``after`` (with the sentence) shows the event, against ``plain`` (without).

    unit: px in a 64th of the frame
    """
    return bool(_READ[asked.kind](asked, _Pair(clip, plain, after, unit)))


class _Pair(NamedTuple):
    clip: int
    plain: View
    after: View
    unit: float

    def there(self, view: View, step: int) -> Bool[np.ndarray, " k"]:
        return view.tracks.present[self.clip, step - 1]

    def place(self, view: View, step: int) -> Float[np.ndarray, "k 2"]:
        return view.tracks.position[self.clip, step - 1]

    def moved(self, step: int) -> Float[np.ndarray, "k 2"]:
        """px, by hue; NaN where one of the two does not show it."""
        return self.place(self.after, step) - self.place(self.plain, step)


def _is_way(vector: Float[np.ndarray, "2"], words: str, least: float) -> bool:
    way = next((np.array(WAYS[word]) for word in words.split() if word in WAYS), None)
    if way is None or not np.isfinite(vector).all():
        return False
    along = float(vector @ way)
    return along >= least and along >= np.abs(vector).max() - 1e-9


def _shoved(step: int, least: float) -> Callable[[Asked, _Pair], bool]:
    def read(asked: Asked, pair: _Pair) -> bool:
        moved = pair.moved(step)
        far = np.linalg.norm(moved, axis=-1)
        others = np.delete(far, asked.hue)
        most = others[np.isfinite(others)].max(initial=0.0)
        right = _is_way(moved[asked.hue], asked.words, least * pair.unit)
        return right and far[asked.hue] >= most

    return read


def _recoloured(asked: Asked, pair: _Pair) -> bool:
    before, now = pair.there(pair.plain, SOON), pair.there(pair.after, SOON)
    off = pair.place(pair.after, SOON)[asked.new_hue] - pair.place(pair.plain, SOON)[asked.hue]
    turned = before[asked.hue] and not before[asked.new_hue] and now[asked.new_hue]
    return turned and not now[asked.hue] and np.hypot(*off) <= SAME * pair.unit


def _removed(asked: Asked, pair: _Pair) -> bool:
    before, now = pair.there(pair.plain, SOON), pair.there(pair.after, SOON)
    rest = np.arange(len(now)) != asked.hue
    return before[asked.hue] and not now[asked.hue] and (now[rest] == before[rest]).all()


def _added(asked: Asked, pair: _Pair) -> bool:
    before, now = pair.there(pair.plain, SOON), pair.there(pair.after, SOON)
    if before[asked.new_hue] or not now[asked.new_hue]:
        return False
    shape = pair.after.tracks.shape[pair.clip, SOON - 1, asked.new_hue]
    named = shape >= 0 and SHAPE_NAMES[shape] in asked.words
    place = pair.place(pair.after, SOON)[asked.new_hue] / (64 * pair.unit)
    names = (("left", "", "right"), ("top", "", "bottom"))
    thirds = [row[min(int(3 * x), 2)] for row, x in zip(names, place, strict=True)]
    said = [word for row in names for word in row if word and word in asked.words.split()]
    return named and said == [third for third in thirds if third]


def _lit(asked: Asked, pair: _Pair) -> bool:
    levels = []
    for view in (pair.plain, pair.after):
        frame = view.frames[pair.clip, SOON - 1]
        grey = np.ptp(frame, axis=-1) <= GREY
        levels.append(float(np.median(frame[grey])) if grey.any() else 0.0)
    change = levels[1] / max(levels[0], 1e-6) - 1
    return change >= BRIGHTER if "brighter" in asked.words else change <= -BRIGHTER


def _viewed(asked: Asked, pair: _Pair) -> bool:
    moved = pair.moved(SOON)
    moved = moved[np.isfinite(moved).all(-1)]
    if not len(moved) or not np.isfinite(asked.shift).all():
        return False
    mean = moved.mean(0)
    sizes = float(np.linalg.norm(mean) * np.linalg.norm(asked.shift))
    return sizes > 0 and float(mean @ asked.shift) >= ALONG * sizes


def _fell(asked: Asked, pair: _Pair) -> bool:
    moved = pair.moved(FELL)
    moved = moved[np.isfinite(moved).all(-1)]
    return len(moved) > 0 and _is_way(moved.mean(0), asked.words, FALL * pair.unit)


_READ: dict[str, Callable[[Asked, _Pair], bool]] = {
    "move": _shoved(1, MOVE),
    "push": _shoved(PUSHED, PUSH),
    "recolour": _recoloured,
    "remove": _removed,
    "add": _added,
    "light": _lit,
    "camera": _viewed,
    "gravity": _fell,
}
