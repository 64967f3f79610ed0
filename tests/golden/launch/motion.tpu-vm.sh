#!/usr/bin/env bash
# motion: 4 hosts with 4 v5p each (2x2x4).
# From a checkout of wm_jax, with gcloud logged in:
#
#   bash motion.tpu-vm.sh all       create, install and run, again after each preemption (11 tries)
#   bash motion.tpu-vm.sh create    the slice; one that was preempted is made anew
#   bash motion.tpu-vm.sh install   this checkout, its committed files, on every worker
#   bash motion.tpu-vm.sh run       train, or resume, until it is done; Ctrl-C leaves it running: see stop
#   bash motion.tpu-vm.sh stop      save and leave
#   bash motion.tpu-vm.sh delete    the slice; what is in /storage/runs/motion stays
set -euo pipefail

name=motion
flags=(--zone=us-east5-a)
tpu() { gcloud compute tpus tpu-vm "$@" "${flags[@]}"; }
# The same command on every worker: JAX asks the VM which one it is.
everywhere() { tpu ssh "$name" --worker=all --command="$1"; }

create() {
  case "$(tpu describe "$name" --format='value(state)' 2>/dev/null || true)" in
    READY) return ;;
    PREEMPTED | TERMINATED) delete ;;
  esac
  tpu create "$name" --accelerator-type=v5p-32 --version=v2-alpha-tpuv5 --spot
}

install() {
  local archive
  archive="$(mktemp -d)/wm_jax.tar.gz"
  git archive --format=tar.gz --prefix=wm_jax/ -o "$archive" HEAD
  tpu scp "$archive" "$name:wm_jax.tar.gz" --worker=all
  everywhere "$(cat <<'WORKER'
set -euo pipefail
if ! mountpoint -q /storage; then
  command -v gcsfuse >/dev/null || { echo "install gcsfuse in setup of [tpu_vm]" >&2; exit 1; }
  sudo mkdir -p /storage
  sudo chown "$USER" /storage
  gcsfuse --implicit-dirs my-bucket /storage
fi
# The VM's own Python is older than wm_jax takes.
sudo apt-get -qq update
sudo apt-get -qq install -y python3.11-venv
tar -xzf wm_jax.tar.gz
wm_jax/launch/install tpu
WORKER
)"
}

run() {
  everywhere "$(cat <<'WORKER'
set -euo pipefail
# What an earlier connection left running saves and leaves first.
if [ -e wm_jax.pid ] && kill -TERM "$(cat wm_jax.pid)" 2>/dev/null; then
  while kill -0 "$(cat wm_jax.pid)" 2>/dev/null; do sleep 1; done
fi
echo $$ >wm_jax.pid
cd wm_jax
. launch/environment
export TF_CPP_MIN_LOG_LEVEL=1
export WM_JAX_CLUSTER=gcetpu
exec timeout \
  --kill-after=120 86400 \
  .venv/bin/wm-jax train \
  --config experiments/configs/twins.py:small \
  --config.data.directory=/storage/data/motion \
  --workdir /storage/runs/motion \
  --stopped-status 75
WORKER
)"
}

stop() { everywhere 'kill -TERM "$(cat wm_jax.pid)"'; }
delete() { tpu delete "$name" --quiet; }

all() {
  for _ in $(seq 0 10); do
    if create && install && run; then return; fi
    echo "$name stopped or failed; starting it again." >&2
    sleep 30
  done
  return 1
}

case "${1:-}" in
  all | create | install | run | stop | delete) "$1" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2 ;;
esac
