"""Frozen states of more videos than fit into memory: read batch by batch, kept as features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from wm_jax import shapes
from wm_jax.evaluation.judge import Readable
from wm_jax.evaluation.probe_states import ModelReader, Projection, Reader, filled
from wm_jax.evaluation.protocol import ProbeProtocol
from wm_jax.evaluation.world import Clips, bare_clips
from wm_jax.models.baselines import CopyLast

#: A model, and what is done to it; see `readout_spec.CONTROLS`.
Key = tuple[str, str | None]
States = dict[Key, Float[np.ndarray, "r s w"]]

#: The last frame's pixels as a state: what needs no memory and no model.
PIXELS: Key = ("copy_last", None)


def readers(runs: Mapping[str, Readable], protocol: ProbeProtocol) -> dict[Key, Reader]:
    """Of every model under every control that it has, and of the last frame's pixels, which has no
    moments but looks."""
    out: dict[Key, Reader] = {
        (name, control): reader
        for name, run in runs.items()
        for control, reader in run.readers(protocol).items()
    }
    still = dataclasses.replace(protocol, ahead=())  # it stays as it is
    out[PIXELS] = ModelReader(CopyLast((protocol.resolution,) * 2), {}, still)
    return out


def untold(reader: Reader) -> Reader:
    """The same of what takes no such actions: it is told none."""

    def read(clips: Clips) -> Float[np.ndarray, "r s n d"]:
        none = shapes.no_conditions(*np.asarray(clips.conditions.actions.mask).shape)
        return reader(clips._replace(conditions=none))

    return read


class Gathered:
    """Features of some episodes for each reader: ``width`` numbers at every moment.

    What standardises and projects is made of the first batch, and is kept in ``projections`` for
    the batches and the splits that follow.
    """

    def __init__(self, readers: Mapping[Key, Reader], protocol: ProbeProtocol):
        self.readers, self.protocol = readers, protocol
        self.projections: dict[Key, Projection] = {}

    def __call__(
        self, batches: Iterable[Clips], progress: Callable[[int, str], None]
    ) -> tuple[States, UInt8[np.ndarray, "r 1 h w 3"]]:
        """States, and the first frame of every episode. ``progress`` is called with how many
        episodes one more reader is done with, and with its model."""
        parts: dict[Key, list[np.ndarray]] = {key: [] for key in self.readers}
        first = []
        for clips in batches:
            first.append(clips.frames[:, :1])
            for key, reader in self.readers.items():
                tokens = reader(filled(clips))[: len(clips.frames)]
                made = self.projections.get(key) or Projection(tokens, self.protocol)
                self.projections[key] = made
                parts[key].append(np.asarray(made(tokens).whole))
                progress(len(clips.frames), key[0])
        states = {key: np.concatenate(each) for key, each in parts.items()}
        return states, np.concatenate(first)


def clips_of(
    frames: UInt8[np.ndarray, "r t h w 3"],
    length: int,
    actions: Float[np.ndarray, "r t a"] | None = None,
) -> Clips:
    """Clips of ``length`` steps without a truth: frames of as many of them as there are, and the
    hand's actions if they are told."""
    told = None
    if actions is not None:
        there = jnp.ones(actions.shape[:2], bool)
        told = shapes.Signal(jnp.asarray(actions, jnp.float32), there)
    return bare_clips(frames, length, told)


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, evenly spread, so that no kind of file is left out."""
    if count <= most:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, most).round()]
