"""What a run is made of, and what follows from it alone: mesh, fresh state, programs."""

from __future__ import annotations

from typing import Any

import jax
from ml_collections import ConfigDict

from data_pipelines import window
from wm_jax import curriculum, mesh_choice, optim, remembered, train_step, updates
from wm_jax import mesh as meshes
from wm_jax.shapes import HEAD_FIELDS


class Makings:
    """Of a config, and of a ``model`` in place of the one that it names.

    model, optimizer, mesh: as they are used
    why:     a sentence about a mesh that was chosen rather than named; ''
    named:   whether the config says all there is to know of the model
    targets: fields of a batch that heads learn from
    rows:    of a batch, those that this process reads
    stages:  of the curriculum of windows
    """

    def __init__(self, config: ConfigDict, model: Any = None):
        self.config, self.named = config, model is None
        self.model = _build(config) if model is None else model
        if config.train.remember:
            remembered.check(self.model)
        self.optimizer = optim.make_optimizer(config.optim)
        self.targets = tuple(HEAD_FIELDS[name] for name in config.model.heads)
        self.why = ""
        self.mesh = self._make_mesh()
        self.rows = meshes.rows_of_process(self.mesh, config.train.batch_size)
        self.stages = curriculum.stages(config)

    def blank(self, batch: int, time: int) -> window.Arrays:
        """A batch of the shapes that the loader yields, without data."""
        model = self.config.model
        pairs = bool(self.config.data.paraphrases)
        return window.blank(batch, time, model.resolution, self.targets, model.readout, pairs)

    def fresh_state(self) -> train_step.TrainState:
        """The state before the first update."""
        return train_step.init_state(*self._of_state())

    def abstract_state(self) -> train_step.TrainState:
        """Its shapes and where they lie."""
        return train_step.abstract_state(*self._of_state())

    def find(self) -> tuple[str | None, updates.Updates | None]:
        """A name for the programs of such a run, and the programs if an earlier one kept them."""
        key = updates.key_of(self.config, self.mesh) if self.named else None
        return key, updates.find(key, self.mesh)

    def compile(
        self,
        state: train_step.TrainState,
        key: str | None,
        memory: remembered.Remembering | None = None,
    ) -> updates.Updates:
        """The update as a compiled program for each window of the curriculum; of batches with what
        ``memory`` holds, if there is one."""
        blank = self.blank(len(self.rows), self.config.data.window)
        blank = blank if memory is None else memory.blank(blank)
        batch = meshes.shard_batch(blank, self.mesh)
        windows = [frames for _, frames in self.stages]
        ema = self.config.train.ema
        makings = self.model, self.optimizer, ema, windows, state, batch, self.mesh
        return updates.make(*makings, key, tuple(self.config.optim.only))

    def _of_state(self) -> tuple[Any, ...]:
        config = self.config
        streams = config.train.batch_size if config.train.carry_state else 0
        first = meshes.to_batch(self.blank(1, 2))
        makings = self.model, self.optimizer, first, config.seed, self.mesh
        return *makings, config.train.ema, streams

    def _make_mesh(self) -> jax.sharding.Mesh:
        """Of the config's sizes, or of those chosen in their place, which stay out of it."""
        sizes, train = self.config.mesh, self.config.train
        if sizes.auto:
            first = meshes.to_batch(self.blank(1, 2))
            state = train_step.state_size(self.model, self.optimizer, first, train.ema)
            needs = mesh_choice.Needs(*state, train.batch_size)
            sizes, self.why = mesh_choice.choose(needs, mesh_choice.devices_here())
        mesh = meshes.make_mesh(sizes)
        meshes.check_batch_size(train.batch_size, mesh)
        return mesh


def _build(config: ConfigDict) -> Any:
    from wm_jax.models import build

    return build(config.model)
