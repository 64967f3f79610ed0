"""SkyPilot: a task that it runs, and starts again elsewhere, on whichever cloud has room."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from wm_jax.errors import UserError
from wm_jax.launch import accelerators
from wm_jax.launch.job import PORT, STOPPED, STORAGE, Job
from wm_jax.launch.shell import comment, folded, indented

_LIFE = """\
How it comes through preemption: SkyPilot notices that a host is gone, finds others, mounts the
bucket there and runs the same command, which resumes from its newest checkpoint. A run that was
stopped leaves with {stopped} and is started again; a crash is too, {restarts} times.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """``[skypilot]``.

    infra:     a cloud, region or zone, as "gcp/us-east5" or "kubernetes"; any if none is named
    spot:      hosts that may be taken away
    disk_size: GB a host; SkyPilot's default if 0
    """

    infra: str = ""
    spot: bool = False
    disk_size: int = 0


def render(job: Job) -> dict[str, str]:
    """``NAME.sky.yaml``."""
    options = job.options("skypilot", Options)
    if not job.bucket:
        raise UserError("SkyPilot's hosts share no disk: name a bucket.")
    file = f"{job.name}.sky.yaml"
    life = _LIFE.format(stopped=STOPPED, restarts=job.restarts)
    head = comment(f"{job.says}. Submit it with: sky jobs launch {file}\n\n{life}")
    # A TPU slice is one node of many hosts, and SkyPilot runs the task on each of them.
    nodes = 1 if job.is_tpu else job.hosts
    code = "" if job.image else "workdir: .  # this checkout, copied to every host\n"
    environment = "".join(f"  {k}: {json.dumps(v)}\n" for k, v in job.environment.items())
    environment = f"envs:\n{environment}" if environment else ""
    text = f"""\
{head}name: {job.name}
{code}num_nodes: {nodes}
resources:
{indented(_resources(job, options), 2)}file_mounts:
  {STORAGE}:
    source: {job.bucket}
    mode: MOUNT
{environment}{_setup(job)}run: |
{indented(_run(job), 2)}"""
    return {file: text}


def submit(job: Job, folder: Path) -> list[str]:
    return ["sky", "jobs", "launch", "--yes", str(folder / f"{job.name}.sky.yaml")]


def _resources(job: Job, options: Options) -> str:
    lines = []
    if job.is_tpu:
        tpu = accelerators.TPUS[job.accelerator]
        lines += [
            f"accelerators: tpu-{tpu.cloud}-{job.hosts * job.devices * tpu.cores}:1",
            "accelerator_args:",
            f"  runtime_version: {tpu.runtime}",
        ]
    if job.is_gpu:
        lines.append(f"accelerators: {accelerators.GPUS[job.accelerator].skypilot}:{job.devices}")
    if options.infra:
        lines.append(f"infra: {options.infra}")
    if options.disk_size:
        lines.append(f"disk_size: {options.disk_size}")
    if job.image:
        lines.append(f"image_id: docker:{job.image}")
    lines += [
        f"use_spot: {'true' if options.spot else 'false'}",
        "job_recovery:",
        f"  max_restarts_on_errors: {job.restarts}",
        f"  recover_on_exit_codes: [{STOPPED}]",
    ]
    return "\n".join(lines) + "\n"


def _setup(job: Job) -> str:
    return "" if job.image else f"setup: |\n  launch/install {job.extras}".rstrip() + "\n"


def _run(job: Job) -> str:
    if job.is_tpu:
        meet = "export WM_JAX_CLUSTER=gcetpu\n"
    else:
        meet = f"""\
export JAX_COORDINATOR_ADDRESS="$(head -n 1 <<<"$SKYPILOT_NODE_IPS"):{PORT}"
export JAX_NUM_PROCESSES="$SKYPILOT_NUM_NODES"
export JAX_PROCESS_ID="$SKYPILOT_NODE_RANK"
"""
    program, ready = ("wm-jax", "") if job.image else (".venv/bin/wm-jax", ". launch/environment\n")
    limit = ["timeout", f"--kill-after={job.grace}", str(job.seconds)]
    return f"{ready}{meet}exec {folded(limit, job.command(program))}\n"
