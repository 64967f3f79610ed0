"""Camera and light on paths that training never had, out and back, against the true renderer.

    python experiments/benchmarks/views.py --model runs/small_full --json

A test scene of twins:full is watched for 16 frames. Over the next 24 the camera goes 8 units in a
random direction and 0.2 closer (log zoom), or the light goes down to 0.6 of itself and tilts by
0.15, and comes back, as half a wave of a sine, and the other stays; training knows slow drifts
only. What is in the scene goes its own way, and is rendered anew under the path.

Rows, with 95 % bootstrap over scenes, of the camera and of the light:
  far    PSNR (dB) in frame 12, where the path is farthest from where it began
  back   SSIM of frame 24 with the last one seen, whose view was the same, over all pixels that are
         at least 6 px from what is not background in either
for the truth, the model, the model that is not told of the path, and the last frame kept.
``--picture`` draws the first scene under both: the truth, then the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

import numpy as np
from PIL import Image

import wm_jax
from data_pipelines.twins.generate import Recording, draw, record_scene
from data_pipelines.twins.render import OCCLUDER_LABEL
from data_pipelines.twins.world import get_world, scene_seed, stream
from wm_jax.errors import UserError
from wm_jax.evaluation.pixel import psnr, ssim_map
from wm_jax.evaluation.statistics import estimate, sums_by_unit
from wm_jax.progress import Progress

CONTEXT, STEPS = 16, 24
PAN, ZOOM, DIM, TILT = 8.0, 0.2, 0.6, 0.15
#: px around a pixel that its SSIM looks at.
AROUND = 5
PATHS = ("camera", "light")
WHO = ("truth", "model", "not told", "last frame")


def path_of(run: Recording, name: str) -> np.ndarray:
    """Light or camera of the frames to come, (STEPS, 3), from what it was and back to it."""
    wave = np.sin(np.pi * np.arange(1, STEPS + 1) / STEPS)[:, None]
    now, rng = run.states[name][CONTEXT - 1], stream(run.scene.seed, f"path/{name}")
    angle = rng.uniform(0, 2 * np.pi)
    aside = np.array([np.cos(angle), np.sin(angle)])
    if name == "camera":
        return now + wave * [*(PAN * aside), ZOOM]
    return now + wave * [(DIM - 1) * now[0], *(TILT * aside)]


def background(labels: np.ndarray) -> np.ndarray:
    """Whether nothing that moves is near a pixel, of all but the outermost, by frame."""
    moves = (labels != 0) & (labels != OCCLUDER_LABEL)
    near = np.zeros_like(moves[:, AROUND:-AROUND, AROUND:-AROUND])
    rows, columns = near.shape[1:]
    for y in range(2 * AROUND + 1):
        for x in range(2 * AROUND + 1):
            near |= moves[:, y : y + rows, x : x + columns]
    return ~near


def clips_of(world: Any, index: int, name: str) -> tuple[dict[str, tuple], np.ndarray]:
    """The last frame seen and the future, of everybody in one scene; and the truth's labels."""
    twins, side = get_world("full"), world.resolution
    run = record_scene(twins, scene_seed(twins.name, "test", index), CONTEXT + STEPS)
    states = dict(run.states)
    for path in PATHS:  # the other one stays
        still = np.repeat(states[path][CONTEXT - 1][None], STEPS, 0)
        ahead = path_of(run, name) if path == name else still
        states[path] = np.concatenate([states[path][:CONTEXT], ahead])
    drawn = draw(dataclasses.replace(run, states=states), side)
    past, future = drawn["frames"][:CONTEXT], drawn["frames"][CONTEXT:]
    told = {n: states[n] for n in PATHS} | {"actions": run.actions}
    told = {n: value for n, value in told.items() if n in world.modalities}
    scene = world.encode(past, **{n: value[:CONTEXT] for n, value in told.items()})
    first, actions = world.decode(scene), told.pop("actions", None)
    told = {n: value[CONTEXT:] for n, value in told.items()}
    if actions is not None:  # in a rollout they are those that act on the way to a frame
        told["actions"] = actions[CONTEXT - 1 : -1]
    blind = {n: value for n, value in told.items() if n != name}
    clips = {
        "truth": (past[-1], future),
        "model": (first[0], world.rollout(scene, STEPS, **told).frames[0]),
        "not told": (first[0], world.rollout(scene, STEPS, **blind).frames[0]),
        "last frame": (past[-1], np.repeat(past[-1:], STEPS, 0)),
    }
    return clips, drawn["segmentation"][CONTEXT - 1 :]


def scores(world: Any, index: int, name: str) -> dict[str, tuple[float, float]]:
    """`far` and `back` of everybody, in one scene."""
    clips, labels = clips_of(world, index, name)
    ends, future = background(labels[[0, -1]]).all(0), clips["truth"][1]
    out = {}
    for who, (start, clip) in clips.items():
        far = float(psnr(future[STEPS // 2 - 1], clip[STEPS // 2 - 1]))
        alike = np.asarray(ssim_map(start, clip[-1])).mean(0)
        out[who] = min(far, 60.0), float(alike[ends].mean()) if ends.any() else np.nan
    return out


def draw_picture(world: Any, path: str) -> None:
    """Filmstrips of the first scene, every fourth frame, three times as large."""
    rows = []
    for name in PATHS:
        clips, _ = clips_of(world, 0, name)
        for who in ("truth", "model"):
            start, clip = clips[who]
            rows.append(np.concatenate([start, *clip[3::4]], 1))
    picture = np.concatenate(rows).repeat(3, 0).repeat(3, 1)
    Image.fromarray(picture).save(path)


def measure(world: Any, model: str, scenes: int) -> list[dict[str, Any]]:
    missing = [name for name in PATHS if name not in world.modalities]
    if missing:
        raise UserError(f"{model} is not told {missing[0]}; use a model of twins:full.")
    rows = []
    for name in PATHS:
        found = []
        with Progress(scenes, f"paths of the {name}", "scenes") as bar:
            for index in range(scenes):
                found.append(scores(world, index, name))
                bar.update(index + 1)
        for who in WHO:
            values = np.array([one[who] for one in found])
            result = estimate(sums_by_unit(values, np.arange(scenes)))
            for at, metric in enumerate(("far", "back")):
                value, low, high = (round(float(x[at]), 4) for x in result[:3])
                row = {"metric": metric, "path": name, "who": who}
                rows.append(row | {"value": value, "low": low, "high": high, "n": scenes})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a run, or an export, of twins:full")
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--picture", help="a PNG to write")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        world = wm_jax.load(args.model)
        rows = measure(world, args.model, args.scenes)
        if args.picture:
            draw_picture(world, args.picture)
    except UserError as error:
        print(f"views: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        spread = f"({row['low']:.3f} to {row['high']:.3f})"
        print(f"{row['path']:<8} {row['metric']:<5} {row['who']:<11} {row['value']:.3f} {spread}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
