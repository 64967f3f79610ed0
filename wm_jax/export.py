"""``wm-jax export``: a run becomes a folder that runs with jax alone.

exported/a/
  model.safetensors     the weights in float16, one copy for all functions
  initial, encode, observe, step, decode .stablehlo
                        programs for cpu, cuda and tpu with a symbolic batch
  config.json           the run's resolved config, without the data's place on its machine
  manifest.json         sizes of frames, conditions and state; a digest of every file
  load.py               the loader: wm_jax/export_loader.py, copied
  MODEL_CARD.md         data, size, scores, limits
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wm_jax import __version__, model_card, programs, shapes
from wm_jax.errors import MissingExtra, UserError
from wm_jax.remote import fetched

#: What the loader must agree with; raised when a folder's contents change.
FORMAT = 1
LOADER = Path(__file__).with_name("export_loader.py")


def main(argv: list[str]) -> int:
    """The verb."""
    parser = argparse.ArgumentParser(
        prog="wm-jax export",
        description="Turn a run into a folder that runs with jax alone.",
        epilog="example: wm-jax export --workdir runs/a --out exported/a",
    )
    parser.add_argument(
        "--workdir", type=fetched, required=True, help="the run's folder, or its URL"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    args = parser.parse_args(argv)
    _require_extra()
    # Imported here so that --help answers without them.
    from wm_jax import checkpoint, models

    params, config, step = checkpoint.restore_params(args.workdir)
    manifest = export(
        models.build(config.model),
        params,
        args.out,
        resolution=config.model.resolution,
        context=config.eval.context,
        config=portable(config.to_dict()),
        card=model_card.from_run(args.workdir, config.to_dict(), step, _count(params)),
    )
    if args.json:
        print(json.dumps(manifest))
    else:
        size = sum(file.stat().st_size for file in args.out.iterdir())
        print(f"{args.out}: {manifest['parameters']:,} parameters, {size / 1e6:.1f} MB")
    return 0


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the last part alone of an absolute ``data.directory`` or
    ``train.init_from``."""
    out = dict(config)
    for section, key in (("data", "directory"), ("train", "init_from")):
        path = Path(config.get(section, {}).get(key, ""))
        if path.is_absolute():
            out[section] = {**config[section], key: path.name}
    return out


def export(
    model: shapes.WorldModel,
    params: Any,
    out: Path,
    *,
    resolution: int,
    context: int,
    config: Mapping[str, Any],
    card: str,
) -> dict[str, Any]:
    """Writes the folder ``out`` and returns its manifest.

    params: nested dicts of arrays; float32 is rounded to float16. context: frames that ``encode``
    takes. The folder appears whole or not at all; an earlier export of that name is replaced, any
    other folder with something in it is refused.
    """
    _require_extra()
    _refuse_foreign(out)
    weights = programs.flatten(params)
    stored = {name: _halved(np.asarray(value)) for name, value in weights.items()}
    traced, state, stochastic = programs.trace(model, weights, resolution, context)
    files = {f"{name}.stablehlo": program for name, program in traced.items()}
    files["model.safetensors"] = _safetensors(stored)
    files["config.json"] = _json(config)
    manifest = {
        "format": FORMAT,
        "wm_jax": __version__,
        "jax": jax.__version__,
        "platforms": programs.PLATFORMS,
        "functions": list(traced),
        "parameters": _count(params),
        "context": context,
        "frame": [resolution, resolution, 3],
        "conditions": shapes.CONDITION_SIZES,
        "stochastic": stochastic,
        "state": state,
        "sha256": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    files["manifest.json"] = _json(manifest)
    files["MODEL_CARD.md"] = card.encode()
    files["load.py"] = LOADER.read_bytes()
    _write(out, files)
    return manifest


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """The folder as a whole, in place of an earlier one."""
    staging = out.with_name(f"{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(staging, out)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise UserError(
            f"{out} cannot be written ({error.strerror}): make room, or name another --out."
        ) from error


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _require_extra() -> None:
    """Before any work: jax.export needs the one, we the other."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise MissingExtra("flatbuffers", "export") from error
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise MissingExtra("safetensors", "export") from error


def _safetensors(weights: dict[str, np.ndarray]) -> bytes:
    import safetensors.numpy

    return safetensors.numpy.save(weights)


def _halved(array: np.ndarray) -> np.ndarray:
    """float32 as float16; refuses values beyond float16's range."""
    if array.dtype != np.float32:
        return array
    if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise UserError("a weight lies beyond float16's range (65504): the run has diverged.")
    return array.astype(np.float16)


def _count(params: Any) -> int:
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def _refuse_foreign(out: Path) -> None:
    """Only an earlier export, or nothing, may be replaced."""
    if out.is_file():
        raise UserError(f"--out {out} is a file: name a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise UserError(f"--out {out} holds something that is not an export: name another folder.")
