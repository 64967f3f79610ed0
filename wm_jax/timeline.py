"""Futures of one scene: fork, rewind, branch, compare, and replay to the bit.

    line = Timeline(world, frames)
    line.play(20)                                      # the branch 'main'
    line.fork("pushed", at=5)                          # as main was at its frame 5
    line.edit("the red ball is pushed left", "pushed")
    line.play(15, "pushed")
    line.compare("main", "pushed")                     # px each object is away, frame by frame
    line.save("timeline.json")

Frame 0 of a branch is the scene after the context, before any step. What is saved is what it takes
to make it again: which checkpoint, what was shown and told, the seed, the edits and when; and the
digest of every branch's frames, so that a replay can say whether it is the same to the bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from wm_jax import __version__, shapes
from wm_jax.edit import Change, Objects, Said, as_list, from_json, to_json
from wm_jax.errors import UserError
from wm_jax.shapes import LatentState
from wm_jax.world import World, pixels

FORMAT = 1
#: After which frame what was changed, and by which route (None: the model's first that fits).
Made = tuple[int, str | Change, str | None]


@dataclasses.dataclass
class Branch:
    """One future. scenes[t], frames[t] and objects[t] are frame t as it was arrived at; edits are
    made after the frame they are listed with, before the next step.

    parent: the branch it was forked from, and at which of its frames; ('', 0) of 'main'
    now:    the last scene with the edits made since
    """

    parent: tuple[str, int]
    now: LatentState
    scenes: list[LatentState]
    frames: list[UInt8[np.ndarray, "h w 3"]]
    objects: list[Objects | None]
    edits: list[Made]

    @property
    def length(self) -> int:
        """Frames after the context."""
        return len(self.frames) - 1

    def until(self, frame: int, parent: tuple[str, int]) -> Branch:
        """What it was when it arrived at a frame."""
        kept, upto = [edit for edit in self.edits if edit[0] < frame], slice(frame + 1)
        past = self.scenes[upto], self.frames[upto], self.objects[upto]
        return Branch(parent, self.scenes[frame], *past, kept)


#: What `Timeline.to_json` has, without which nothing can be made again.
KEYS = {"checkpoint", "seed", "source", "shown_sha256", "told", "ahead", "branches"}


def read(path: str | Path) -> dict[str, Any]:
    """What `Timeline.save` wrote. Raises `UserError` where there is none."""
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no JSON ({error}).") from None
    if not isinstance(saved, dict) or not saved.keys() >= KEYS:
        raise UserError(f"{path} is no timeline; 'wm-jax edit' writes one.")
    return saved


class Timeline:
    """See the module's docstring. One stream, not a batch.

    told:   what the frames were told, (t, k) by name, as `World.encode` takes it
    ahead:  what the steps are told, (steps, k) by name, aligned to steps; the last row holds on
    source: where the frames are from, for the file: kept as it is
    """

    def __init__(
        self,
        world: World,
        frames: UInt8[np.ndarray, "t h w 3"],
        *,
        told: Mapping[str, Any] | None = None,
        ahead: Mapping[str, Any] | None = None,
        seed: int = 0,
        source: Mapping[str, Any] | None = None,
    ):
        self.world, self.seed = world, seed
        self.shown = np.asarray(frames)
        self.told = {k: np.asarray(v, np.float32) for k, v in (told or {}).items()}
        self.ahead = {k: np.asarray(v, np.float32) for k, v in (ahead or {}).items()}
        self.source = dict(source or {})
        start = world.encode(self.shown, seed=seed, **self.told)
        picture, objects = world.decode(start)[0], world.objects(start)
        self.branches = {"main": Branch(("", 0), start, [start], [picture], [objects], [])}

    def branch(self, name: str = "main") -> Branch:
        """Raises `UserError` for a name that is none."""
        if name not in self.branches:
            raise UserError(f"there is no branch '{name}'; there are {', '.join(self.branches)}.")
        return self.branches[name]

    def fork(self, name: str, branch: str = "main", at: int | None = None) -> Branch:
        """A new branch that has the past of ``branch`` up to a frame (by default all of it), and of
        the edits made right at that frame those only if it is the last one."""
        if name in self.branches:
            raise UserError(f"there is a branch '{name}' already; choose another name.")
        old = self.branch(branch)
        at = self._at(old, at)
        self.branches[name] = new = old.until(at, (branch, at))
        if at == old.length:
            new.now, new.edits = old.now, list(old.edits)
        return new

    def rewind(self, at: int, branch: str = "main") -> None:
        """Forgets what came after a frame, and edits made at it."""
        old = self.branch(branch)
        self.branches[branch] = old.until(self._at(old, at), old.parent)

    def edit(self, changes: Said, branch: str = "main", route: str | None = None) -> None:
        """Changes made at the branch's last frame; see `World.edit`. All of them, or none."""
        there = self.branch(branch)
        scene, made = there.now, list[Made]()
        for change in as_list(changes):
            meant = self.world.meant(scene, change, route)
            scene = self.world.edit(scene, meant, route)
            made.append((there.length, meant, route))
        there.now = scene
        there.edits += made

    def play(self, steps: int, branch: str = "main") -> None:
        """``steps`` more frames of a branch."""
        there = self.branch(branch)
        for _ in range(steps):
            told = self._told(there.length)
            there.now, frame, objects = self.world.advance(there.now, told, self.seed)
            there.scenes.append(there.now)
            there.frames.append(pixels(frame)[0])
            there.objects.append(objects)

    def compare(self, one: str, other: str) -> dict[str, Float[np.ndarray, " t"]]:
        """Over the frames that both branches have: 'pixels', the mean absolute difference in grey
        levels, and for each object that is in both throughout 'slot N', px between its places."""
        a, b = self.branch(one), self.branch(other)
        time = min(a.length, b.length) + 1
        first, second = (np.stack(x.frames[:time]).astype(np.float32) for x in (a, b))
        out = {"pixels": np.abs(first - second).mean((1, 2, 3))}
        if a.objects[0] is None:
            return out
        places, there = [], []
        for line in (a, b):
            seen = [x for x in line.objects[:time] if x is not None]
            places.append(np.stack([np.asarray(x.place)[0] for x in seen]))
            there.append(np.stack([np.asarray(x.present)[0] for x in seen]) > 0.5)
        away = self.world.resolution * np.linalg.norm(places[0] - places[1], axis=-1)
        for slot in np.flatnonzero(there[0].all(0) & there[1].all(0)):
            out[f"slot {slot}"] = away[:, slot]
        return out

    def to_json(self) -> dict[str, Any]:
        """See the module's docstring."""
        return {
            "format": FORMAT,
            "wm_jax": __version__,
            "jax": jax.__version__,
            "checkpoint": {
                "path": self.world.path,
                "updates": self.world.updates,
                "sha256": self.world.digest(),
            },
            "seed": self.seed,
            "source": self.source,
            "shown_sha256": hashlib.sha256(self.shown.tobytes()).hexdigest(),
            "told": {k: v.tolist() for k, v in self.told.items()},
            "ahead": {k: v.tolist() for k, v in self.ahead.items()},
            "branches": {
                name: {
                    "parent": list(branch.parent),
                    "length": branch.length,
                    "edits": [_saved(*made) for made in branch.edits],
                    "sha256": self._digest(branch),
                }
                for name, branch in self.branches.items()
            },
        }

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def replay(cls, told: Mapping[str, Any], world: World, frames: np.ndarray) -> Timeline:
        """The timeline of `to_json` again, from the same checkpoint and frames. Raises `UserError`
        where those are others; see `differs` for the bits."""
        if told.get("format") != FORMAT:
            raise UserError(
                f"the timeline has format {told.get('format')} and this version reads {FORMAT}."
            )
        if told["checkpoint"]["sha256"] != world.digest():
            raise UserError(
                f"the timeline was made with {told['checkpoint']['path']} at update "
                f"{told['checkpoint']['updates']}; {world.path} has other weights."
            )
        if told["shown_sha256"] != hashlib.sha256(np.asarray(frames).tobytes()).hexdigest():
            raise UserError(f"the timeline began with other frames: {told['source']}.")
        line = cls(
            world, frames, told=told["told"], ahead=told["ahead"], seed=told["seed"],
            source=told["source"],
        )  # fmt: skip
        start = line.branches.pop("main")
        for name, branch in told["branches"].items():
            line.branches[name] = start.until(0, tuple(branch["parent"]))
            line._repeat(name, branch)
        return line

    def differs(self, told: Mapping[str, Any]) -> list[str]:
        """Branches whose frames are not to the bit what they were when ``told`` was saved."""
        branches = told["branches"].items()
        return [k for k, b in branches if self._digest(self.branch(k)) != b["sha256"]]

    def _repeat(self, name: str, told: Mapping[str, Any]) -> None:
        for frame in range(told["length"] + 1):
            for at, change, *route in told["edits"]:
                if at == frame:
                    self.edit([from_json(change)], name, *route)
            self.play(int(frame < told["length"]), name)

    def _told(self, index: int) -> shapes.Conditions | None:
        if not self.ahead:
            return None
        rows = {k: v[min(index, len(v) - 1)][None, None] for k, v in self.ahead.items()}
        return shapes.at_time(self.world.told(rows, (1, 1)), 0)

    def _digest(self, branch: Branch) -> str:
        return hashlib.sha256(np.stack(branch.frames).tobytes()).hexdigest()

    def _at(self, branch: Branch, at: int | None) -> int:
        at = branch.length if at is None else at
        if not 0 <= at <= branch.length:
            raise UserError(f"frame {at} is not of this branch, which ends at {branch.length}.")
        return at


def _saved(frame: int, change: str | Change, route: str | None) -> list[Any]:
    """An edit in the file; a route is said only where one was asked for."""
    return [frame, to_json(change), *([route] if route else [])]
