"""``wm-jax imagine``: scenes from words, and their futures.

OUT/
  scenes.png      a row a sample, a column every few frames
  scenes.gif      the same, moving
  scenes.json     the caption, what is in each sample at its first frame, and where
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wm_jax.errors import UserError

EPILOG = """\
examples:
  wm-jax imagine --model runs/small --out scenes "a red circle and a blue square"
  wm-jax imagine --model exported/a --out scenes --samples 6 --steps 60 \\
      "a green triangle, a pink circle and a lime square, with a bar in front"

Words: colours, circle, square and triangle; 'with a bar in front', 'with two bars in front';
'; gravity pulls down' of a model that takes the edit gravity."""


def main(argv: list[str]) -> int:
    """The verb."""
    args = _parser().parse_args(argv)
    if args.steps < 1:
        raise UserError(f"--steps is {args.steps}; a future has at least one frame.")
    # Imported here so that --help answers without them.
    from wm_jax import captions
    from wm_jax.world import load

    captions.parse(args.caption)
    world = load(args.model)
    scene = captions.imagine(world, args.caption, args.samples, args.seed)
    clip = world.rollout(scene, args.steps)
    frames = np.concatenate([world.decode(scene)[:, None], clip.frames], 1)
    result = {
        "caption": args.caption,
        "model": str(args.model),
        "seed": args.seed,
        "samples": [[str(t) for t in world.things(scene, i)] for i in range(args.samples)],
    }
    _write(args.out, frames, result)
    if args.json:
        print(json.dumps(result))
        return 0
    for index, there in enumerate(result["samples"]):
        print(f"{index}: {', '.join(there)}")
    print(f"{args.out}/scenes.png, scenes.gif, scenes.json")
    return 0


def _write(out: Path, frames: UInt8[np.ndarray, "b t h w 3"], result: dict[str, Any]) -> None:
    from PIL import Image

    big = frames.repeat(2, 2).repeat(2, 3)
    samples, time, side = big.shape[:3]
    shown = big[:, :: max(1, time // 10)]
    strip = shown.transpose(0, 2, 1, 3, 4).reshape(samples * side, -1, 3)
    film = big.transpose(1, 2, 0, 3, 4).reshape(time, side, -1, 3)
    first, *rest = (Image.fromarray(frame) for frame in film)
    try:
        out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(strip).save(out / "scenes.png")
        first.save(out / "scenes.gif", save_all=True, append_images=rest, duration=80, loop=0)
        (out / "scenes.json").write_text(json.dumps(result, indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): make room, or name another --out."
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax imagine",
        description="Scenes from a caption alone, and what happens in them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("caption", metavar="CAPTION", help="what is in the scene")
    add("--model", required=True, help="folder of a run or of an export")
    add("--out", type=Path, required=True, help="folder for the pictures")
    add("--samples", type=int, default=4, help="scenes to draw (default %(default)s)")
    add("--steps", type=int, default=40, help="frames to predict (default %(default)s)")
    add("--seed", type=int, default=0, help="another one draws other scenes (default %(default)s)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser
