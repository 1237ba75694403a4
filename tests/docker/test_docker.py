"""The files under docker/ are what hadolint and the compose schema ask for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(tool: str, *args: str) -> None:
    """Run a linter that is installed beside this Python, or skip."""
    found = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    ran = subprocess.run([found, *args], check=False, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_dockerfile_passes_hadolint() -> None:
    """No finding of any severity."""
    run("hadolint", str(ROOT / "docker" / "Dockerfile"))


def test_compose_file_fits_its_schema() -> None:
    """Keys and types are those of the compose specification."""
    compose = str(ROOT / "docker" / "compose.yaml")
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", compose)


def test_every_file_the_image_copies_is_let_through() -> None:
    """What .dockerignore leaves of the context holds every source of a COPY."""
    copies = [
        word
        for line in (ROOT / "docker" / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from=" not in line
        for word in line.split()[1:-1]
    ]
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copies
    for name in copies:
        assert name in kept, name
        assert (ROOT / name).exists(), name
