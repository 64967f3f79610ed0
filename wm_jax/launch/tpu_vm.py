"""Cloud TPU VMs: a script of gcloud commands, the same on every worker of a slice."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from wm_jax.errors import UserError
from wm_jax.launch import accelerators
from wm_jax.launch.job import STORAGE, Job
from wm_jax.launch.shell import comment, folded

_USAGE = """\
From a checkout of wm_jax, with gcloud logged in:

  bash {file} all       create, install and run, again after each preemption ({tries} tries)
  bash {file} create    the slice; one that was preempted is made anew
  bash {file} install   this checkout, its committed files, on every worker
  bash {file} run       train, or resume, until it is done; Ctrl-C leaves it running: see stop
  bash {file} stop      save and leave
  bash {file} delete    the slice; what is in {workdir} stays
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """``[tpu_vm]``.

    zone, project: of the slice; the project is gcloud's own if none is named
    spot:          hosts that may be taken away
    runtime:       software of the VM; the one for this TPU if none is named
    setup:         lines of bash on every worker before the install, as a mount of the workdir
    """

    zone: str
    project: str = ""
    spot: bool = False
    runtime: str = ""
    setup: list[str] = dataclasses.field(default_factory=list)


def render(job: Job) -> dict[str, str]:
    """``NAME.tpu-vm.sh``."""
    options = job.options("tpu_vm", Options)
    if not job.is_tpu:
        raise UserError(f"accelerator = {job.accelerator} is no TPU; tpu_vm rents nothing else.")
    if not job.bucket and not options.setup:
        raise UserError(
            'TPU VMs share no disk; name a bucket, or mount one in setup = ["…"] of [tpu_vm].'
        )
    file = f"{job.name}.tpu-vm.sh"
    usage = _USAGE.format(file=file, tries=job.restarts + 1, workdir=job.workdir)
    tpu = accelerators.TPUS[job.accelerator]
    kind = f"{tpu.cloud}-{job.hosts * job.devices * tpu.cores}"
    flags = [f"--zone={options.zone}"] + [f"--project={options.project}"] * bool(options.project)
    spot = " --spot" if options.spot else ""
    text = f"""\
#!/usr/bin/env bash
{comment(f"{job.says}.{chr(10)}{usage}")}set -euo pipefail

name={job.name}
flags=({shlex.join(flags)})
tpu() {{ gcloud compute tpus tpu-vm "$@" "${{flags[@]}}"; }}
# The same command on every worker: JAX asks the VM which one it is.
everywhere() {{ tpu ssh "$name" --worker=all --command="$1"; }}

create() {{
  case "$(tpu describe "$name" --format='value(state)' 2>/dev/null || true)" in
    READY) return ;;
    PREEMPTED | TERMINATED) delete ;;
  esac
  tpu create "$name" --accelerator-type={kind} --version={options.runtime or tpu.runtime}{spot}
}}

install() {{
  local archive
  archive="$(mktemp -d)/wm_jax.tar.gz"
  git archive --format=tar.gz --prefix=wm_jax/ -o "$archive" HEAD
  tpu scp "$archive" "$name:wm_jax.tar.gz" --worker=all
  everywhere "$(cat <<'WORKER'
{_install(job, options)}WORKER
)"
}}

run() {{
  everywhere "$(cat <<'WORKER'
{_run(job)}WORKER
)"
}}

stop() {{ everywhere 'kill -TERM "$(cat wm_jax.pid)"'; }}
delete() {{ tpu delete "$name" --quiet; }}

all() {{
  for _ in $(seq 0 {job.restarts}); do
    if create && install && run; then return; fi
    echo "$name stopped or failed; starting it again." >&2
    sleep 30
  done
  return 1
}}

case "${{1:-}}" in
  all | create | install | run | stop | delete) "$1" ;;
  *) sed -n '2,/^set /{{/^set /d;s/^# \\{{0,1\\}}//;p;}}' "$0"; exit 2 ;;
esac
"""
    return {file: text}


def submit(job: Job, folder: Path) -> list[str]:
    return ["bash", str(folder / f"{job.name}.tpu-vm.sh"), "all"]


def _install(job: Job, options: Options) -> str:
    setup = "".join(f"{line}\n" for line in options.setup)
    mount = ""
    if job.bucket:
        bucket = job.bucket.removeprefix("gs://")
        mount = f"""\
if ! mountpoint -q {STORAGE}; then
  command -v gcsfuse >/dev/null || {{ echo "install gcsfuse in setup of [tpu_vm]" >&2; exit 1; }}
  sudo mkdir -p {STORAGE}
  sudo chown "$USER" {STORAGE}
  gcsfuse --implicit-dirs {bucket} {STORAGE}
fi
"""
    return f"""\
set -euo pipefail
{setup}{mount}# The VM's own Python is older than wm_jax takes.
sudo apt-get -qq update
sudo apt-get -qq install -y python3.11-venv
tar -xzf wm_jax.tar.gz
wm_jax/launch/install tpu
"""


def _run(job: Job) -> str:
    limit = ["timeout", f"--kill-after={job.grace}", str(job.seconds)]
    return f"""\
set -euo pipefail
# What an earlier connection left running saves and leaves first.
if [ -e wm_jax.pid ] && kill -TERM "$(cat wm_jax.pid)" 2>/dev/null; then
  while kill -0 "$(cat wm_jax.pid)" 2>/dev/null; do sleep 1; done
fi
echo $$ >wm_jax.pid
cd wm_jax
. launch/environment
{job.exports()}export WM_JAX_CLUSTER=gcetpu
exec {folded(limit, job.command(".venv/bin/wm-jax"))}
"""
