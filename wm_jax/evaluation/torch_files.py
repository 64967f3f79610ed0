"""Weights from PyTorch's own files, read without PyTorch: ``torch.save`` of today (a zip) and of
before 2020 (pickles after each other), and TorchScript archives.

Pickles can run code; these are read by an unpickler that knows tensors, dictionaries and nothing
else, so a file can do no harm.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from wm_jax.errors import UserError

_TYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_MAGIC = 0x1950A86A20F9469CFC6C  # of the format before the zip


class _Module:
    """Anything in the file that is no tensor: what its state holds is kept, by name."""

    def __init__(self, *_: Any):
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, dict) else {}


class _Storage:
    """Numbers that are read when all of the file is known."""

    def __init__(self, key: str):
        self.key = key


class _View:
    """A tensor: part of a storage."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple, strides: tuple):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self, numbers: np.ndarray) -> np.ndarray:
        at = numbers[self.offset :]
        steps = tuple(stride * numbers.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(at, self.shape, steps).copy()


def _tensor(storage, offset, shape, strides, *_: Any) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: Any, *_: Any) -> Any:
    return data


class _Reader(pickle.Unpickler):
    """Knows tensors, their storages and dictionaries; everything else is an empty `_Module`.
    ``kinds`` is of every storage that was named."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.kinds: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils":
            if name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
                return _tensor
            if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
                return _parameter
        if module.split(".")[0] == "torch" and name in _TYPES:
            return name
        if module.split(".")[0] in ("torch", "torchvision", "lpips", "__torch__"):
            return _Module
        raise pickle.UnpicklingError(f"{module}.{name} is neither a tensor nor a module")

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key = pid[:3]
        self.kinds[str(key)] = np.dtype(_TYPES[kind])
        return _Storage(str(key))


def load(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a file, by its dotted name. Raises `UserError` for what is no such file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there are no weights in {path}; give the path of a PyTorch file.")
    try:
        tree, numbers = _of_zip(path) if zipfile.is_zipfile(path) else _of_pickles(path)
        return _flat(tree, numbers, "")
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} is not a file of PyTorch weights ({error}).") from None


def _of_zip(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (main,) = (name for name in names if name.endswith("/data.pkl"))
        root = main.removesuffix("data.pkl")
        reader = _Reader(io.BytesIO(archive.read(main)))
        tree = reader.load()
        numbers = {
            key: np.frombuffer(archive.read(f"{root}data/{key}"), kind)
            for key, kind in reader.kinds.items()
        }
    return tree, numbers


def _of_pickles(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    with path.open("rb") as file:
        if _Reader(file).load() != _MAGIC:
            raise ValueError("it begins with something else")
        for _ in ("version of the format", "sizes of the machine"):
            _Reader(file).load()
        reader = _Reader(file)
        tree = reader.load()
        numbers = {}
        for key in _Reader(file).load():
            count = int.from_bytes(file.read(8), "little")
            kind = reader.kinds[str(key)]
            numbers[str(key)] = np.frombuffer(file.read(count * kind.itemsize), kind)
    return tree, numbers


def _flat(tree: Any, numbers: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    if isinstance(tree, _View):
        return {prefix.rstrip("."): tree.array(numbers[tree.storage.key])}
    items: dict[str, Any] = {}
    if isinstance(tree, _Module):
        items = tree.state
    elif isinstance(tree, dict):
        items = {str(key): value for key, value in tree.items()}
    out: dict[str, np.ndarray] = {}
    for key, value in items.items():
        inner = key in ("_modules", "_parameters", "_buffers")
        out |= _flat(value, numbers, prefix if inner else f"{prefix}{key}.")
    return out
