"""What the tests of docker/ share: its files, parsed, and the linters that read them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Manifest = dict[str, Any]
Lint = Callable[..., None]


def missing(what: str) -> None:
    """A check that cannot be made is a failure where everything must be checked, else a skip."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture
def lint() -> Lint:
    """Run a linter that is installed beside this Python or on the path; it must find nothing."""

    def run(tool: str, *arguments: object) -> None:
        found = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
        if found is None:
            missing(f"{tool} is not installed")
        command = [str(found), *map(str, arguments)]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    return run


@pytest.fixture(scope="session")
def load_script() -> Callable[[Path], Any]:
    """A Python file that belongs to no package, as a module."""

    def load(path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def docker() -> Path:
    """The folder docker/."""
    return ROOT / "docker"


@pytest.fixture(scope="session")
def compose(docker: Path) -> Manifest:
    """docker/compose.yaml."""
    content: Manifest = yaml.safe_load((docker / "compose.yaml").read_text())
    return content


@pytest.fixture(scope="session")
def kustomization(docker: Path) -> Manifest:
    """docker/kustomization.yaml."""
    content: Manifest = yaml.safe_load((docker / "kustomization.yaml").read_text())
    return content


@pytest.fixture(scope="session")
def manifests(docker: Path) -> list[Manifest]:
    """Every document of docker/k8s."""
    files = sorted((docker / "k8s").glob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


@pytest.fixture(scope="session")
def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The spec of every pod that the manifests lead to, by what makes it."""
    found: dict[str, Manifest] = {}
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            found["nightly"] = spec["jobTemplate"]["spec"]["template"]["spec"]
        elif manifest["kind"] == "DaskCluster":
            found["scheduler"] = spec["scheduler"]["spec"]
            found["worker"] = spec["worker"]["spec"]
        elif manifest["kind"] == "DaskWorkerGroup":
            found["worker-gpu"] = spec["worker"]["spec"]
    assert set(found) == {"nightly", "scheduler", "worker", "worker-gpu"}
    return found


@pytest.fixture(scope="session")
def dask_env(docker: Path) -> dict[str, str]:
    """docker/dask.env."""
    lines = (docker / "dask.env").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}
