"""A workdir in a bucket: ``gs://bucket/runs/a``, or any URL that fsspec knows.

A run keeps its files in a folder of this machine and copies them there whenever a checkpoint is
whole; a start, here or on another machine, takes from there what it lacks. So a missing network
costs no update (a slow one makes a save wait for the copy of the one before), and what is read back
is proved by the same manifests as on a disk.

- A step counts there once its ``manifest.json`` is there, which is copied last.
- What cannot be copied stays here and is copied with the next checkpoint; a run that ends without
  says so, and leaves with a status that is not 0.
- Where both places hold steps, the newest step decides which of them the run goes on from.

One machine at a time: several processes need a workdir that all of them see.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wm_jax import manifest
from wm_jax.errors import MissingExtra, UserError
from wm_jax.manifest import MANIFEST

#: In the name of a step that is being fetched; what is left of one is removed as of a save.
PARTIAL = "fetched.orbax-checkpoint-tmp"


def is_url(workdir: str | Path) -> bool:
    return "://" in str(workdir)


def folder(workdir: str | Path) -> Path:
    """Where the files of a workdir are on this machine: of a URL a folder of its own in
    ``$WM_JAX_REMOTE`` (default ``~/.cache/wm_jax/remote``)."""
    if not is_url(workdir):
        return Path(workdir)
    root = Path(os.environ.get("WM_JAX_REMOTE", "~/.cache/wm_jax/remote")).expanduser()
    url = str(workdir).rstrip("/")
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return root / f"{url.rpartition('/')[2]}-{digest}"


def fetched(workdir: str | Path, step: int | None = None, *, every: bool = False) -> Path:
    """The folder of a workdir, to be read: of a URL, once its newest whole step (or ``step``, or
    every one) and the files beside it are here. What argparse makes of a ``--workdir``."""
    here = folder(workdir)
    if is_url(workdir):
        Mirror(str(workdir)).fetch(step, every=every)
        if not manifest.steps(manifest.folder(here)):
            raise UserError(
                f"{workdir} holds no whole checkpoint; train there first: wm-jax train "
                f"--config experiments/configs/twins.py:small --workdir {workdir}"
            )
    return here


class Mirror:
    """The place in a bucket that the folder of a run is copied to.

    ``notes`` collects sentences about what could not be copied; the caller shows them.
    """

    def __init__(self, url: str):
        self.url, self.folder = url.rstrip("/"), folder(url)
        self.notes: list[str] = []
        self._behind = False  # the last copy went wrong
        self._pushed: dict[str, tuple[int, int]] = {}  # file -> size and time when it was copied
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise MissingExtra("fsspec", "remote") from None
        try:
            self._fs, self._root = url_to_fs(self.url)
        except ImportError as error:  # of the driver: its message names the package
            raise UserError(f"{self.url}: {error}; or all: pip install 'wm_jax[remote]'.") from None
        except ValueError as error:
            raise UserError(
                f"the workdir {self.url} cannot be opened ({error}); name a folder, or a URL such "
                "as gs://bucket/runs/a or s3://bucket/runs/a."
            ) from None

    def fetch(self, step: int | None = None, *, every: bool = False) -> None:
        """Brings what the folder lacks: the newest whole step (or ``step``, or every one), and the
        files beside it where that step is newer than all that is here."""
        there = self._told(self._steps)
        here = manifest.steps(manifest.folder(self.folder))
        if not here or (there and there[-1] > here[-1]):
            self._told(self._fetch_files)
        for number in reversed(there):
            newer = number > max(here, default=-1)
            wanted = every or (newer if step is None else number == step)
            if number in here or not wanted:
                continue
            problem = self._told(functools.partial(self._fetch_step, number))
            if problem is not None:
                self.notes.append(f"checkpoint {self._at(number)} {problem}; it is left out")
            elif not every:
                return

    def push(self, drop: Callable[[list[int], Callable[[int], dict]], list[int]]) -> bool:
        """Copies whole steps and files that are not there yet, then removes what ``drop`` says of
        the steps there (of their numbers, and a function to their scores). False, and a note, where
        something went wrong: nothing is lost, and the next call tries again."""
        try:
            self._push(drop)
        except Exception as error:  # noqa: BLE001, whatever a network throws
            self._behind = True
            self.notes.append(
                f"{self.url} could not be written ({_first_line(error)}); everything is whole in "
                f"{self.folder}, and is copied with the next checkpoint."
            )
        else:
            self._behind = False
        return not self._behind

    def check(self) -> None:
        """Raises `UserError` where the last copy is not there: a run's last word."""
        if self._behind:
            raise UserError(
                f"the end of the run is not in {self.url}, which could not be written; it is whole "
                f"in {self.folder}: run the same command on this machine to copy it."
            )

    def _push(self, drop: Callable[..., list[int]]) -> None:
        there, directory = self._steps(), manifest.folder(self.folder)
        for step in manifest.steps(directory):
            path = directory / str(step)
            if step in there or not (path / MANIFEST).exists():
                continue
            files = [f for f in _files(path) if f.name != MANIFEST]
            for file in [*files, path / MANIFEST]:
                self._put(file)
            there.append(step)
        for file in self._beside():
            stat = file.stat()
            now = stat.st_size, stat.st_mtime_ns
            if self._pushed.get(str(file)) != now:
                self._put(file)
                self._pushed[str(file)] = now
        for step in drop(sorted(there), self._scores):
            # Its manifest first: half a step is none.
            self._fs.rm_file(f"{self._at(step)}/{MANIFEST}")
            self._fs.rm(self._at(step), recursive=True)

    def _put(self, file: Path) -> None:
        target = f"{self._root}/{file.relative_to(self.folder).as_posix()}"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._fs.put_file(str(file), target)

    def _beside(self) -> Iterable[Path]:
        """Files of the run other than its checkpoints."""
        inside = manifest.folder(self.folder).name
        for file in _files(self.folder):
            if file.relative_to(self.folder).parts[0] != inside and file.suffix != ".partial":
                yield file

    def _fetch_files(self) -> None:
        for path in self._fs.find(self._root):
            name = path.removeprefix(self._root).lstrip("/")
            if not name.startswith("checkpoints/"):
                self._get(path, self.folder / name)

    def _fetch_step(self, step: int) -> str | None:
        """None, or what is wrong with it."""
        target = manifest.folder(self.folder) / str(step)
        partial = target.with_name(f"{step}.{PARTIAL}")
        shutil.rmtree(partial, ignore_errors=True)
        for path in self._fs.find(self._at(step)):
            self._get(path, partial / path.removeprefix(self._at(step)).lstrip("/"))
        problem = manifest.damage(partial)
        if problem is None:
            partial.rename(target)
        else:
            shutil.rmtree(partial)
        return problem

    def _get(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        self._fs.get_file(path, str(partial))
        partial.replace(target)

    def _at(self, step: int) -> str:
        return f"{self._root}/checkpoints/{step}"

    def _steps(self) -> list[int]:
        """Whole ones there, ascending."""
        self._fs.invalidate_cache()
        found = self._fs.glob(f"{self._root}/checkpoints/*/{MANIFEST}")
        names = [path.split("/")[-2] for path in found]
        return sorted(int(name) for name in names if name.isdigit())

    def _scores(self, step: int) -> dict[str, float]:
        return manifest.parsed(self._fs.cat_file(f"{self._at(step)}/{MANIFEST}")).get("scores", {})

    def _told(self, function: Callable[[], Any]) -> Any:
        """``function()``; what a network throws as one sentence."""
        try:
            return function()
        except Exception as error:  # noqa: BLE001
            raise UserError(
                f"{self.url} cannot be read ({_first_line(error)}); is the name right, and are "
                "you let in?"
            ) from error


def of(workdir: str | Path) -> Mirror | None:
    """The mirror of a workdir that is a URL."""
    return Mirror(str(workdir)) if is_url(workdir) else None


#: A ``--workdir`` of which every step is wanted.
fetched_whole = functools.partial(fetched, every=True)


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
