"""Kubernetes: a JobSet of one indexed Job, whose pods are the hosts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from wm_jax.errors import UserError
from wm_jax.launch import accelerators
from wm_jax.launch.job import PORT, STOPPED, STORAGE, Job
from wm_jax.launch.shell import comment, indented

_LIFE = """\
How it comes through preemption: a drained node sends SIGTERM to its pod. All processes save after
the same update and leave with {stopped}, which fails the Job by its podFailurePolicy, and JobSet
makes all pods anew without counting it. A crash counts against maxRestarts. Either way the run goes
on from its newest checkpoint. After activeDeadlineSeconds it has failed for good.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """``[jobset]``.

    namespace:       where it lives
    queue:           a local queue of Kueue, or none
    service_account: of the pods; a bucket needs one that may write to it
    spot:            hosts that may be taken away
    gke:             select nodes by GKE's labels; false where the cluster is another's
    cpu, memory:     what each pod asks for, as "32" and "128Gi"; or nothing
    """

    namespace: str = "default"
    queue: str = ""
    service_account: str = ""
    spot: bool = False
    gke: bool = True
    cpu: str = ""
    memory: str = ""


def render(job: Job) -> dict[str, str]:
    """``NAME.jobset.yaml``."""
    options = job.options("jobset", Options)
    if not job.image:
        raise UserError("a JobSet needs image = …, a container image that holds wm_jax.")
    if job.is_tpu and not options.gke:
        raise UserError("TPUs are GKE's: leave gke = false out of [jobset].")
    if job.bucket and not options.gke:
        raise UserError("buckets are mounted by GKE: leave bucket out, or gke = false.")
    name = f"{job.name}.jobset.yaml"
    life = _LIFE.format(stopped=STOPPED)
    head = comment(f"{job.says}. Submit it with: kubectl apply -f {name}\n\n{life}")
    queue = f"  labels:\n    kueue.x-k8s.io/queue-name: {options.queue}\n" if options.queue else ""
    text = f"""\
{head}apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {job.name}
  namespace: {options.namespace}
{queue}spec:
  network:
    enableDNSHostnames: true  # a headless service: pods find the first one by name
  failurePolicy:
    maxRestarts: {job.restarts}
    rules:
      - name: stopped
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
      - name: outoftime
        action: FailJobSet
        onJobFailureReasons: [DeadlineExceeded]
  replicatedJobs:
    - name: hosts
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: {job.hosts}
          parallelism: {job.hosts}
          backoffLimit: 0  # a lost pod fails the Job, and all start again
          activeDeadlineSeconds: {job.seconds}
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  operator: In
                  values: [{STOPPED}]
              - action: FailJob
                onPodConditions:
                  - type: DisruptionTarget
                    status: "True"
          template:
{indented(_pod(job, options), 12)}"""
    return {name: text}


def submit(job: Job, folder: Path) -> list[str]:
    return ["kubectl", "apply", "-f", str(folder / f"{job.name}.jobset.yaml")]


def _pod(job: Job, options: Options) -> str:
    fuse = 'metadata:\n  annotations:\n    gke-gcsfuse/volumes: "true"\n' if job.bucket else ""
    account = options.service_account
    account = f"  serviceAccountName: {account}\n" if account else ""
    return f"""\
{fuse}spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: {job.grace}
{account}{_nodes(job, options)}  containers:
    - name: train
      image: {json.dumps(job.image)}
      command:
{indented(_list(job.command()), 8)}      env:
{indented(_environment(job), 8)}{_resources(job, options)}{_mount(job)}{_volumes(job)}"""


def _list(items: list[str]) -> str:
    return "".join(f"- {json.dumps(item, ensure_ascii=False)}\n" for item in items)


def _environment(job: Job) -> str:
    values = {
        "JAX_COORDINATOR_ADDRESS": f"{job.name}-hosts-0-0.{job.name}:{PORT}",
        "JAX_NUM_PROCESSES": str(job.hosts),
        **job.environment,
    }
    plain = "".join(f"- name: {k}\n  value: {json.dumps(v)}\n" for k, v in values.items())
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    return f"""\
{plain}- name: JAX_PROCESS_ID
  valueFrom:
    fieldRef:
      fieldPath: {index}
"""


def _nodes(job: Job, options: Options) -> str:
    labels = {}
    if options.gke and job.is_tpu:
        labels["cloud.google.com/gke-tpu-accelerator"] = accelerators.TPUS[job.accelerator].gke
        labels["cloud.google.com/gke-tpu-topology"] = job.topology
    if options.gke and job.is_gpu:
        labels["cloud.google.com/gke-accelerator"] = accelerators.GPUS[job.accelerator].gke
    if options.gke and options.spot:
        labels["cloud.google.com/gke-spot"] = "true"
    if not labels:
        return ""
    lines = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in labels.items())
    tolerations = ""
    if options.spot:
        tolerations = """\
  tolerations:
    - key: cloud.google.com/gke-spot
      operator: Exists
"""
    return f"  nodeSelector:\n{lines}{tolerations}"


def _resources(job: Job, options: Options) -> str:
    """Accelerators as a limit, cores and memory as a request."""
    kind = "google.com/tpu" if job.is_tpu else "nvidia.com/gpu" if job.is_gpu else ""
    limits = f"  limits:\n    {kind}: {job.devices}\n" if kind else ""
    asked = {"cpu": options.cpu, "memory": options.memory}
    lines = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in asked.items() if value)
    requests = f"  requests:\n{lines}" if lines else ""
    text = f"resources:\n{limits}{requests}" if limits or requests else ""
    return indented(text, 6)


def _mount(job: Job) -> str:
    if not job.bucket:
        return ""
    return f"      volumeMounts:\n        - name: storage\n          mountPath: {STORAGE}\n"


def _volumes(job: Job) -> str:
    if not job.bucket:
        return ""
    return f"""\
  volumes:
    - name: storage
      csi:
        driver: gcsfuse.csi.storage.gke.io
        volumeAttributes:
          bucketName: {job.bucket.removeprefix("gs://")}
          mountOptions: implicit-dirs
"""
