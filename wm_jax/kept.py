"""Programs that were compiled before, kept beside JAX's compilation cache.

JAX's own cache spares a program its compilation, not its tracing, and what comes out of that cache
cannot be kept once more. Here a program stays under a digest of its text and surroundings, and runs
again for anyone who knows that digest. A file holds a digest of itself too: a damaged one is
removed. Files are pickles: whoever may write to the cache may run code, as in JAX's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax import monitoring
from jax.experimental import serialize_executable
from jax.sharding import Mesh

#: Newest files of a kind that stay.
COUNT = 32
PROGRAM = "program"


def folder() -> str | None:
    """JAX's own cache of compiled programs, where it has one on a disk of this machine."""
    where = getattr(jax.config, "jax_compilation_cache_dir", None)
    return None if where and "://" in where else where


def compiled(lowered: Any, mesh: Mesh, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The program that was lowered (to be compiled with ``options``), and its digest: a kept one,
    or one compiled here, and kept."""
    told = json.dumps(dict(options), sort_keys=True)
    trees = str(lowered.in_tree), str(lowered.out_tree)
    name = digest(surroundings(mesh), told, *trees, lowered.as_text())
    program = load(name, mesh)
    if program is None:
        with _new_programs() as new:
            program = lowered.compile()
        # What JAX took from its own cache would lose its machine code.
        if new:
            with contextlib.suppress(ValueError, NotImplementedError):  # JAX's: not every one can
                write(PROGRAM, name, serialize_executable.serialize(program))
    return program, name


def load(name: str, mesh: Mesh) -> Any:
    """The program of that digest, or None."""
    kept = read(PROGRAM, name)
    if kept is None:
        return None
    program, arguments, results = kept
    try:
        return serialize_executable.deserialize_and_load(
            program, arguments, results, execution_devices=list(mesh.devices.flat)
        )
    except Exception:  # noqa: BLE001, whatever is wrong with it: it is made anew
        _remove(path_of(PROGRAM, name))
        return None


def write(kind: str, name: str, value: Any) -> None:
    """Keeps a value, whole or not at all; on a full disk not at all."""
    path, content = path_of(kind, name), pickle.dumps(value)
    partial = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(hashlib.sha256(content).digest() + content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        there = path.parent.glob(path_of(kind, "*").name)
        for old in sorted(there, key=lambda p: p.stat().st_mtime)[:-COUNT]:
            old.unlink(missing_ok=True)


def read(kind: str, name: str) -> Any:
    """What was kept, or None."""
    path = path_of(kind, name)
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError("damaged")
        value = pickle.loads(content[32:])
    except Exception:  # noqa: BLE001, whatever is wrong with it: it is made anew
        _remove(path)
        return None
    with contextlib.suppress(OSError):  # a cache may be there to be read only
        os.utime(path)  # so that what is used stays
    return value


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def path_of(kind: str, name: str) -> Path:
    """The file of a value."""
    return Path(folder() or "") / f"wm_jax_{kind}_{name}.bin"


def digest(*texts: str) -> str:
    """One name for all of the texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def surroundings(mesh: Mesh) -> str:
    """What a program depends on besides its text: versions, settings, devices, the machine."""
    told = ("XLA_", "LIBTPU", "TPU_", "NVIDIA_TF32", "NCCL_")
    device, settings = jax.devices()[0], jax.config.values
    parts = {
        # Where caches and profiles go changes no program.
        "settings": {k: v for k, v in settings.items() if "cache" not in k and "dir" not in k},
        "environment": {k: v for k, v in os.environ.items() if k.startswith(told)},
        "devices": [str(d) for d in mesh.devices.flat],
        "mesh": dict(mesh.shape),
        "kind": [device.platform, device.device_kind, device.client.platform_version],
        "machine": [sys.version, platform.machine(), _processor(), os.cpu_count()],
        "versions": [
            f"{name} {sys.modules[name].__version__}"
            for name in ("jax", "jaxlib", "flax", "optax", "numpy")
        ],
    }
    return json.dumps(parts, sort_keys=True, default=repr)


def _processor() -> str:
    """What this machine's processor can do: its programs may use all of it."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return platform.processor()


@contextlib.contextmanager
def _new_programs() -> Iterator[list[str]]:
    """Grows by one for each program that JAX compiles, rather than finds, and puts in its cache."""
    new: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_misses":
            new.append(event)

    monitoring.register_event_listener(listen)
    try:
        yield new
    finally:
        monitoring.unregister_event_listener(listen)
