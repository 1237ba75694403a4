"""The packages of the images: pinned, hashed, and those that the project asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of a requirements file."""
    found: dict[str, tuple[str, list[str]]] = {}
    for entry in path.read_text().replace("\\\n", " ").splitlines():
        if "==" in entry:
            pin, *hashes = entry.split()
            name, _, version = pin.partition("==")
            assert name not in found, name
            found[name] = version, hashes
    return found


@pytest.mark.parametrize("part", ["", "-cpu", "-cuda", "-build"])
def test_every_package_has_its_hash(docker: Path, part: str) -> None:
    """And a version, from wherever it comes: no file names a place."""
    path = docker / f"requirements{part}.txt"
    assert "://" not in path.read_text()
    assert not re.search(r"^--?[a-z-]*(index|find)", path.read_text(), re.MULTILINE)
    found = pins(path)
    assert found
    for name, (version, hashes) in found.items():
        assert version, name
        assert hashes, name
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", one) for one in hashes), name


def test_both_images_agree(docker: Path) -> None:
    """Beside what they share, only torch is in both, at the same release."""
    both, cpu, cuda = (
        pins(docker / f"requirements{suffix}.txt") for suffix in ("", "-cpu", "-cuda")
    )
    assert not set(both) & (set(cpu) | set(cuda))
    assert set(cpu) & set(cuda) == {"torch"}
    assert cpu["torch"][0] == f"{cuda['torch'][0]}+cpu"
    assert f"torch=={cuda['torch'][0]}\n" in (ROOT / "constraints-cpu.txt").read_text()
    for name in ("requirements-cpu.txt", "requirements-cuda.txt"):
        assert "\n-r requirements.txt\n" in (docker / name).read_text()


def test_the_lock_is_that_of_the_project(docker: Path, load_script: Any) -> None:
    """Every dependency of tilemap and of the images' extras is pinned within its bounds."""
    lock = load_script(docker / "lock.py")
    extras = PROJECT["optional-dependencies"]
    for target, more in (("cpu", ()), ("cuda", ("cuda",))):
        locked = pins(docker / "requirements.txt") | pins(docker / f"requirements-{target}.txt")
        wanted = list(PROJECT["dependencies"])
        wanted += [line for extra in (*lock.EXTRAS, *more) for line in extras[extra]]
        for line in wanted:
            wish = Requirement(line)
            version = locked[canonicalize_name(wish.name)][0]
            assert wish.specifier.contains(version), f"{line}: {version}; run docker/lock.py"
