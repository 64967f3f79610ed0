"""Training: one loop, from a config to a workdir that holds a run.

A workdir that holds a run resumes it: killed and started again, it ends in the very state of a run
that was never stopped.
"""

from __future__ import annotations

import errno
import io
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.input import open_loader
from wm_jax import (
    budget,
    checkpoint,
    curriculum,
    optim,
    processes,
    recover,
    remembered,
    remote,
    train_step,
    warm_start,
)
from wm_jax import config as configs
from wm_jax import mesh as meshes
from wm_jax.clips import Clips, open_clips
from wm_jax.errors import UserError
from wm_jax.makings import Makings
from wm_jax.progress import Progress
from wm_jax.stop import StopRequest
from wm_jax.train_log import TrainLog
from wm_jax.watchdog import STATUS, Watchdog
from wm_jax.writers import Writer, read_rows

Episodes = Sequence[Mapping[str, Any]]


class TrainingDiverged(UserError):
    """A metric became NaN or infinite, or the loss leapt, time and again."""


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    model: Any = None,
    source: Episodes | None = None,
    validation: Episodes | None = None,
) -> dict[str, Any]:
    """Trains to ``config.train.steps`` updates, or resumes; returns the last row of metrics with
    ``step``, ``steps``, ``stopped`` (by Ctrl-C or SIGTERM), ``workdir`` and ``checkpoint``.

    ``model`` replaces the one that the config names; ``source`` and ``validation`` replace the
    splits on disk by episodes at hand. Raises `UserError` for anything a user can mend.
    """
    mirror = remote.of(workdir)
    try:
        run = Run(config, workdir, model, source, validation, mirror)
        try:
            result = run.train()
            processes.meet("end")
        finally:
            run.close()
        run.copy()
        return result
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk that holds {workdir} is full; free some space and run the same command: it "
            "goes on from the newest whole checkpoint."
        ) from error


class Run:
    """One run in one workdir: what it is made of, and the loop."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: str | Path,
        model: Any = None,
        source: Episodes | None = None,
        validation: Episodes | None = None,
        mirror: remote.Mirror | None = None,
    ):
        self._begin = time.monotonic()
        self._mirror, self._place = mirror, workdir
        self._workdir = workdir = remote.folder(workdir)
        if mirror is not None:
            self._fetch(mirror)
        self._config = config = configs.adopt(configs.validate(config), workdir)
        self._made = Makings(config, model)
        if self._made.why:
            _tell(self._made.why)
        self._mesh = self._made.mesh
        self._loader: Any = open_loader(
            config.data,
            batch_size=config.train.batch_size,
            seed=config.seed,
            rows=self._made.rows,
            source=source,
            targets=self._made.targets,
            consecutive=config.train.carry_state,
            fixed=config.train.remember,
        )
        self._validation = validation
        keep = checkpoint.Keep(config.train.keep, config.train.keep_every, config.train.keep_best)
        self._checkpoints = checkpoint.Checkpoints(workdir, keep, mirror)
        self._saved = self._checkpoints.newest()
        self._first = jax.process_index() == 0  # of several processes one writes and tells
        self._writer = Writer(workdir if self._first else None, self._saved or 0)
        self._tell_notes()
        self._recoveries = recover.Recoveries(workdir, self._saved or 0, writes=self._first)
        frames = config.train.batch_size * config.data.window
        loader = self._loader  # not through self: in a cycle, files of a failed run stay open
        self._log = TrainLog(
            config.train, frames, self._writer, self._begin, lambda: len(loader.corrupt)
        )
        self._scores: dict[str, float] = {}  # of the clip drawn after the last update
        self._clips: Clips | None = None
        self._corrupt_told: set[int] = set()

    def _fetch(self, mirror: remote.Mirror) -> None:
        if jax.process_count() > 1:
            raise UserError(
                f"{mirror.url}: several processes need a workdir that all of them see; mount the "
                "bucket and name the folder (launch/README.md says how)."
            )
        mirror.fetch()

    def copy(self) -> None:
        """The last of a run to its mirror. Raises `UserError` where that is not to be had."""
        if self._mirror is not None:
            self._checkpoints.copy()
            self._mirror.check()

    def close(self) -> None:
        try:
            self._checkpoints.wait()
        finally:
            self._loader.close()
            self._writer.close()

    def train(self) -> dict[str, Any]:
        """The loop."""
        config, step = self._config, self._saved or 0
        train = config.train
        if train.steps and step >= train.steps:
            _tell(f"{self._workdir} has its {train.steps} updates already.")
            return self._result(step)
        with processes.stop_request() as stop:
            key, found = self._made.find()
            state = self._restore(found.state if found else None)
            if self._saved is not None:
                _tell(f"resuming {self._workdir} after update {step}.")
            position = self._loader.position()
            self._check_size(next(self._loader))  # before anything is compiled or measured
            self._loader.seek(position)
            memory = None
            if train.remember:
                rows = len(self._made.rows)
                memory = remembered.Remembering(self._loader, self._made.model, state.params, rows)
                self._loader = memory
                if not memory.fill(stop):
                    _tell("stopped before an update; the same command goes on.")
                    return self._result(step)
            self._updates = found or self._made.compile(state, key, memory)
            self._tell_cost()
            self._clips = open_clips(config, self._made.model, self._mesh, self._validation)
            self._fix_steps(state)
            self._writer.event("resumed" if step else "started", step, steps=train.steps)
            stream = sys.stderr if self._first else io.StringIO()
            bar = Progress(train.steps, "train", initial=step, stream=stream)
            with bar, self._watchdog() as watchdog:
                while True:
                    try:
                        state, step = self._advance(state, step, bar, stop, watchdog)
                        break
                    except recover.Trouble as found:
                        trouble = found.with_traceback(None)  # which would hold the state
                    state, step = self._go_back(trouble, bar)
                if self._saved != step:
                    self._save(state, step)
                self._checkpoints.wait()
        if stop.requested:
            path = self._checkpoints.directory / str(step)
            _tell(f"stopped after update {step} and saved {path}; the same command goes on.")
        self._writer.event("stopped" if stop.requested else "finished", step)
        return self._result(step)

    def _advance(
        self,
        state: train_step.TrainState,
        step: int,
        bar: Progress,
        stop: StopRequest,
        watchdog: Watchdog,
    ) -> tuple[train_step.TrainState, int]:
        """Updates to the end or a wish to stop. Raises `recover.Trouble` for one gone wrong."""
        train = self._config.train
        rate = optim.learning_rate(self._config.optim, train.steps)
        self._log.begin(step, rate, bar)
        while step < train.steps and not stop.due(step):
            batch = meshes.shard_batch(self._next_batch(step, bar), self._mesh)
            window = curriculum.stage_at(self._made.stages, step, train.steps)
            update = self._updates.programs[window]
            state, metrics = update(state, batch, np.float32(rate(step)))
            step += 1
            self._log.add(step, metrics)
            self._scores = {}
            save, draw = step % train.checkpoint_every == 0, self._clip_due(step)
            if save or draw:
                self._log.flush()  # now: no NaN reaches a checkpoint
            if draw:
                self._draw_clip(state, step)
            if save:
                self._save(state, step)
            watchdog.beat()
        self._log.flush()
        return state, step

    def _go_back(
        self, trouble: recover.Trouble, bar: Progress
    ) -> tuple[train_step.TrainState, int]:
        """State and update of the newest whole checkpoint, or of the start, the loader left after
        the data that led to trouble. Raises `TrainingDiverged` where the tries are used up."""
        kind, step, name = trouble.kind, trouble.step, trouble.metric
        self._writer.event(kind, step, metric=name, value=str(trouble.value))
        self._checkpoints.wait()
        self._saved = self._checkpoints.newest()
        self._tell_notes()
        to = self._saved or 0
        tries = self._recoveries.tries(to) + 1
        if tries > self._config.train.recover_tries:
            kept = f"the last good checkpoint is {self._checkpoints.directory / str(to)}"
            often = f" for the {_ordinal(tries)} time from update {to} on" if tries > 1 else ""
            raise TrainingDiverged(
                f"{trouble}{often}, so the run stopped; "
                f"{'there is no checkpoint yet' if self._saved is None else kept}. Lower "
                "config.optim.learning_rate, or clip harder."
            )
        self._recoveries.add(to, trouble, self._loader.position())
        state = self._restore(self._updates.state)
        self._writer.close()
        self._writer = Writer(self._workdir if self._first else None, to)  # drops rows after it
        self._log.writer = self._writer
        self._writer.event("went_back", to, after=step, metric=name, tries=tries)
        bar.note(f"{trouble}: back to update {to}, and on with the data after it (try {tries}).")
        return state, to

    def _tell_notes(self) -> None:
        """What was found damaged since the last time, and what could not be copied."""
        places = {"damaged_checkpoint": self._checkpoints, "mirror": self._mirror}
        for kind, place in places.items():
            while place is not None and place.notes:
                note = place.notes.pop(0)  # one by one: a thread that saves may add to them
                _tell(note)
                self._writer.event(kind, self._saved or 0, note=note)

    def _watchdog(self) -> Watchdog:
        stacks = self._workdir / f"hung_{jax.process_index()}.txt"
        seconds = 60 * self._config.train.hang_minutes

        def tell() -> None:
            _tell(f"no update for {seconds:g} s: stacks are in {stacks}; leaving with {STATUS}.")
            self._writer.event("hung", self._log.step, seconds=seconds, stacks=str(stacks))

        return Watchdog(seconds, stacks, tell)

    def _restore(self, like: train_step.TrainState | None = None) -> train_step.TrainState:
        """A fresh state, or the newest checkpoint's, with the loader put where it was, or after
        the data that is to be skipped from there on. ``like`` is `updates.Updates.state`."""
        skipped = self._recoveries.position(self._saved or 0)
        if self._saved is None:
            self._log.spikes.seek([])
            if skipped is not None:
                self._loader.seek(skipped)
            return self._warm(self._made.fresh_state())
        if like is None:
            like = self._made.abstract_state()
        restored = self._checkpoints.restore(self._saved, like)
        self._log.spikes.seek(restored.position.get("recent_losses", ()))
        self._loader.seek(skipped or restored.position)
        if skipped is None or like.handover is None:
            return restored.state
        # What was carried belongs to the windows before those skipped: it starts anew.
        return restored.state._replace(handover=self._made.fresh_state().handover)

    def _warm(self, state: train_step.TrainState) -> train_step.TrainState:
        """A fresh state with another run's weights, if the config names one."""
        train, only = self._config.train, tuple(self._config.optim.only)
        warm_start.check_parts(warm_start.named(state.params), only, "config.optim.only")
        if not train.init_from:
            return state
        state, report = warm_start.begin(state, train.init_from, tuple(train.init_skip))
        _tell(report.sentence())
        self._writer.event("warm_start", 0, **report._asdict())
        return state

    def _tell_cost(self) -> None:
        """What an update costs, and what it took to have it as a program."""
        cost, loaded = self._updates.cost, self._updates.loaded
        _tell(
            f"{cost.parameters / 1e6:.3f} M parameters; an update is {cost.flops / 1e9:.2f} GFLOP "
            f"and {cost.operand_bytes / 1e6:.0f} MB of operands in matrix products, and needs "
            f"{cost.memory_bytes / 1e6:.0f} MB; {'loaded' if loaded else 'compiled'} in "
            f"{cost.compile_seconds:.1f} s for {self._mesh.size} {jax.default_backend()} device(s)."
        )
        if not self._writer.has_tensorboard:
            _tell(
                "no TensorBoard files (pip install 'wm_jax[tensorboard]' for them); metrics are in "
                f"{self._workdir / 'metrics.jsonl'}."
            )
        cache = getattr(jax.config, "jax_compilation_cache_dir", None)
        told = cost._asdict() | {"loaded": loaded, "mesh": dict(self._mesh.shape)}
        self._writer.event("compiled", self._saved or 0, cache=cache, **told)
        processes.meet("compiled")

    def _fix_steps(self, state: train_step.TrainState) -> None:
        """Turns train.minutes into a number of updates, once, and writes the resolved config."""
        train = self._config.train
        if not train.steps:
            programs, where = self._updates.programs, (state, self._loader, self._mesh)
            seconds = budget.mean(self._made.stages, lambda n: budget.measure(programs[n], *where))
            if self._clips is not None:  # also draws the untrained model
                draw, path = self._clips.draw, self._clip_path(0)
                seconds += budget.seconds_of(lambda: draw(state.params, path)) / train.clip_every
            left = 60 * train.minutes - (time.monotonic() - self._begin)
            train.steps = budget.updates_in(left, seconds, self._config)
            _tell(
                f"{train.steps} updates of {1e3 * seconds:.0f} ms fit in {train.minutes} minutes."
            )
        if self._first:
            configs.write(self._config, self._workdir)

    def _next_batch(self, step: int, bar: Progress) -> dict[str, np.ndarray]:
        batch = next(self._loader)
        self._check_size(batch)
        for index in sorted(set(self._loader.corrupt) - self._corrupt_told):
            sentence = self._loader.corrupt[index]
            bar.note(f"skipped a corrupt record: {sentence}")
            self._writer.event("corrupt_record", step, record=sentence)
            self._corrupt_told.add(index)
        return batch

    def _check_size(self, batch: dict[str, np.ndarray]) -> None:
        size, (height, width) = self._config.model.resolution, batch["frames"].shape[2:4]
        if (height, width) != (size, size):
            raise UserError(
                f"frames are {width}×{height} px and config.model.resolution is {size}; build the "
                f"data set with --resolution {size}, or change the config."
            )

    def _clip_due(self, step: int) -> bool:
        train = self._config.train
        return self._clips is not None and (step % train.clip_every == 0 or step == train.steps)

    def _clip_path(self, step: int) -> Path | None:
        return self._workdir / f"clips/{step:06d}" if self._first else None

    def _draw_clip(self, state: train_step.TrainState, step: int) -> None:
        assert self._clips is not None
        weights = state.params if state.ema is None else state.ema
        begin = time.monotonic()
        values = self._clips.draw(weights, self._clip_path(step))
        self._writer.row(step, values)
        self._scores = values
        self._log.pause(time.monotonic() - begin)

    def _save(self, state: train_step.TrainState, step: int) -> None:
        position = self._loader.position() | self._log.spikes.position()
        path = self._checkpoints.save(state, position, self._config, self._scores)
        self._saved = step
        self._writer.event("checkpoint", step, path=str(path))
        self._tell_notes()

    def _result(self, step: int) -> dict[str, Any]:
        rows = [r for r in read_rows(self._workdir / "metrics.jsonl") if "train/loss/total" in r]
        return (rows[-1] if rows else {}) | {
            "step": step,
            "steps": self._config.train.steps,
            "stopped": step < self._config.train.steps,
            "workdir": str(self._place),
            "checkpoint": str(self._checkpoints.directory / str(step)),
        }


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _tell(text: str) -> None:
    """To stderr: stdout belongs to --json."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
