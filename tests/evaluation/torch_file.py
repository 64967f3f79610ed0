"""Writes files as PyTorch does, without PyTorch: for tests of what reads them."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def _modules():
    """Stand-ins for what a pickle of tensors names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    kinds = {}
    for name, dtype in (("FloatStorage", "float32"), ("HalfStorage", "float16")):
        kinds[dtype] = type(name, (), {"__module__": "torch"})
        setattr(torch, name, kinds[dtype])
    return {"torch": torch, "torch._utils": utils}, kinds


class _Tensor:
    def __init__(self, array, rebuild, kinds, key):
        self.array, self.rebuild, self.kinds, self.key = array, rebuild, kinds, key

    def __reduce__(self):
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        storage = _Storage(self.kinds[self.array.dtype.name], self.key, self.array.size)
        return self.rebuild, (storage, 0, self.array.shape, strides, False, OrderedDict())


class _Storage:
    def __init__(self, kind, key, size):
        self.kind, self.key, self.size = kind, key, size


def save(path, tensors, legacy=False):
    """A state dict of arrays, as ``torch.save`` of now or of before 2020."""
    modules, kinds = _modules()
    sys.modules.update(modules)
    try:
        rebuild = modules["torch._utils"]._rebuild_tensor_v2
        tree = OrderedDict(
            (name, _Tensor(np.ascontiguousarray(array), rebuild, kinds, str(number)))
            for number, (name, array) in enumerate(tensors.items())
        )

        class Pickler(pickle.Pickler):
            def persistent_id(self, thing):
                if not isinstance(thing, _Storage):
                    return None
                pid = ("storage", thing.kind, thing.key, "cpu", thing.size)
                return (*pid, None) if legacy else pid

        buffer = io.BytesIO()
        Pickler(buffer, protocol=2).dump(tree)
    finally:
        for name in modules:
            del sys.modules[name]
    arrays = {str(n): np.ascontiguousarray(a) for n, a in enumerate(tensors.values())}
    if legacy:
        with open(path, "wb") as file:
            for head in (MAGIC, VERSION, {"little_endian": True}):
                pickle.dump(head, file, protocol=2)
            file.write(buffer.getvalue())
            pickle.dump(list(arrays), file, protocol=2)
            for array in arrays.values():
                file.write(array.size.to_bytes(8, "little") + array.tobytes())
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", buffer.getvalue())
        for key, array in arrays.items():
            archive.writestr(f"weights/data/{key}", array.tobytes())
