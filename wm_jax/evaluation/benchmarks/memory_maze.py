"""Trajectories of Memory Maze (Pasukonis et al. 2022, arXiv 2210.13383), for offline probing.

The folder is one of the two offline data sets (9x9 or 15x15), with its files in two folders:

    FOLDER/train/**/*.npz    the read-outs learn from these (29,000 trajectories as published)
    FOLDER/eval/**/*.npz     and are scored on these (1,000)

Each file is a trajectory of 1,000 steps, so all arrays have 1,001 times (the layout may have none):

    image         uint8 (64, 64, 3), what the agent sees
    action        (6,) one-hot, the *last* action: stay, forward, left, right, forward and left,
                  forward and right. Models that are told ``actions`` get (forward, turn), the turn
                  -1 to the left and 1 to the right, as of the frame before
    maze_layout   (9, 9) or (15, 15), 1 where one can walk, 0 where a wall is
    agent_pos     (2,) in cells of the grid; agent_dir (2,), a unit vector
    targets_vec   (3, 2) or (6, 2), cells: where each object is, as the agent sees it

Layout of the arrays: README of jurgisp/memory-maze. What the authors' probe is given (the state; of
the walls the agent's place and direction too) and the squared distance as the objects' error follow
`pydreamer/models/probes.py` of jurgisp/pydreamer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from wm_jax.errors import UserError
from wm_jax.evaluation.benchmarks.readout_states import evenly

#: (forward, turn) of each of the six actions.
ACTIONS = np.array([[0, 0], [1, 0], [0, -1], [0, 1], [1, -1], [1, 1]], np.float32)
#: What a file must hold, and the shape of it at one time; a letter is any number.
FIELDS = {
    "image": ("h", "w", 3),
    "action": (len(ACTIONS),),
    "maze_layout": ("c", "c"),
    "agent_pos": (2,),
    "agent_dir": (2,),
    "targets_vec": ("o", 2),
}


class Trajectories(NamedTuple):
    """Some trajectories: what is seen and done, and what is true at the moments that are looked at.

    layout:  whether each cell can be walked on
    objects: in cells, as the agent sees them
    pose:    the agent's place, in cells, and direction
    """

    frames: UInt8[np.ndarray, "r t h w 3"]
    actions: Float[np.ndarray, "r t 2"]
    layout: Float[np.ndarray, "r s c"]
    objects: Float[np.ndarray, "r s o 2"]
    pose: Float[np.ndarray, "r s 4"]


def files_of(folder: Path, split: str, most: int) -> list[Path]:
    """At most so many of a split's trajectories, evenly chosen in the order of their names."""
    found = sorted((folder / split).rglob("*.npz"))
    if not found:
        raise UserError(
            f"{folder} has no file {split}/*.npz; Memory Maze has its trajectories in the folders "
            "'train' and 'eval'."
        )
    return [found[i] for i in evenly(len(found), most)]


def batches(
    files: Sequence[Path], length: int, looks: Sequence[int], size: int
) -> Iterator[Trajectories]:
    """Trajectories of ``length`` frames, ``size`` at a time, with the truth after ``looks`` frames.
    Raises `UserError` for a file that is not one."""
    wanted: list[tuple[int, ...]] = []
    for begin in range(0, len(files), size):
        each = []
        for path in files[begin : begin + size]:
            one = _read(path, length, looks)
            wanted = wanted or [x.shape for x in one]
            if [x.shape for x in one] != wanted:
                raise UserError(
                    f"{path} is of another size than {files[0]}; mazes of one size are scored at a "
                    "time."
                )
            each.append(one)
        yield Trajectories(*(np.stack(x) for x in zip(*each, strict=True)))


def _read(path: Path, length: int, looks: Sequence[int]) -> Trajectories:
    """One trajectory, without the leading axis."""
    data = _load(path)
    layout = data["maze_layout"]
    if layout.ndim == 2:
        data["maze_layout"] = np.broadcast_to(layout, (len(data["image"]), *layout.shape))
    _check(path, data, length)
    seen = np.array(looks) - 1
    # The file's action led to its frame, ours leaves from it; the last frame's is never asked.
    done = data["action"][1 : length + 1].argmax(-1)
    actions = ACTIONS[np.pad(done, (0, length - len(done)))]
    pose = np.concatenate([data["agent_pos"][seen], data["agent_dir"][seen]], -1)
    cells = data["maze_layout"][seen].reshape(len(seen), -1)
    return Trajectories(
        data["image"][:length],
        actions,
        (cells > 0).astype(np.float32),
        data["targets_vec"][seen].astype(np.float32),
        pose.astype(np.float32),
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            missing = [name for name in FIELDS if name not in file.files]
            if not missing:
                return {name: file[name] for name in FIELDS}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no file of arrays of NumPy ({error}).") from None
    raise UserError(f"{path} has no array '{missing[0]}', which a trajectory of Memory Maze has.")


def _check(path: Path, data: dict[str, np.ndarray], length: int) -> None:
    for name, shape in FIELDS.items():
        array = data[name]
        sizes: dict[str, int] = {}
        fits = array.ndim == len(shape) + 1 and all(
            (sizes.setdefault(want, got) if isinstance(want, str) else want) == got
            for want, got in zip(shape, array.shape[1:], strict=True)
        )
        if not fits or len(array) < length or (name == "image" and array.dtype != np.uint8):
            wanted = ", ".join(map(str, (f"at least {length}", *shape)))
            raise UserError(
                f"{path}: {name} is {array.dtype} {array.shape} and must be "
                f"{'uint8 ' if name == 'image' else ''}({wanted})."
            )
