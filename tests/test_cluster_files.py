"""The job files for clusters: parsed by whom they are for, or against the schema; the hand-started one is run."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml
from kubernetes_validate import validate
from torch.distributed.run import get_args_parser

from nas.cli import app
from nas.config import check, read_yaml
from nas.methods.catalog import procedure
from nas.progress import Silent
from nas.recipes.spinenet import SpineNetRecipe
from nas.run import Run
from nas.show import histories

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "examples/cluster"
TOKEN = {**os.environ, "RAY_AUTH_MODE": "token"}
TINY = ROOT / "tests/recipes/tiny_spinenet.yaml"

# Long options of sbatch, from its manual, of the kinds that a job file of ours may need.
SBATCH = {
    *(
        "account",
        "array",
        "chdir",
        "constraint",
        "cpus-per-gpu",
        "cpus-per-task",
        "error",
        "exclude",
        "exclusive",
    ),
    *(
        "export",
        "gpus",
        "gpus-per-node",
        "gpus-per-task",
        "gres",
        "job-name",
        "mem",
        "mem-per-cpu",
        "mem-per-gpu",
    ),
    *("nodelist", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue"),
    *("signal", "time"),
}
# KubeRay's API reference, ray.io/v1.
RAY_JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "entrypoint", "entrypointNumCpus"),
    *("entrypointNumGpus", "entrypointResources", "jobId", "metadata", "rayClusterSpec", "runtimeEnvYAML"),
    *("shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend"),
    "ttlSecondsAfterFinished",
}
RAY_CLUSTER = {
    *(
        "authOptions",
        "autoscalerOptions",
        "enableInTreeAutoscaling",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
    ),
    *("rayVersion", "suspend", "workerGroupSpecs"),
}
HEAD = {"enableIngress", "headService", "rayStartParams", "serviceType", "template"}
WORKERS = {
    *(
        "groupName",
        "idleTimeoutSeconds",
        "maxReplicas",
        "minReplicas",
        "numOfHosts",
        "rayStartParams",
        "replicas",
    ),
    *("scaleStrategy", "suspend", "template"),
}


def commands(text: str) -> list[list[str]]:
    """Calls of ``nas`` in a shell script, a list of words each."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if not line.lstrip().startswith("#")]
    return [line.split()[line.split().index("nas") :] for line in lines if "nas" in line.split()]


@pytest.mark.parametrize("name", ["hand_started.sh", "slurm.sbatch"])
def test_the_shell_can_read_it_and_it_may_be_executed(name: str) -> None:
    file = CLUSTER / name
    assert subprocess.run(["bash", "-n", str(file)], check=False, capture_output=True).returncode == 0
    assert os.access(file, os.X_OK)
    assert "set -euo pipefail" in file.read_text() and "RAY_AUTH_MODE=token" in file.read_text()


def test_slurm_knows_every_option_and_the_token_comes_first() -> None:
    text = (CLUSTER / "slurm.sbatch").read_text()
    options = re.findall(r"^#SBATCH --([a-z-]+)=\S+$", text, re.MULTILINE)
    assert len(options) == text.count("\n#SBATCH") and set(options) <= SBATCH
    assert text.index("\n#SBATCH") < text.index("\nset -euo"), (
        "sbatch reads them before the first command only"
    )
    assert text.index("export RAY_AUTH_TOKEN") < text.index("\nsrun")
    assert "Never run by us" in text


def test_torchrun_takes_the_training_and_its_options() -> None:
    file = CLUSTER / "torchrun.sbatch"
    text = file.read_text()
    assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0 and os.access(file, os.X_OK)
    options = re.findall(r"^#SBATCH --([a-z-]+)=\S+$", text, re.MULTILINE)
    assert len(options) == text.count("\n#SBATCH") and set(options) <= SBATCH
    assert "set -euo pipefail" in text and "Never run by us" in text
    lines = text.replace("\\\n", " ").splitlines()
    (line,) = (line for line in lines if line.startswith("exec srun torchrun"))
    values = {"$SLURM_JOB_NUM_NODES": "2", "$SLURM_JOB_ID": "7", "$head:$port": "one:20007"}
    for name, value in values.items():
        line = line.replace(f'"{name}"', value)
    words = shlex.split(line)[3:]
    started = get_args_parser().parse_args(words)
    assert (started.nnodes, started.nproc_per_node, started.rdzv_endpoint) == ("2", "4", "one:20007")
    assert started.module and started.training_script == "nas.cli"
    name, *arguments = started.training_script_args
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = commands[name].make_context(name, arguments).params
    assert (found["bundle"], str(found["recipe"]), str(found["run"])) == ("$bundle", "$recipe", "$run")
    # Without the two dashes torchrun looks for options of its own among them.
    with pytest.raises(SystemExit):
        get_args_parser().parse_args([word for word in words if word != "--"])


def test_the_fields_that_slurm_sets_are_fields_of_a_recipe() -> None:
    (command,) = commands((CLUSTER / "slurm.sbatch").read_text())
    assert command[:2] == ["nas", "search"]
    fields = [word.partition("=")[0] for before, word in pairwise(command) if before == "--set"]
    assert {"workers", "batch", "threads", "ray.gpus"} <= set(fields)
    written = {"workers": 12, "batch": 12, "threads": 4, "device": "auto", "engine": "ray"}
    data = {**read_yaml(TINY), **written, "ray": {"gpus": 1, "address": "10.0.0.1:6379"}}
    assert check(SpineNetRecipe, data, source="slurm").ray.gpus == 1
    assert {field.partition(".")[0] for field in fields} <= set(data)


def test_kubernetes_knows_every_field() -> None:
    claim, recipe, job = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    for plain in (claim, recipe):
        validate(plain, "1.37", strict=True)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= RAY_JOB
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) <= RAY_CLUSTER and cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == ray.__version__
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) <= HEAD and set(workers) <= WORKERS
    for group in (head, workers):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, **group["template"]}
        validate(pod, "1.37", strict=True)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        mounted = {mount["name"] for one in pod["spec"]["containers"] for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert commands(job["spec"]["entrypoint"])[0][2] == "/etc/nas/recipe.yaml"
    file = yaml.safe_load(recipe["data"]["recipe.yaml"])
    base = file.pop("extends")
    assert base.startswith("/opt/vertebra/examples/recipes/")
    whole = {**read_yaml(ROOT / base.removeprefix("/opt/vertebra/")), **file}
    checked = check(SpineNetRecipe, whole, source="kuberay.yaml")
    assert checked.engine == "ray" and checked.ray.address == "auto"
    per_node = 1 / checked.ray.gpus
    assert checked.workers == workers["replicas"] * per_node == checked.batch
    assert checked.threads * per_node <= int(
        workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    )


@contextmanager
def started(log: Path, *words: str, **environment: str) -> Iterator[None]:
    """A process that is ended as by ``kill`` at the end; Ray's script then ends what it started."""
    process = subprocess.Popen(
        ["bash", str(CLUSTER / "hand_started.sh"), *words],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def wait_for(address: str, nodes: int) -> None:
    words = [str(Path(sys.executable).with_name("ray")), "status", "--address", address]
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        status = subprocess.run(words, env=TOKEN, capture_output=True, text=True, check=False).stdout
        if len(re.findall(r"^ \d+ node_", status, re.MULTILINE)) >= nodes:
            return
        time.sleep(0.5)
    raise AssertionError(f"no {nodes} nodes at {address}: {status}")


def test_a_search_on_three_hand_started_nodes_finds_what_one_process_finds(tmp_path: Path) -> None:
    serial = Run.create(tmp_path / "serial", _tiny())
    procedure(serial.recipe).carry_out(serial, Silent())
    ip, port = ray.util.get_node_ip_address(), free_port()
    address = f"{ip}:{port}"
    with ExitStack() as stack:
        stack.enter_context(started(tmp_path / "head.log", "head", ip, "--num-cpus", "1", PORT=str(port)))
        wait_for(address, 1)
        for number in range(2):
            log = tmp_path / f"worker-{number}.log"
            stack.enter_context(started(log, "worker", address, "--num-cpus", "1"))
            # One after the other: two that start together on one machine want the same sockets, and both fail.
            wait_for(address, 2 + number)
        words = ["search", str(TINY), "--run", str(tmp_path / "run"), "--address", address]
        found = subprocess.run(
            [sys.executable, "-m", "nas.cli", *words, "--set", "workers=3", "--set", "retrain=null"],
            cwd=ROOT,
            env={**TOKEN, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        stranger = subprocess.run(
            [sys.executable, "-m", "nas.cli", *words[:-3], str(tmp_path / "other"), *words[-2:]],
            cwd=ROOT,
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
    assert found.returncode == 0, found.stderr
    assert stranger.returncode == 2 and "token" in stranger.stderr.splitlines()[-1], stranger.stderr
    assert not any(histories(Run.open(tmp_path / "other")).values())
    assert "has room for" not in found.stdout, "three workers were to fit"
    assert _trials(Run.open(tmp_path / "run")) == _trials(serial)


def _tiny() -> SpineNetRecipe:
    return check(SpineNetRecipe, {**read_yaml(TINY), "retrain": None}, source="tiny_spinenet.yaml")


def _trials(run: Run) -> dict[str, list[Any]]:
    return {
        name: [(one.number, one.digest, one.value, one.state) for one in history]
        for name, history in histories(run).items()
    }
