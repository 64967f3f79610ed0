"""What a job is, read from a TOML file and checked: what to train, on what, and where it keeps it.

    name = "motion"
    arguments = "--config experiments/configs/twins.py:small --config.train.batch_size=64"
    workdir = "/storage/runs/motion"
    hosts = 16
    devices = 4
    accelerator = "v5p"
    topology = "4x4x4"

Beside these, a table for each place (``[slurm]``, ``[jobset]``, …) holds what only that one asks.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from wm_jax.errors import UserError
from wm_jax.launch import accelerators

#: Where a bucket is mounted on every host.
STORAGE = "/storage"
#: Exit status of a run that was stopped before its end: launchers start it again. EX_TEMPFAIL.
STOPPED = 75
#: Port of process 0 where the processes meet, where no one else chooses it.
PORT = 8476

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run.

    name:        letters, digits and dashes; of the job, its files and machines
    arguments:   of ``wm-jax train``, without --workdir
    workdir:     absolute; seen by every host, kept when a host is lost
    hosts:       machines; one process each
    devices:     accelerators of a host
    accelerator: one of `accelerators.NAMES`
    topology:    of a TPU slice, such as 4x4x4
    hours:       the most that one attempt may take
    grace:       seconds from the warning to the end, in which the run saves
    restarts:    after crashes; see launch/README.md for what counts where
    image:       container image that holds wm_jax
    bucket:      gs://NAME, mounted at /storage on every host
    environment: variables of every process
    tables:      what a single place asks, by its name; see `options`
    """

    name: str
    arguments: tuple[str, ...]
    workdir: str
    hosts: int = 1
    devices: int = 1
    accelerator: str = "cpu"
    topology: str = ""
    hours: float = 24.0
    grace: int = 120
    restarts: int = 10
    image: str = ""
    bucket: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def is_gpu(self) -> bool:
        return self.accelerator in accelerators.GPUS

    @property
    def is_tpu(self) -> bool:
        return self.accelerator in accelerators.TPUS

    @property
    def extras(self) -> str:
        """The extra of setup.cfg that this accelerator needs, or nothing."""
        return "cuda" if self.is_gpu else "tpu" if self.is_tpu else ""

    @property
    def seconds(self) -> int:
        return round(self.hours * 3600)

    @property
    def says(self) -> str:
        """The job in a few words."""
        hosts = "1 host" if self.hosts == 1 else f"{self.hosts} hosts"
        slice_ = f" ({self.topology})" if self.topology else ""
        return f"{self.name}: {hosts} with {self.devices} {self.accelerator} each{slice_}"

    def command(self, program: str = "wm-jax", stopped: int = STOPPED) -> list[str]:
        """The command of every process. A run that is stopped leaves with ``stopped``."""
        status = ["--stopped-status", str(stopped)] if stopped else []
        return [program, "train", *self.arguments, "--workdir", self.workdir, *status]

    def exports(self) -> str:
        """``environment`` in bash, a line each."""
        lines = (f"export {k}={shlex.quote(v)}\n" for k, v in self.environment.items())
        return "".join(lines)

    def options(self, table: str, kind: type[Options]) -> Options:
        """The table of one place as a dataclass of that kind."""
        return kind(**_checked(self.tables.get(table, {}), kind, f"[{table}]"))


def read(path: str | Path, tables: Iterable[str]) -> Job:
    """The job in a TOML file, in which ``tables`` may stand. Raises `UserError` with one sentence
    on what is wrong."""
    try:
        values = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read the job {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the job {path} is not TOML: {error}.") from error
    found = {name: values.pop(name) for name in tables if name in values}
    for name, table in found.items():
        if not isinstance(table, dict):
            raise UserError(f"{path}: {name} must be a table: [{name}].")
    try:
        values = _checked(values, Job, "a job", named={"arguments": str}, hidden={"tables"})
        return check(Job(**values | {"arguments": _split(values["arguments"])}, tables=found))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def check(job: Job) -> Job:
    """The job itself, or a `UserError`."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", job.name):
        raise UserError(
            f"name '{job.name}' must be at most 40 small letters, digits and dashes, beginning "
            "with a letter and not ending with a dash."
        )
    if any(a == "--workdir" or a.startswith("--workdir=") for a in job.arguments):
        raise UserError("arguments hold --workdir; give it as workdir = … instead.")
    if not any(a == "--config" or a.startswith("--config=") for a in job.arguments):
        raise UserError("arguments lack --config FILE.py:VARIANT, which wm-jax train needs.")
    if not job.workdir.startswith("/"):
        raise UserError(f"workdir '{job.workdir}' must be absolute: every host looks there.")
    for field in ("hosts", "devices", "hours", "grace"):
        if not getattr(job, field) > 0:
            raise UserError(f"{field} = {getattr(job, field)} must be more than 0.")
    if job.restarts < 0:
        raise UserError(f"restarts = {job.restarts} must be at least 0.")
    for name in job.environment:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise UserError(f"environment.{name} is no name of a variable.")
    _check_bucket(job)
    _check_accelerator(job)
    return job


def _check_bucket(job: Job) -> None:
    if not job.bucket:
        return
    if not re.fullmatch(r"gs://[a-z0-9][\w.-]+", job.bucket, re.ASCII):
        raise UserError(f"bucket '{job.bucket}' must be gs://NAME, without a folder.")
    if not job.workdir.startswith(f"{STORAGE}/"):
        raise UserError(
            f"{job.bucket} is mounted at {STORAGE}, and workdir is {job.workdir}; begin it with "
            f"{STORAGE}/."
        )


def _check_accelerator(job: Job) -> None:
    if job.accelerator not in accelerators.NAMES:
        raise UserError(
            f"accelerator '{job.accelerator}' is none of {', '.join(accelerators.NAMES)}"
            f"{_near(job.accelerator, accelerators.NAMES)}"
        )
    if not job.is_tpu:
        if job.topology:
            raise UserError(f"topology is for TPUs; leave it out with {job.accelerator}.")
        return
    chips = accelerators.chips(job.accelerator, job.topology)
    if chips != job.hosts * job.devices:
        raise UserError(
            f"topology {job.topology} has {chips} chips, and hosts = {job.hosts} × devices = "
            f"{job.devices} make {job.hosts * job.devices}; most slices have 4 chips a host."
        )


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"arguments cannot be split as a shell would: {error}.") from error


def _checked(
    values: Mapping[str, Any],
    kind: Any,
    where: str,
    named: Mapping[str, type] | None = None,
    hidden: Iterable[str] = (),
) -> dict[str, Any]:
    """``values`` as fields of the dataclass ``kind``: none unknown, none missing, of their types.

    The type of a field is its default's, or the one that ``named`` says, or text.
    """
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name not in hidden}
    for name in values:
        if name not in fields:
            raise UserError(f"{where} has no '{name}'{_near(name, fields)}")
    missing = dataclasses.MISSING
    for name, field in fields.items():
        required = field.default is missing and field.default_factory is missing
        if name not in values:
            if required:
                raise UserError(
                    f"{where} needs {name} = … in the job file; launch/README.md says what it is."
                )
            continue
        example = field.default
        if field.default_factory is not missing:
            example = field.default_factory()
        wanted = (named or {}).get(name, str if required else type(example))
        _check_type(name, values[name], wanted, where)
    return {n: float(v) if isinstance(fields[n].default, float) else v for n, v in values.items()}


def _check_type(name: str, value: Any, wanted: type, where: str) -> None:
    kinds = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    kinds |= {list: "a list of texts", dict: "a table of texts"}
    fits = type(value) is wanted or (wanted is float and type(value) is int)
    if fits and wanted in (list, dict):
        parts = value.values() if wanted is dict else value
        fits = all(type(part) is str for part in parts)
    if not fits:
        raise UserError(f"{name} of {where} is {value!r} and must be {kinds[wanted]}.")


def _near(name: str, names: Iterable[str]) -> str:
    """The end of a sentence on a name that is unknown."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else "."
