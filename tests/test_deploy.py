"""What ``deploy/`` would hand to a cluster, rendered here and validated against the schemas of Kubernetes and Kubeflow.

The renderer knows of Kustomize what our overlays use, and refuses anything else: resources, and patches that are merged
as Kubernetes merges (lists of things with names by name).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bowerbird import cli, config

kubernetes_validate = pytest.importorskip("kubernetes_validate")

DEPLOY = Path(__file__).parents[1] / "deploy"
KUSTOMIZE = DEPLOY / "kustomize"
ROOMS = ["overlays/cpu", "overlays/cuda", "training", "kubeflow"]
KUBERNETES = kubernetes_validate.latest_version()
TRAINER = json.loads((DEPLOY / "schemas" / "trainer.kubeflow.org-v1alpha1.json").read_text())


def render(folder: Path) -> list[dict[str, Any]]:
    (table,) = documents(folder / "kustomization.yaml")
    assert table.keys() <= {"apiVersion", "kind", "resources", "patches"}, "the renderer of this test does not know it"
    found: list[dict[str, Any]] = []
    for name in table["resources"]:
        path = folder / name
        found += render(path) if path.is_dir() else documents(path)
    for patch in table.get("patches", []):
        assert patch.keys() == {"path"}
        (change,) = documents(folder / patch["path"])
        (index,) = (i for i, one in enumerate(found) if named(one) == named(change))
        found[index] = merged(found[index], change)
    return found


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def named(one: dict[str, Any]) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


def merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merged(old[key], value) if key in old else value for key, value in new.items()}
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(x, dict) and "name" in x for x in old + new):
        by_name = {x["name"]: x for x in old}
        return list((by_name | {x["name"]: merged(by_name.get(x["name"], {}), x) for x in new}).values())
    return new


def pods(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The specs of the pods that an object makes."""
    if one["kind"] in ("Deployment", "Job"):
        yield one["spec"]["template"]["spec"]
    if one["kind"] == "TrainingRuntime":
        yield from (pod for job in jobs_of(one) for pod in pods(job))


def jobs_of(runtime: dict[str, Any]) -> list[dict[str, Any]]:
    replicated = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return [
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": one["name"]}, "spec": one["template"]["spec"]}
        for one in replicated
    ]


def validate(one: dict[str, Any]) -> None:
    if one["kind"] not in TRAINER:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        return
    jsonschema.validate(one, {"$ref": f"#/{one['kind']}", **TRAINER})
    for job in jobs_of(one) if one["kind"] == "TrainingRuntime" else []:
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def of_kind(room: str, kind: str) -> dict[str, Any]:
    (one,) = (one for one in render(KUSTOMIZE / room) if one["kind"] == kind)
    return one


# ------------------------------------------------------------------------------------------------ schemas


@pytest.mark.parametrize("room", ROOMS)
def test_all_that_is_rendered_is_valid(room: str) -> None:
    rendered = render(KUSTOMIZE / room)
    assert len({named(one) for one in rendered}) == len(rendered) >= 2
    for one in rendered:
        validate(one)


def test_what_is_wrong_is_refused() -> None:
    deployment, trainjob = of_kind("overlays/cpu", "Deployment"), of_kind("kubeflow", "TrainJob")
    runtime = of_kind("kubeflow", "TrainingRuntime")
    (pod,) = pods(deployment)
    pod["containers"][0]["readinesProbe"] = {}
    trainjob["spec"]["trainer"]["numProcPerNode"] = "auto"
    (inner,) = pods(runtime)
    inner["containers"][0]["imagePullPolicie"] = "Always"
    for wrong in (deployment, trainjob, runtime):
        with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
            validate(wrong)


def test_every_file_belongs_to_a_room() -> None:
    named_files = {
        (folder.parent / name).resolve()
        for folder in KUSTOMIZE.rglob("kustomization.yaml")
        for table in documents(folder)
        for name in [*table["resources"], *(patch["path"] for patch in table.get("patches", []))]
    }
    files = {path.resolve() for path in KUSTOMIZE.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files == {path for path in named_files if path.is_file()}


# ------------------------------------------------------------------------------------------------ meaning


@pytest.mark.parametrize("room", ROOMS)
def test_pods_have_no_rights(room: str) -> None:
    found = [pod for one in render(KUSTOMIZE / room) for pod in pods(one)]
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
            assert rights["capabilities"] == {"drop": ["ALL"]}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("room", ROOMS[:2])
def test_everything_about_the_server_speaks_of_the_same_pods_and_port(room: str) -> None:
    deployment = of_kind(room, "Deployment")
    labels, (pod,) = deployment["spec"]["template"]["metadata"]["labels"], pods(deployment)
    (container,) = pod["containers"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        of_kind(room, "Service")["spec"]["selector"],
        of_kind(room, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        of_kind(room, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (port,) = container["ports"]
    assert port == {"name": "http", "containerPort": 8000} and "--port=8000" in container["args"]
    assert of_kind(room, "Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert "replicas" not in deployment["spec"]
    assert of_kind(room, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [of_kind(room, "PersistentVolumeClaim")["metadata"]["name"]]
    assert {"requests", "limits"} <= container["resources"].keys()


def test_probes_and_flags_are_those_of_the_server() -> None:
    app = pytest.importorskip("bowerbird.serve.app")
    serving = pytest.importorskip("bowerbird.cli.serving")
    (pod,) = pods(of_kind("overlays/cpu", "Deployment"))
    (container,) = pod["containers"]
    asked = {container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    open_paths = {one.path for one in app.ENDPOINTS if one.is_open and one.method == "GET"}
    assert asked <= open_paths
    command, *words = container["args"]
    assert command == "serve"
    wish = serving.Serve.parse(words, "bowerbird serve")
    assert wish.host == "0.0.0.0" and wish.port == 8000 and wish.runs == ("poem", "digits")
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert wish.limits.drain_seconds + pause < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("room", ["training", "kubeflow"])
def test_training_goes_on_where_it_was_and_claims_one_process(room: str) -> None:
    rendered = render(KUSTOMIZE / room)
    text = json.dumps(rendered)
    assert "torchrun" not in text and "PyTorchJob" not in text
    scripts = re.findall(r"exec bowerbird (train|resume)", text)
    assert scripts == ["resume", "train"]
    recipe = re.search(r"bowerbird train (\S+)", text)
    assert recipe and recipe[1] in config.recipe_names()
    if room == "kubeflow":
        assert of_kind(room, "TrainJob")["spec"]["runtimeRef"]["name"] == named(of_kind(room, "TrainingRuntime"))[1]
        assert of_kind(room, "TrainJob")["spec"]["trainer"]["numNodes"] == 1


def test_the_image_is_built_in_two_stages_and_runs_as_nobody() -> None:
    lines = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text()).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    stages = [i for i, (word, _) in enumerate(steps) if word == "FROM"]
    last = steps[stages[-1] :]
    assert len(stages) == 2 and ["ARG", "DEVICE=cpu"] in steps
    assert ["USER", "10001:10001"] in last and ["EXPOSE", "8000"] in last
    assert last.index(["USER", "10001:10001"]) > max(i for i, (word, _) in enumerate(last) if word in ("RUN", "COPY"))
    words = json.loads(next(rest for word, rest in last if word == "CMD"))
    assert words[0] in cli.COMMANDS or words[0] == "serve"
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    copied = {name for word, rest in steps if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]}
    assert {f"!{name}" for name in copied} <= set(kept)
    assert all((DEPLOY.parent / name).exists() for name in copied)
