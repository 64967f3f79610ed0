"""Several processes as one run: they find each other before it, and stop at the same update.

A launcher says so in the environment, in one of two ways:

- ``JAX_COORDINATOR_ADDRESS`` (host:port of process 0), ``JAX_NUM_PROCESSES``, ``JAX_PROCESS_ID``;
- ``WM_JAX_CLUSTER``: ``slurm``, ``gcetpu``, ``gketpu`` or ``k8s``, where JAX reads the rest off
  what that cluster sets, or ``auto``, where it also finds out which one this is.

With neither there is one process, also inside an allocation of many: nothing waits for others
unless it was asked to.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import multihost

from wm_jax.errors import UserError
from wm_jax.stop import StopRequest

CLUSTER = "WM_JAX_CLUSTER"
CLUSTERS = ("auto", "slurm", "gcetpu", "gketpu", "k8s")
COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

#: Seconds without a sign of life after which a process counts as lost. JAX's own is 100.
HEARTBEAT = 10
#: Seconds to wait for the others at the start: on a pod, images are still being pulled.
START = 300
#: Seconds to wait for them at `meet`: one may compile, or prove a large checkpoint.
MEETING = 1200
#: Seconds to wait for them at the end. All have met there; who does not come has failed.
LEAVE = 10


def settings(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`, or None for a single process.

    Raises `UserError` where the variables are incomplete, or not what they should be.
    """
    cluster, given = environment.get(CLUSTER), [environment.get(n) for n in (COUNT, INDEX)]
    if cluster:
        if cluster not in CLUSTERS:
            raise UserError(f"{CLUSTER}={cluster} is none of {', '.join(CLUSTERS)}.")
        return {} if cluster == "auto" else {"cluster_detection_method": cluster}
    if given == [None, None]:
        return None
    address = environment.get(COORDINATOR)
    missing = [n for n in (COORDINATOR, COUNT, INDEX) if not environment.get(n)]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} must be set too: of several processes each is told "
            f"{COORDINATOR} (host:port of process 0), {COUNT} and {INDEX}."
        )
    count, index = (_whole(name, environment[name]) for name in (COUNT, INDEX))
    if not 0 <= index < count:
        raise UserError(
            f"{INDEX}={index} and {COUNT}={count}: processes are numbered from 0 to {COUNT}-1."
        )
    return {"coordinator_address": address, "num_processes": count, "process_id": index}


def join(environment: Mapping[str, str] | None = None) -> None:
    """Makes this process one of those that the launcher started; does nothing for a single one.

    Call it before anything touches a device. Raises `UserError` where the others are not found.
    """
    arguments = settings(os.environ if environment is None else environment)
    if arguments is None or jax.distributed.is_initialized():
        return
    _keep_stdout_for_results()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=START,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=LEAVE,
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise UserError(
            f"this process did not find the others within {START} s ({reason}); see that all were "
            f"started, and that {COORDINATOR} can be reached from every host."
        ) from error


def meet(place: str) -> None:
    """Waits until all processes are here: before the first exchange between their devices, which on
    a CPU waits for 30 s only, and before they leave. Nothing for a single process."""
    multihost.get_barrier_sync_fn()(key=f"wm_jax_{place}", timeout_ms=1000 * MEETING)


def stop_request() -> StopRequest:
    """The wish to stop, of this process or, of several, of any of them."""
    return StopTogether() if jax.process_count() > 1 else StopRequest()


class StopTogether(StopRequest):
    """`StopRequest` of several processes: a signal to one of them stops all, after the same update.

    JAX's own handler catches SIGTERM (a preempted host gets no other), tells the coordinator, and
    the processes agree on an update that none of them has passed. Ctrl-C is turned into SIGTERM.
    """

    signals = (signal.SIGINT,)

    def due(self, step: int) -> bool:
        from jax.experimental import multihost_utils

        self.requested = multihost_utils.reached_preemption_sync_point(step)
        return self.requested

    def _on_signal(self, number: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def _keep_stdout_for_results() -> None:
    """What libraries write to stdout by themselves goes to stderr from now on. Gloo says there whom
    it reached, from several threads at once, in the midst of a result's line."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = open(own, "w", encoding=sys.stdout.encoding, buffering=1, closefd=False)  # noqa: SIM115 (to the end)


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{name}={text} is not a whole number.")
    return int(text)
