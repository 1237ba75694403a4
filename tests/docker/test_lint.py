"""The files under docker/ are what their linters and schemas ask for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SCRIPTS = ("*.sh", "k8s/*.sh", "slurm/*.sbatch")
EXPOSURE = 20
"""Tenths of systemd's score of exposure, of 100; "OK" is below 50."""


def test_dockerfile(lint: Any, docker: Path) -> None:
    """No finding of any severity."""
    lint("hadolint", docker / "Dockerfile")


def test_compose(lint: Any, docker: Path) -> None:
    """Keys and types are those of the compose specification."""
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", docker / "compose.yaml")


def test_scripts(lint: Any, docker: Path) -> None:
    """Every shell script, those for Slurm too."""
    scripts = [path for pattern in SCRIPTS for path in docker.glob(pattern)]
    assert len(scripts) == 4
    lint("shellcheck", *scripts)


def test_units(lint: Any, docker: Path, tmp_path: Path) -> None:
    """Service, timer and what tells of a failure; the program stands in for the installed one."""
    for path in (docker / "systemd").glob("tilemap-*"):
        text = path.read_text().replace("/opt/tilemap/bin/tilemap", "/bin/true")
        (tmp_path / path.name).write_text(text)
    units = sorted(tmp_path.iterdir())
    assert len(units) == 3
    lint("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units)


@pytest.mark.parametrize("unit", ["tilemap-nightly.service", "tilemap-failed@.service"])
def test_units_are_confined(lint: Any, docker: Path, unit: str) -> None:
    """What a unit could do to the rest of the machine is little, by systemd's own score."""
    path = docker / "systemd" / unit
    lint("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", path)


def test_manifests(manifests: list[Any], pods: dict[str, Any]) -> None:
    """Kubernetes' own kinds, and the pods that the Dask operator will make, strictly."""
    import kubernetes_validate

    version = kubernetes_validate.latest_version()
    own = [m for m in manifests if not m["apiVersion"].startswith("kubernetes.dask.org/")]
    assert len(own) == len(manifests) - 2
    for manifest in own:
        kubernetes_validate.validate(manifest, version, strict=True)
    for name, spec in pods.items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)


def test_a_misspelt_key_of_a_manifest_is_found(manifests: list[Any]) -> None:
    """The strict schema is not one that lets everything through."""
    import kubernetes_validate

    cron = next(m for m in manifests if m["kind"] == "CronJob")
    wrong = {**cron, "spec": {**cron["spec"], "concurencyPolicy": "Forbid"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("kind", ["DaskCluster", "DaskWorkerGroup"])
def test_resources_of_the_operator(manifests: list[Any], kind: str) -> None:
    """They fit the definitions that the operator installs, with no key that those lack."""
    import dask_kubernetes
    import jsonschema

    charts = Path(dask_kubernetes.__file__).parent / "operator" / "deployment" / "helm"
    (definition,) = charts.glob(f"*/crds/{kind.lower()}.yaml")
    version = yaml.safe_load(definition.read_text())["spec"]["versions"][0]
    schema = strict(version["schema"]["openAPIV3Schema"])
    (manifest,) = [m for m in manifests if m["kind"] == kind]
    body = {key: manifest[key] for key in manifest if key not in ("apiVersion", "kind", "metadata")}
    assert manifest["apiVersion"] == f"kubernetes.dask.org/{version['name']}"
    jsonschema.validate(body, schema)
    worker = {**body["spec"]["worker"], "replica": 3}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**body, "spec": {**body["spec"], "worker": worker}}, schema)


def strict(schema: Any) -> Any:
    """The same schema, without room for keys that it does not name."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if "properties" in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def test_kustomization(docker: Path, manifests: list[Any]) -> None:
    """It builds, and holds every manifest but the one that says so."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; it is no package of ours")
    command = ["kubectl", "kustomize", str(docker)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    built = [d for d in yaml.safe_load_all(ran.stdout) if d["kind"] != "ConfigMap"]
    names = {(d["kind"], d["metadata"]["name"]) for d in built}
    alone = list(yaml.safe_load_all((docker / "k8s" / "driver.yaml").read_text()))
    assert names == {(m["kind"], m["metadata"]["name"]) for m in manifests if m not in alone}
    assert all(
        d["metadata"].get("namespace") == "tilemap" for d in built if d["kind"] != "Namespace"
    )


def test_python_scripts(lint: Any, docker: Path) -> None:
    """Types of what the image brings along."""
    for name in ("certificates.py", "health.py", "lock.py"):
        lint(sys.executable, "-m", "mypy", "--strict", "--no-incremental", docker / name)
