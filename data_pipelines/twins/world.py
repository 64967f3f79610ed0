"""The worlds, their splits, and the random numbers of a scene.

World units: the arena is the square [0, 64] x [0, 64], x to the right and y down, so one world
unit is resolution/64 px under the identity camera. Time is counted in frames.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from wm_jax.errors import UserError

VERSION = "1.0.0"  # any change to the bytes of an episode changes it
ARENA = 64.0
MAX_OBJECTS = 8
FPS = 16.0

# Nine hues 40 degrees apart, so that a tracker can name an object by its colour alone.
HUES = ("red", "orange", "lime", "green", "mint", "azure", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle")

# A scene seed ends with the split's place in this list, so two splits can't share a scene.
SPLITS = (
    "train",
    "validation",
    "test",
    "test_more_objects",
    "test_long_occlusion",
    "test_new_pairs",
    "test_strong_push",
)
SHIFTED = SPLITS[3:]

Index = int | np.integer  # of a hue, a shape or a slot


@dataclasses.dataclass(frozen=True)
class World:
    """The ranges a scene is drawn from. Lengths in world units, times in frames."""

    name: str
    objects: tuple[int, int]  # fewest and most, inclusive
    radius: tuple[float, float]  # of the circle of the same area
    speed: tuple[float, float]  # at frame 0
    occluders: tuple[int, int]
    occluder_width: tuple[float, float]
    rigid: bool = False  # equal masses, no rotation: near enough to billiards to be predictable
    restitution: tuple[float, float] = (1.0, 1.0)
    friction: tuple[float, float] = (0.0, 0.0)
    gravity: tuple[float, float] = (0.0, 0.0)  # size where there is any, world units a frame^2
    weightless: float = 1.0  # share of scenes without gravity
    hand_speed: float = 0.0  # largest desired speed of the hand; 0: no hand
    keys: bool = False  # the hand goes one of eight ways, or rests: discrete actions
    drifting: bool = False  # light and camera differ from scene to scene, and may drift
    texture: float = 0.0  # amplitude of each grating of the background
    push: tuple[float, float] = (0.8, 1.8)  # change of speed that `push` makes
    slowest: float = 1.0  # median speed over objects and 64 frames; slower scenes are redrawn
    new_pairs: bool = False  # the hue-shape pairs that training never shows, and only those


_MOTION = World(
    name="twins:motion",
    objects=(2, 3),
    radius=(4.8, 6.0),
    speed=(1.1, 1.8),
    occluders=(1, 1),
    occluder_width=(12.0, 16.0),
    rigid=True,
)
WORLDS = {
    "twins:motion": _MOTION,
    "twins:keys": dataclasses.replace(
        _MOTION, name="twins:keys", hand_speed=1.6, keys=True, slowest=0.8
    ),
    "twins:full": World(
        name="twins:full",
        objects=(2, 5),
        radius=(3.5, 6.0),
        speed=(0.7, 1.8),
        occluders=(0, 2),
        occluder_width=(9.0, 14.0),
        restitution=(0.9, 1.0),
        friction=(0.0, 0.3),
        gravity=(0.008, 0.025),
        weightless=0.5,
        hand_speed=1.6,
        drifting=True,
        texture=0.012,
        slowest=0.6,
    ),
}


def get_world(name: str) -> World:
    """The world of that name; `motion` is short for `twins:motion`. Raises UserError."""
    full = name if name.startswith("twins:") else f"twins:{name}"
    if full not in WORLDS:
        raise UserError(f"There is no world '{name}'; choose one of {', '.join(WORLDS)}.")
    return WORLDS[full]


def world_of_split(world: World, split: str) -> World:
    """The ranges a split is drawn from: each shifted test set changes one. Raises UserError."""
    if split not in SPLITS:
        raise UserError(f"There is no split '{split}'; choose one of {', '.join(SPLITS)}.")
    if split == "test_more_objects":
        most = world.objects[1]
        return dataclasses.replace(world, objects=(most + 1, most + 2))
    if split == "test_long_occlusion":
        widest = world.occluder_width[1]
        return dataclasses.replace(
            world, occluders=(1, 1), occluder_width=(widest + 6.0, widest + 12.0)
        )
    if split == "test_new_pairs":
        return dataclasses.replace(world, new_pairs=True)
    if split == "test_strong_push":
        strongest = world.push[1]
        return dataclasses.replace(
            world, push=(1.4 * strongest, 2.0 * strongest), hand_speed=1.6 * world.hand_speed
        )
    return world


def scene_seed(world: str, split: str, index: int) -> int:
    """The scene's name, 60 bits: a hash of world, split, index and version, disjoint by split."""
    text = f"{get_world(world).name}/{split}/{index}/{VERSION}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 7) << 3 | SPLITS.index(split)


def split_of(seed: int) -> str:
    """The split that a scene seed belongs to."""
    return SPLITS[seed & 7]


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one scene for one purpose, independent of every other purpose."""
    digest = hashlib.blake2b(purpose.encode(), digest_size=8).digest()
    key = [seed, int.from_bytes(digest, "little")]
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


def held_out_pair(hue: Index, shape: Index) -> bool:
    """Whether this hue-shape pair is kept for `test_new_pairs`: nine of the 27."""
    return bool((hue + shape) % 3 == 0)
