"""SLURM: a batch script that saves and queues itself again when its time or its hosts are taken."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from wm_jax.errors import UserError
from wm_jax.launch.job import STOPPED, Job
from wm_jax.launch.shell import comment, folded

_LIFE = """\
How it comes through preemption and the time limit:
 1. {grace} s before the limit, SLURM sends SIGTERM to this script (--signal=B:TERM@{grace}), which
    hands it to the processes. Preemption with a grace time sends it to the processes itself.
 2. They agree on an update, save a checkpoint after it, and leave with {stopped}.
 3. On {stopped} this script puts the job back in the queue. Where the hosts were taken without
    warning, SLURM does (--requeue), and the run goes on from its newest checkpoint.
 4. The same script then resumes, since its workdir holds the run. scancel ends it for good.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """``[slurm]``.

    directory:    the checkout of wm_jax, with its .venv, on a file system that all hosts see
    partition, account, qos: where to queue, and who pays
    gpus:         what to ask for on each host; default gpu:DEVICES
    options:      more options of sbatch
    srun_options: more options of srun
    setup:        lines of bash before the run, as "module load cuda"
    """

    directory: str
    partition: str = ""
    account: str = ""
    qos: str = ""
    gpus: str = ""
    options: list[str] = dataclasses.field(default_factory=list)
    srun_options: list[str] = dataclasses.field(default_factory=list)
    setup: list[str] = dataclasses.field(default_factory=list)


def render(job: Job) -> dict[str, str]:
    """``NAME.sbatch``."""
    options = job.options("slurm", Options)
    if job.is_tpu:
        raise UserError("SLURM has no TPUs; render tpu_vm, jobset or skypilot for this job.")
    if job.bucket:
        raise UserError(
            "SLURM mounts no bucket; leave it out, and name a workdir on the cluster's file system."
        )
    life = _LIFE.format(grace=job.grace, stopped=STOPPED)
    name = f"{job.name}.sbatch"
    head = f"{job.says}. Submit it with: sbatch {name}\n\n{life}"
    directives = "".join(f"#SBATCH {option}\n" for option in _directives(job, options))
    return {name: f"#!/usr/bin/env bash\n{comment(head)}{directives}{_body(job, options)}"}


def submit(job: Job, folder: Path) -> list[str]:
    return ["sbatch", str(folder / f"{job.name}.sbatch")]


def _directives(job: Job, options: Options) -> list[str]:
    minutes = -(-job.seconds // 60)
    days, hours = divmod(minutes // 60, 24)
    gpus = options.gpus or (f"gpu:{job.devices}" if job.is_gpu else "")
    named = {
        "job-name": job.name,
        "nodes": job.hosts,
        "ntasks-per-node": 1,
        "gres": gpus,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "time": f"{days}-{hours:02}:{minutes % 60:02}:00",
        "signal": f"B:TERM@{job.grace}",
        "output": f"{job.name}-%j.log",
        "open-mode": "append",
    }
    lines = [f"--{key}={value}" for key, value in named.items() if value]
    return [*lines, "--requeue", *options.options]


def _body(job: Job, options: Options) -> str:
    visible = ",".join(str(i) for i in range(job.devices))
    # JAX would give each process one device; here a process has all of its host's.
    devices = f"export JAX_LOCAL_DEVICE_IDS={visible}\n" if job.is_gpu else ""
    setup = "".join(f"{line}\n" for line in options.setup)
    srun = ["srun", "--label", f"--wait={job.grace}", *options.srun_options]
    run = folded(srun, job.command(".venv/bin/wm-jax"))
    return f"""\
set -euo pipefail

cd {shlex.quote(options.directory)}
{setup}. launch/environment
{job.exports()}# Each process learns from SLURM who it is and where the first one is.
export WM_JAX_CLUSTER=slurm
{devices}
told=
trap 'told=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
# --wait: when one process has left, the others have that long to finish saving.
{run} &
srun=$!
status=0
wait "$srun" || status=$?
# A signal ends `wait`, not srun: wait once more.
while [ "$told" ]; do
  told= status=0
  wait "$srun" || status=$?
done

state="$(scontrol show job "$SLURM_JOB_ID" | grep -o 'JobState=[A-Z]*' || true)"
if [ "$status" -eq {STOPPED} ] && [ "$state" = JobState=RUNNING ]; then  # not after scancel
  echo "stopped and saved; back into the queue."
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
"""
