"""``wm-jax edit``: what would happen if? A scene, a sentence, two futures side by side.

OUT/
  futures.png     a filmstrip: as it goes on, as it goes on when edited, and the difference
  futures.gif     the same, moving
  timeline.json   what it takes to make both again, to the bit
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wm_jax import shapes
from wm_jax.errors import UserError

_FORMATTER = argparse.RawDescriptionHelpFormatter
EPILOG = """\
examples:
  wm-jax edit --model runs/small --data data/small --episode 3          what is in the scene
  wm-jax edit --model runs/small --data data/small --episode 3 --out futures \\
      "the green square is pushed left by 3" "10: the azure circle turns red"
  wm-jax edit --model exported/a --video mine.npy --out futures "the red ball disappears"
  wm-jax edit --replay futures/timeline.json                            the same, to the bit
  wm-jax edit --model runs/told --data data/told --route text --out futures \\
      "the red ball disappears"

A sentence is said at the end of the frames shown, or after the frame it is given with."""


def main(argv: list[str]) -> int:
    """The verb."""
    args = _parser().parse_args(argv)
    if args.replay:
        return _replay(args)
    if not args.model:
        raise UserError("--model is missing: name the folder of a run or of an export.")
    for option, least in (("frames", 1), ("steps", 1), ("start", 0)):
        given = getattr(args, option)
        if given is not None and given < least:
            raise UserError(f"--{option} is {given}; it is at least {least}.")
    # Imported here so that --help answers without them.
    from wm_jax.timeline import Timeline
    from wm_jax.world import load

    world = load(args.model)
    source = {
        "data": str(args.data) if args.data else None,
        "video": str(args.video) if args.video else None,
        "split": args.split,
        "episode": args.episode,
        "start": args.start,
        "frames": args.frames or world.context,
    }
    frames, told, ahead = read(source, world.modalities, args.steps)
    line = Timeline(world, frames, told=told, ahead=ahead, seed=args.seed, source=source)
    there = world.things(line.branch().now)
    if not args.sentences:
        listed = [{"slot": t.slot, "name": t.name, "place": t.place} for t in there]
        print(json.dumps(listed) if args.json else "\n".join(map(str, there)) or "no objects")
        return 0
    if not args.out:
        raise UserError("--out is missing: name a folder for the two futures.")
    run(line, args.sentences, args.steps, args.route)
    _write(line, args.out)
    _say(args, line)
    return 0


def run(line: Any, sentences: list[str], steps: int, route: str | None = None) -> None:
    """Plays the branches 'main', untouched, and 'edited'."""
    from wm_jax.progress import Progress

    said: dict[int, list[str]] = {}
    for sentence in sentences:
        found = re.fullmatch(r"\s*(\d+)\s*:\s*(.+)", sentence)
        frame, text = (int(found[1]), found[2]) if found else (0, sentence)
        if frame >= steps:
            raise UserError(f"'{sentence}' is said after the last of {steps} frames.")
        said.setdefault(frame, []).append(text)
    line.fork("edited")
    with Progress(2 * steps, "futures", "frames") as bar:
        for index, branch in enumerate(("main", "edited")):
            for frame in range(steps):
                if branch == "edited" and frame in said:
                    line.edit(said[frame], branch, route)
                line.play(1, branch)
                bar.update(index * steps + frame + 1)


def read(
    source: Mapping[str, Any], modalities: tuple[str, ...], steps: int
) -> tuple[UInt8[np.ndarray, "t h w 3"], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The frames that ``source`` names, what they were told, and what the steps after them are:
    of an episode its own actions, camera and light, as far as it goes."""
    begin, count = source["start"], source["frames"]
    stop = begin + count
    if source["video"]:
        return _video(Path(source["video"]))[begin:stop], {}, {}
    if not source["data"]:
        raise UserError("give --data (a data set) or --video (a .npy or .npz of frames).")
    from data_pipelines import window
    from data_pipelines.twins import open_source

    episodes = open_source(source["data"], source["split"], window.fields(modalities))
    if not 0 <= source["episode"] < len(episodes):
        raise UserError(
            f"{source['data']} has {len(episodes)} episodes in '{source['split']}' and no "
            f"{source['episode']}."
        )
    episode = window.trim(episodes[source["episode"]], modalities)
    if stop > len(episode["frames"]):
        raise UserError(
            f"the episode has {len(episode['frames'])} frames; {begin} to {stop} are not in it."
        )
    modalities = tuple(name for name in modalities if name not in shapes.SAID)
    told = {name: episode[name][begin:stop] for name in modalities}
    # Actions of the last frame shown act during the first step.
    shift = {name: int(name in shapes.ACT_NEXT) for name in modalities}
    ahead = {k: episode[k][stop - shift[k] :][:steps] for k in modalities}
    return episode["frames"][begin:stop], told, {k: v for k, v in ahead.items() if len(v)}


def _video(path: Path) -> UInt8[np.ndarray, "t h w 3"]:
    try:
        held = np.load(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an array of NumPy ({error}).") from None
    if not isinstance(held, np.lib.npyio.NpzFile):
        return held
    if "frames" not in held:
        raise UserError(f"{path} has {', '.join(held) or 'nothing'} and no array 'frames'.")
    return held["frames"]


def _replay(args: argparse.Namespace) -> int:
    from wm_jax import timeline
    from wm_jax.world import load

    saved = timeline.read(args.replay)
    world = load(args.model or saved["checkpoint"]["path"])
    source = saved["source"] | ({"data": str(args.data)} if args.data else {})
    frames, _, _ = read(source, world.modalities, 0)
    line = timeline.Timeline.replay(saved, world, frames)
    differing = line.differs(saved)
    if args.out:
        _write(line, args.out)
    result = {"branches": list(line.branches), "differing": differing}
    if args.json:
        print(json.dumps(result))
    elif differing:
        print(f"not the same to the bit: {', '.join(differing)}")
    else:
        print(f"the same to the bit: {', '.join(line.branches)}")
    return 1 if differing else 0


def _write(line: Any, out: Path) -> None:
    from wm_jax.writers import draw_clip

    one, other = (np.stack(line.branch(name).frames) / 255 for name in ("main", "edited"))
    shared = min(len(one), len(other))
    try:
        draw_clip(out / "futures", one[None, :shared], other[None, :shared])
        line.save(out / "timeline.json")
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): make room, or name another --out."
        ) from None


def _say(args: argparse.Namespace, line: Any) -> None:
    away = line.compare("main", "edited")
    names = {t.slot: t.name for t in line.world.things(line.branch().scenes[0])}
    table = {}
    for key, values in away.items():
        slot = key.removeprefix("slot ")
        name = names.get(int(slot), key) if slot.isdigit() else "pixels (grey levels)"
        table[name] = [round(float(v), 3) for v in values]
    if args.json:
        print(json.dumps({"out": str(args.out), "apart": table}))
        return
    print(f"{'apart, px':<24}" + "".join(f"{f'+{t}':>8}" for t in _shown(args.steps)))
    for name, values in table.items():
        print(f"{name:<24}" + "".join(f"{values[t]:>8.1f}" for t in _shown(args.steps)))
    print(f"{args.out}/futures.png, futures.gif, timeline.json")


def _shown(steps: int) -> list[int]:
    return [t for t in (1, 2, 5, 10, 20, 40, 60, 100) if t <= steps]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wm-jax edit",
        description="Change a scene in a sentence and see both futures.",
        epilog=EPILOG,
        formatter_class=_FORMATTER,
    )
    add = parser.add_argument
    add("sentences", nargs="*", metavar="SENTENCE", help="what changes, or FRAME: what changes")
    add("--model", help="folder of a run or of an export")
    add("--data", type=Path, help="a data set of twins")
    add("--video", type=Path, help="frames of your own: .npy or .npz, uint8 (t, h, w, 3)")
    add("--split", default="test", help="default %(default)s")
    add("--episode", type=int, default=0, help="default %(default)s")
    add("--start", type=int, default=0, help="its first frame that is shown (default %(default)s)")
    add("--frames", type=int, help="how many are shown (default: the model's own context)")
    add("--steps", type=int, default=40, help="frames to predict (default %(default)s)")
    add(
        "--route",
        help="how, of a model that takes changes in more than one way: 'state' writes into the "
        "scene what the sentence means, 'trained' tells the model that, 'text' lets it hear the "
        "sentence (default: its first way)",
    )
    add("--seed", type=int, default=0, help="of a model that draws (default %(default)s)")
    add("--replay", type=Path, help="a timeline.json, to be made again")
    add("--out", type=Path, help="folder for the pictures and the timeline")
    add("--json", action="store_true", help="print the result as JSON")
    return parser
