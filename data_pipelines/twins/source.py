"""Reading a built data set: random access to episodes as flat dicts, without TensorFlow."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.episode import EPISODE, TEXT
from data_pipelines.twins import proof
from wm_jax.errors import MissingExtra, UserError

PLAN_FILE = "build.json"


class Source(Sequence[dict[str, Any]]):
    """Episodes of one split; item i is a flat dict with the keys of `EPISODE`, strings as str.

    Args:
      directory: of a data set that `wm-jax data build` wrote.
      split: 'train', 'validation', 'test' or a shifted test set.
      fields: only these are decoded (a name, or a folder of names as 'truth'); None: all.

    Items can be read from several threads; a Source travels to other processes by pickle, and
    must not be inherited by fork once it has been read. Raises UserError for a directory that
    holds no data set, an unknown split or field; a damaged record raises what array_record
    raises, and `where(i)` names its file.
    """

    def __init__(self, directory: str, split: str, fields: Sequence[str] | None = None):
        self.directory, self.split = str(directory), split
        self.plan = read_plan(self.directory)
        harm = proof.glance(self.directory, self.plan, split)
        if harm is not None:
            raise UserError(
                f"{os.path.join(self.directory, harm.file)} {harm.problem}; build the data set "
                "anew, or copy it anew from where it is whole."
            )
        builder = _open_builder(self.directory)
        if split not in builder.info.splits:
            known = ", ".join(builder.info.splits)
            raise UserError(f"{self.directory} has no split '{split}'; it has {known}.")
        self._info = builder.info.splits[split]
        self._features = _selected(builder.info.features, fields, self.directory)
        self._records = builder.as_data_source(split).data_source
        self.name = f"{self.directory}:{split}"

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        tree = self._features.deserialize_example_np(self._records[index])
        return _flat(tree)

    def where(self, index: int) -> str:
        """File and record number of an episode, for messages."""
        for length, path in zip(self._info.shard_lengths, self._info.filepaths, strict=True):
            if index < length:
                return f"{path}, record {index}"
            index -= length
        raise IndexError(index)


def read_plan(directory: str) -> dict[str, Any]:
    """What the data set was built as. Raises UserError where there is none."""
    path = os.path.join(directory, PLAN_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except FileNotFoundError:
        raise UserError(
            f"{directory} holds no data set ({PLAN_FILE} is missing); make one with "
            f"'wm-jax data build twins:motion --out {directory}'."
        ) from None
    except ValueError:  # not JSON, or not text
        record = None
    if not isinstance(record, dict) or not proof.is_sealed(record):
        raise UserError(f"{path} is damaged; build the data set anew.")
    return record


def _open_builder(directory: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise MissingExtra("tensorflow-datasets", "data") from None
    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # noqa: BLE001, whatever a damaged description makes it raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{directory} can't be read ({reason}); build it anew.") from None


def _selected(features: Any, fields: Sequence[str] | None, directory: str) -> Any:
    """The part of the nested features that `fields` name."""
    if fields is None:
        return features
    chosen: dict[str, Any] = {}
    for name in fields:
        folder, _, leaf = name.partition("/")
        try:
            node = features[folder][leaf] if leaf else features[folder]
        except (KeyError, TypeError):
            raise UserError(
                f"{directory} has no field '{name}'; it has {', '.join(features)}."
            ) from None
        if leaf:
            chosen.setdefault(folder, {})[leaf] = node
        else:
            chosen[folder] = node
    return type(features)(chosen)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested to flat; bytes to str; plain numbers back to the specified dtype."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + key
        if isinstance(value, dict):
            out |= _flat(value, f"{name}/")
        elif EPISODE.fields[name].dtype != TEXT:
            out[name] = np.asarray(value, EPISODE.fields[name].dtype)[()]
        elif EPISODE.fields[name].shape:
            out[name] = [text.decode() for text in value]
        else:
            out[name] = value.decode()
    return out
