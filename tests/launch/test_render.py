"""Rendered text: as it was, readable by what reads it, and refused where a place cannot do it."""

import json

import pytest
import yaml

from tests.launch.rendering import GOLDEN, GPU, TPU, bucket, changed, parses, render
from wm_jax.errors import UserError
from wm_jax.launch import cli

#: To render them anew: wm-jax launch TARGET --job FILE --out tests/golden/launch
CASES = [
    ("slurm", GPU, "cluster.sbatch"),
    ("tpu_vm", TPU, "motion.tpu-vm.sh"),
    ("jobset", TPU, "motion.jobset.yaml"),
    ("skypilot", TPU, "motion.sky.yaml"),
]


@pytest.mark.parametrize("target, path, name", CASES)
def test_text_is_as_it_was(target, path, name):
    assert render(target, path) == (GOLDEN / name).read_text()


@pytest.mark.parametrize("target, path, name", CASES)
def test_lines_are_short_and_end_cleanly(target, path, name):
    lines = render(target, path).split("\n")
    assert lines[-1] == "" and lines[-2] != ""
    assert not [line for line in lines if line != line.rstrip() or len(line) > 110]


def pod(jobset):
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]


def test_a_jobset_is_one_indexed_job_of_all_hosts():
    found = yaml.safe_load(render("jobset", TPU))
    (hosts,) = found["spec"]["replicatedJobs"]
    spec = hosts["template"]["spec"]
    assert (found["kind"], hosts["replicas"]) == ("JobSet", 1)
    assert spec["completions"] == spec["parallelism"] == 4
    assert (spec["completionMode"], spec["backoffLimit"]) == ("Indexed", 0)
    assert spec["activeDeadlineSeconds"] == 24 * 3600
    assert pod(found)["spec"]["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    (codes, taken) = spec["podFailurePolicy"]["rules"]
    assert codes["onExitCodes"] == {"operator": "In", "values": [75]}
    assert taken["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert found["spec"]["failurePolicy"]["maxRestarts"] == 10


def test_pods_find_the_first_and_know_their_number():
    found = yaml.safe_load(render("jobset", TPU))
    (container,) = pod(found)["spec"]["containers"]
    told = {entry["name"]: entry for entry in container["env"]}
    assert told["JAX_COORDINATOR_ADDRESS"]["value"] == "motion-hosts-0-0.motion:8476"
    assert told["JAX_NUM_PROCESSES"]["value"] == "4"
    field = told["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert container["command"][:2] == ["wm-jax", "train"]
    assert container["command"][-2:] == ["--stopped-status", "75"]


def test_pods_ask_for_their_tpus_and_mount_the_bucket():
    template = pod(yaml.safe_load(render("jobset", TPU)))
    spec = template["spec"]
    assert spec["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5p-slice"
    assert spec["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x2x4"
    assert spec["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert spec["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
    assert spec["containers"][0]["volumeMounts"][0]["mountPath"] == "/storage"
    assert template["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"


def test_pods_ask_for_gpus_on_any_cluster(tmp_path):
    more = '[jobset]\ngke = false\nqueue = "lab"\ncpu = "32"\nmemory = "128Gi"\n[slurm]'
    path = changed(tmp_path, GPU, ("hosts = 2", 'hosts = 2\nimage = "wm"'), ("[slurm]", more))
    found = yaml.safe_load(render("jobset", path))
    spec = pod(found)["spec"]
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "lab"}
    resources = spec["containers"][0]["resources"]
    assert resources["limits"] == {"nvidia.com/gpu": 8}
    assert resources["requests"] == {"cpu": "32", "memory": "128Gi"}
    assert "nodeSelector" not in spec and "volumes" not in spec
    assert "--config.data.directory=/shared/data/with space" in spec["containers"][0]["command"]
    assert {"name": "NOTE", "value": "it's mine"} in spec["containers"][0]["env"]


def test_skypilot_asks_for_a_slice_as_one_node():
    found = yaml.safe_load(render("skypilot", TPU))
    assert found["num_nodes"] == 1
    assert found["resources"]["accelerators"] == "tpu-v5p-32:1"
    assert found["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert found["resources"]["use_spot"] is True
    assert found["file_mounts"]["/storage"] == {"source": "gs://my-bucket", "mode": "MOUNT"}
    assert (
        found["resources"]["image_id"] == "docker:us-docker.pkg.dev/my-project/wm-jax/wm-jax:latest"
    )
    assert "setup" not in found and "workdir" not in found
    assert "export WM_JAX_CLUSTER=gcetpu" in found["run"] and parses(found["run"])


def test_skypilot_copies_and_installs_the_checkout_where_there_is_no_image(tmp_path):
    found = yaml.safe_load(render("skypilot", bucket(tmp_path)))
    assert (found["workdir"], found["num_nodes"]) == (".", 2)
    assert found["resources"]["accelerators"] == "H100:8"
    assert found["setup"].split() == ["launch/install", "cuda"]
    assert "infra" not in found["resources"] and found["envs"] == {"NOTE": "it's mine"}


@pytest.mark.parametrize(
    "target, source, changes, sentence",
    [
        ("slurm", TPU, [], r"\[slurm\] needs directory"),
        ("slurm", TPU, [("[tpu_vm]", '[slurm]\ndirectory = "/a"\n[tpu_vm]')], "SLURM has no TPUs"),
        ("slurm", GPU, [("partition", "partitions")], "did you mean 'partition'?"),
        ("slurm", GPU, [('["--exclusive"]', '"--exclusive"')], "must be a list of texts"),
        ("tpu_vm", GPU, [], r"\[tpu_vm\] needs zone"),
        ("tpu_vm", GPU, [("[slurm]", '[tpu_vm]\nzone = "z"\n[slurm]')], "h100 is no TPU"),
        ("tpu_vm", TPU, [("bucket =", "# bucket =")], "TPU VMs share no disk"),
        ("jobset", GPU, [], "a JobSet needs image"),
        ("jobset", TPU, [("[jobset]", "[jobset]\ngke = false")], "TPUs are GKE's"),
        ("skypilot", GPU, [], "SkyPilot's hosts share no disk"),
        ("local_hosts", GPU, [], "this machine's cores"),
    ],
)
def test_what_a_place_cannot_do_is_one_sentence(tmp_path, target, source, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        render(target, changed(tmp_path, source, *changes))


def test_the_command_prints_writes_and_submits_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    assert cli.main(["slurm", "--job", str(GPU)]) == 0
    assert capsys.readouterr().out == (GOLDEN / "cluster.sbatch").read_text()
    out = tmp_path / "out"
    assert cli.main(["slurm", "--job", str(GPU), "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["paths"] == [str(out / "cluster.sbatch")]
    assert result["files"]["cluster.sbatch"] == (out / "cluster.sbatch").read_text()
    assert "submitted" not in result


def test_submitting_needs_a_folder_and_a_client(tmp_path, monkeypatch):
    arguments = ["slurm", "--job", str(GPU), "--submit"]
    with pytest.raises(UserError, match="--submit needs --out DIR"):
        cli.main(arguments)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch here"):
        cli.main([*arguments, "--out", str(tmp_path)])


def test_submitting_hands_on_the_status(tmp_path, monkeypatch, capsys):
    seen = []

    def run(command, stdout):
        seen.append(command)
        return type("Done", (), {"returncode": 4})

    monkeypatch.setattr("subprocess.run", run)
    arguments = ["slurm", "--job", str(GPU), "--out", str(tmp_path), "--submit", "--json"]
    assert cli.main(arguments) == 4
    assert seen == [["sbatch", str(tmp_path / "cluster.sbatch")]]
    assert json.loads(capsys.readouterr().out)["status"] == 4
