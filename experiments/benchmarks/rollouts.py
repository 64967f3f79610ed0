"""The README's picture: an export predicts test episodes that it never saw.

    python experiments/benchmarks/rollouts.py --export experiments/pretrained/motion \\
        --out experiments/results/rollouts.png

The episodes are the first of the test split, none chosen. Rows: truth, prediction, error.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.twins import make_episode
from wm_jax.evaluation.film import error_map

CONTEXT = 16  # frames shown
STEPS = (1, 5, 10, 15, 20, 30, 40)
MARGIN, LEFT, TOP = 3, 74, 18  # px
INK, PAPER = (40, 40, 40), (255, 255, 255)


def load(folder: Path):
    """The export, through the loader that lies in its folder."""
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["load"] = module
    spec.loader.exec_module(module)
    return module.load(str(folder))


def draw(truth: np.ndarray, predicted: np.ndarray, scale: int) -> Image.Image:
    """(e, t, h, w, 3) each, t over the last shown frame and `STEPS`."""
    episodes, times, height, width, _ = truth.shape
    cell = width * scale + MARGIN
    size = (LEFT + times * cell, TOP + episodes * (3 * cell + 2 * MARGIN))
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    for column, label in enumerate(["last shown", *(f"step {step}" for step in STEPS)]):
        pen.text((LEFT + column * cell, 3), label, INK)
    for episode in range(episodes):
        rows = {
            "truth": truth[episode],
            "prediction": predicted[episode],
            "error": error_map(truth[episode], predicted[episode]),
        }
        for row, (label, frames) in enumerate(rows.items()):
            y = TOP + episode * (3 * cell + 2 * MARGIN) + row * cell
            pen.text((6, y + cell // 2 - 8), label, INK)
            for column in range(times):
                if column == 0 and label != "truth":
                    continue
                image = Image.fromarray(frames[column])
                big = image.resize((width * scale, height * scale), Image.Resampling.NEAREST)
                page.paste(big, (LEFT + column * cell, y))
    return page


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--export", required=True, type=Path, metavar="DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.png")
    parser.add_argument("--world", default="twins:motion")
    parser.add_argument("--resolution", type=int, default=64, help="px, the export's")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--scale", type=int, default=2)
    arguments = parser.parse_args()
    length = CONTEXT + max(STEPS)
    clips = np.stack(
        [
            make_episode(
                arguments.world,
                number,
                split="test",
                length=length,
                resolution=arguments.resolution,
                sound=False,
            )["frames"]
            for number in range(arguments.episodes)
        ]
    )
    model = load(arguments.export)
    _, future = model.rollout(model.encode(clips[:, :CONTEXT]), steps=max(STEPS))
    future = np.rint(np.clip(np.asarray(future), 0, 1) * 255).astype(np.uint8)
    index = [CONTEXT - 1, *(CONTEXT - 1 + step for step in STEPS)]
    shown = np.concatenate([clips[:, CONTEXT - 1 : CONTEXT], future], 1)
    predicted = shown[:, [i - CONTEXT + 1 for i in index]]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(clips[:, index], predicted, arguments.scale).save(arguments.out, optimize=True)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
