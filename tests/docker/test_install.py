"""The steps of the image in a virtual environment: docker/install.sh, which the image runs."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker" / "install.sh"


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment like the image's: no home, and what is given."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_")) or k == "PATH"}
    return subprocess.run(
        [str(word) for word in command],
        env={**kept, **variables}, cwd=variables.get("HOME", "/"),
        check=False, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("one",), ("new", "tpu")])
def test_arguments_that_cannot_be(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """One line that says what must be given; nothing is made."""
    ran = run(SCRIPT, *arguments, HOME=str(tmp_path))
    assert ran.returncode == 64
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_environment_is_never_changed(tmp_path: Path) -> None:
    """A folder that is there is left alone."""
    (tmp_path / "there").mkdir()
    ran = run(SCRIPT, tmp_path / "there", "cpu", HOME=str(tmp_path))
    assert ran.returncode == 64
    assert "must not exist" in ran.stderr


def test_another_python_is_refused(tmp_path: Path) -> None:
    """The hashes are of the wheels for one Python."""
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 1\necho Python 3.99.0\n')
    other.chmod(0o755)
    ran = run(SCRIPT, tmp_path / "new", "cpu", PYTHON=str(other), HOME=str(tmp_path))
    assert ran.returncode == 64
    assert "got Python 3.99.0" in ran.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The environment of the CPU image, removed afterwards: it is large."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the hashes are those of Python 3.11")
    if not importlib.metadata.version("torch").endswith("+cpu"):
        pytest.skip(
            "pip found no CPU build of torch for this environment, nor would it for another"
        )
    folder = tmp_path_factory.mktemp("image")
    try:
        done = run(SCRIPT, folder / "tilemap", "cpu", PYTHON=sys.executable, HOME=str(folder))
        assert done.returncode == 0, done.stderr[-3000:]
        assert "No broken requirements found." in done.stdout
        yield folder / "tilemap"
    finally:
        shutil.rmtree(folder)


def name_of(pin: str) -> str:
    """A pin by the one spelling of its name."""
    name, _, version = pin.partition("==")
    return f"{canonicalize_name(name)}=={version}"


@pytest.mark.slow
def test_what_is_pinned_is_installed_and_nothing_else(installed: Path) -> None:
    """No pip, no build tool, no other version."""
    code = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    ran = run(installed / "bin" / "python", "-c", code)
    there = {name_of(line.replace(" ", "==")) for line in ran.stdout.splitlines()}
    pinned = {f"tilemap=={importlib.metadata.version('tilemap')}"}
    for name in ("requirements.txt", "requirements-cpu.txt"):
        lines = (ROOT / "docker" / name).read_text().splitlines()
        pinned |= {name_of(line.split()[0]) for line in lines if "==" in line}
    assert there == pinned


@pytest.mark.slow
def test_what_a_container_does_first_works(installed: Path, tmp_path: Path) -> None:
    """Version, models, health, certificates and the demo, with nothing of this environment."""
    programs, home = installed / "bin", {"HOME": str(tmp_path), "TILEMAP_HOME": str(tmp_path)}
    told = run(programs / "tilemap", "--version", **home).stdout
    assert told.split()[-1] == importlib.metadata.version("tilemap")
    assert "tilemap-demo-5class" in run(programs / "tilemap", "models", "list", **home).stdout
    assert run(programs / "tilemap-health", **home).returncode == 0
    assert run(programs / "tilemap-health", "scheduler", **home).returncode == 1
    assert run(programs / "tilemap-certificates", tmp_path / "certs", **home).returncode == 0
    assert run(programs / "dask", "--version", **home).returncode == 0
    demo = run(programs / "tilemap", "demo", "--out", tmp_path / "demo", **home)
    assert demo.returncode == 0, demo.stderr
    assert (tmp_path / "demo" / "landcover.tif").is_file()
