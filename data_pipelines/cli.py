"""`wm-jax data build`, `wm-jax data inspect` and `wm-jax data verify`."""

from __future__ import annotations

import argparse
import json
from typing import Any

_EXAMPLES = """\
examples:
  wm-jax data build twins:motion --out data/motion --train 2000 --resolution 32
  wm-jax data build twins:full --out data/full --twins 3 --shifted 20 --workers 2
  wm-jax data inspect data/full --split test --index 3 --out inspected
  wm-jax data verify data/full
"""


def main(argv: list[str]) -> int:
    """Run one data verb; returns the exit status. Raises UserError for bad input."""
    options = _parser().parse_args(argv)
    result = options.run(options)
    if options.json:
        print(json.dumps(result))
    else:
        print(options.tell(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "wm-jax data",
        description="Build data sets, look at them, and prove them whole.",
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser(
        "build", help="make a data set", epilog=_EXAMPLES, formatter_class=raw,
        description="Make a data set. The same arguments give the same episodes; a build that is "
        "there already is left alone, and another one is never overwritten.",
    )  # fmt: skip
    build.set_defaults(run=_build, tell=_tell_build)
    build.add_argument("world", metavar="WORLD", help="twins:motion, twins:keys or twins:full")
    build.add_argument("--out", required=True, metavar="DIR", help="where it goes")
    build.add_argument("--train", type=int, default=1000, help="scenes (default %(default)s)")
    build.add_argument("--validation", type=int, default=50, help="scenes (default %(default)s)")
    build.add_argument("--test", type=int, default=50, help="scenes (default %(default)s)")
    build.add_argument(
        "--shifted", type=int, default=0, help="scenes of each of the four shifted test sets"
    )
    build.add_argument(
        "--twins", type=int, help="counterfactuals a scene (default: motion 0, full 3)"
    )
    build.add_argument(
        "--kinds", default="", help="of their changes, by commas: move,push,recolour,remove,add,"
        "light,camera,gravity (default: all)",
    )  # fmt: skip
    build.add_argument("--resolution", type=int, default=64, choices=(32, 64, 128), help="px")
    build.add_argument("--length", type=int, default=64, help="frames of train and validation")
    build.add_argument("--test-length", type=int, default=640, help="frames of the test sets")
    build.add_argument("--seed", type=int, default=0, help="another seed, other scenes")
    build.add_argument("--workers", type=int, default=1, help="processes")
    look = verbs.add_parser(
        "inspect", help="draw an episode with its true state", epilog=_EXAMPLES,
        formatter_class=raw,
        description="Draw a contact sheet (PNG) and a clip (GIF) of one episode with its true "
        "state over the frames, and write its sound (WAV).",
    )  # fmt: skip
    look.set_defaults(run=_inspect, tell=_tell_inspect)
    look.add_argument("directory", metavar="DIR", help="a built data set")
    look.add_argument("--split", default="train")
    look.add_argument("--index", type=int, default=0, help="episode number in the split")
    look.add_argument("--out", default="inspected", metavar="DIR", help="default: %(default)s")
    check = verbs.add_parser(
        "verify", help="read every file and compare its digest", epilog=_EXAMPLES,
        formatter_class=raw,
        description="Read every file of a data set and compare its digest with the one that was "
        "kept when it was built. Leaves with 2 where one is damaged, and names it.",
    )  # fmt: skip
    check.set_defaults(run=_verify, tell=_tell_verify)
    check.add_argument("directory", metavar="DIR", help="a built data set")
    for verb in (build, look, check):
        verb.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _build(options: argparse.Namespace) -> dict[str, Any]:
    from data_pipelines.twins.build import build, make_plan

    names = (
        "train", "validation", "test", "shifted", "twins", "resolution", "length", "test_length",
        "seed", "kinds",
    )  # fmt: skip
    plan = make_plan(options.world, **{name: getattr(options, name) for name in names})
    return build(plan, options.out, options.workers)


def _tell_build(result: dict[str, Any]) -> str:
    sizes = ", ".join(f"{count} {split}" for split, count in result["episodes"].items())
    size = f"{result['bytes'] / 1e6:.0f} MB in {result['directory']}"
    if not result["built"]:
        return f"{result['world']} is there already: {sizes} episodes, {size}."
    return (
        f"{result['world']}: {sizes} episodes, {result['frames']} frames, {size}; "
        f"{result['frames_per_second']:.0f} frames/s."
    )


def _inspect(options: argparse.Namespace) -> dict[str, Any]:
    from data_pipelines.episode import validate
    from data_pipelines.twins import draw, open_source
    from wm_jax.errors import UserError

    source = open_source(options.directory, options.split)
    if not 0 <= options.index < len(source):
        raise UserError(
            f"{options.directory} has {len(source)} {options.split} episodes; give --index from 0 "
            f"to {len(source) - 1}, not {options.index}."
        )
    episode = source[options.index]
    sizes = validate(episode, source.where(options.index))
    events = [
        {"frame": int(frame), "text": text}
        for frame, text in zip(episode["events/frame"], episode["events/text"], strict=True)
    ]
    return {
        "files": draw.save(episode, options.out),
        "record": source.where(options.index),
        "sizes": sizes,
        "group": int(episode["group"]),
        "branch": int(episode["branch"]),
        "text": episode["text"],
        "intervention": episode["intervention/sentence"],
        "events": events,
    }


def _tell_inspect(result: dict[str, Any]) -> str:
    lines = [f"{result['record']}: {result['text']}", *result["files"]]
    return "\n".join(lines)


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    from data_pipelines.twins import proof
    from data_pipelines.twins.source import read_plan
    from wm_jax.errors import UserError

    record = read_plan(options.directory)
    if not record.get("files"):
        raise UserError(
            f"{options.directory} was built before digests were kept; build it anew to have them."
        )
    found = proof.damage(options.directory, record)
    if found:
        listing = "; ".join(f"{harm.file} {harm.problem}" for harm in found)
        raise UserError(
            f"{options.directory} is damaged: {listing}. Build it anew, or copy it anew from where "
            "it is whole."
        )
    sizes = [size for size, *_ in record["files"].values()]
    return {"directory": options.directory, "files": len(sizes), "bytes": sum(sizes)}


def _tell_verify(result: dict[str, Any]) -> str:
    size = f"{result['bytes'] / 1e6:.0f} MB"
    return f"{result['directory']} is whole: {result['files']} files, {size}."
