"""A run that begins with another run's weights: taken by name, refused where a shape differs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wm_jax import checkpoint, stored
from wm_jax.errors import UserError
from wm_jax.train_step import TrainState


class Taken(NamedTuple):
    """Names of weights: ``taken`` from the other run, ``drawn`` as without it (absent there, or
    skipped on purpose), ``left`` there for want of a place here."""

    source: str
    update: int
    taken: list[str]
    drawn: list[str]
    left: list[str]

    def sentence(self) -> str:
        when = f" after update {self.update}" if self.update else ""
        parts = [f"{len(self.taken)} weights are those of {self.source}{when}"]
        for names, what in ((self.drawn, "drawn anew"), (self.left, "not taken")):
            if names:
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                parts.append(f"{what}: {', '.join(names[:8])}{more}")
        return "; ".join(parts) + "."


def begin(state: TrainState, source: str, skip: tuple[str, ...]) -> tuple[TrainState, Taken]:
    """A fresh state with the weights of ``source`` (see `place`, or an export's folder) in it, as
    the optimiser's start and as the average; its moments, key and update are those of a fresh run.

    Of a run that kept averaged weights, those are taken: they are the ones that were judged. Raises
    `UserError` where a weight's shape or dtype differs, or no name is shared.
    """
    workdir, step = place(source)
    theirs, _, step = stored.read(workdir, step)
    there, here = named(theirs), named(state.params)
    check_parts(here, skip, "config.train.init_skip")
    taken, drawn = [], []
    for name, mine in here.items():
        if name not in there or skipped(name, skip):
            drawn.append(name)
            continue
        if (there[name].shape, there[name].dtype) != (mine.shape, mine.dtype):
            raise UserError(
                f"config.train.init_from={source}: {name} is {_kind(there[name])} there and "
                f"{_kind(mine)} here; name it in config.train.init_skip to draw it anew."
            )
        taken.append(name)
    if not taken:
        raise UserError(
            f"config.train.init_from={source} shares no weight with this model: it has "
            f"{', '.join(list(there)[:3])}, … and this model {', '.join(list(here)[:3])}, …"
        )
    left = [name for name in there if name not in taken]

    def choose(path: Any, mine: jax.Array) -> jax.Array:
        name = checkpoint.name_of(path)
        return jax.device_put(there[name], mine.sharding) if name in taken else mine

    params = jax.tree_util.tree_map_with_path(choose, state.params)
    average = None if state.ema is None else jax.tree.map(jnp.copy, params)
    source = f"{workdir}/checkpoints/{step}" if step else workdir
    report = Taken(source, step, taken, drawn, left)
    return state._replace(params=params, ema=average), report


def place(source: str) -> tuple[str, int | None]:
    """Workdir and update of ``WORKDIR`` (the newest: None) or ``WORKDIR/checkpoints/UPDATE``."""
    above, _, last = source.rstrip("/").rpartition("/checkpoints/")
    return (above, int(last)) if above and last.isdigit() else (source, None)


def named(tree: Any) -> dict[str, jax.Array]:
    """Weights by name, as checkpoints have them: 'decoder/kernel'."""
    return {
        checkpoint.name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_parts(names: Iterable[str], parts: Sequence[str], key: str) -> None:
    """Refuses, by the config's ``key``, a part that is none of the ``names`` nor above one."""
    here = list(names)
    for part in parts:
        if any(skipped(name, (part,)) for name in here):
            continue
        above = sorted({name.rpartition("/")[0] for name in here})
        near = difflib.get_close_matches(part, [*here, *above], n=1, cutoff=0.7)
        tops = ", ".join(dict.fromkeys(name.partition("/")[0] for name in here))
        hint = f"did you mean '{near[0]}'?" if near else f"its parts are {tops}."
        raise UserError(f"{key}: this model has no weight '{part}', nor any below it; {hint}")


def skipped(name: str, skip: tuple[str, ...]) -> bool:
    """Whether ``name`` is one of ``skip`` or lies below it."""
    return any(name == part or name.startswith(f"{part}/") for part in skip)


def _kind(leaf: jax.Array) -> str:
    return f"{leaf.dtype} {list(leaf.shape)}"
