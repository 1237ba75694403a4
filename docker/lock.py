"""Pin every package of the images, with the hashes of the wheels that fit them.

    python -m pip install uv && python docker/lock.py CPU_WHEELS

It writes `requirements.txt`, which both images share, and beside it `requirements-cpu.txt` and
`requirements-cuda.txt` with what differs: torch and its CUDA libraries. So a worker of one image
and a client of the other cannot disagree. `requirements-build.txt` makes the wheel of tilemap.

CPU_WHEELS is where the CPU build of torch lies: a folder, or the page of it in PyTorch's CPU wheel
index. Nothing is downloaded but metadata. Where packages come from is left out of the files: it is
the business of whoever installs, and the hashes hold wherever that is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("onnx", "dashboard", "s3", "stac", "geoparquet", "slurm", "kubernetes")
"""Of both images; the CUDA image has ``cuda`` too."""
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"

Pins = dict[str, str]
"""Name of a package to its lines in a requirements file."""


def main() -> None:
    """Resolve for both images and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cpu_wheels", help="folder or page with the CPU build of torch")
    cpu_wheels = parser.parse_args().cpu_wheels
    constraint = (ROOT / "constraints-cpu.txt").read_text()
    project = str(ROOT / "pyproject.toml")
    extras = [f"--extra={name}" for name in EXTRAS]
    # CUDA first: RAPIDS pins Dask. Two resolutions could still part ways, so the second is bound.
    cuda = resolve([project, *extras, "--extra=cuda"], constraint)
    pins = "\n".join(text.split(" ")[0] for name, text in cuda.items() if name != "torch")
    cpu = resolve([project, *extras], f"{constraint}\n{pins}\n", f"--find-links={cpu_wheels}")
    if "+cpu" not in cpu["torch"]:
        sys.exit(f"error: there is no CPU build of torch in {cpu_wheels}")
    both = {name: text for name, text in cpu.items() if cuda.get(name) == text}
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder) / "build.in"
        backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
        tools.write_text("\n".join(backend))
        build = resolve([str(tools)], "")
    write("requirements.txt", both)
    write("requirements-cpu.txt", without(cpu, both), ["-r requirements.txt"])
    write("requirements-cuda.txt", without(cuda, both), ["-r requirements.txt"])
    write("requirements-build.txt", build)


def resolve(arguments: list[str], constraint: str, *more: str) -> Pins:
    """Ask uv, from metadata alone."""
    with tempfile.TemporaryDirectory() as folder:
        limits, out = Path(folder) / "limits.txt", Path(folder) / "pylock.toml"
        limits.write_text(constraint)
        command = ["uv", "pip", "compile", *arguments, "-c", str(limits), "-o", str(out)]
        command += ["--quiet", "--format=pylock.toml", "--only-binary=:all:"]
        command += [f"--python-version={PYTHON}", f"--python-platform={PLATFORM}"]
        subprocess.run([*command, *more], check=True)
        return dict(pinned(tomllib.loads(out.read_text())["packages"]))


def pinned(packages: Iterable[Mapping[str, object]]) -> Iterable[tuple[str, str]]:
    """Each package with its version and the hash of each wheel that fits."""
    for package in packages:
        wheels = package["wheels"]
        assert isinstance(wheels, list)
        hashes = sorted({wheel["hashes"]["sha256"] for wheel in wheels})
        lines = [
            f"{package['name']}=={package['version']}",
            *(f"--hash=sha256:{h}" for h in hashes),
        ]
        yield str(package["name"]), " \\\n    ".join(lines)


def without(pins: Pins, others: Pins) -> Pins:
    """Those that are not among the others."""
    return {name: text for name, text in pins.items() if name not in others}


def write(name: str, pins: Pins, head: Iterable[str] = ()) -> None:
    """One requirements file."""
    says = f"# By docker/lock.py, for Python {PYTHON} on {PLATFORM}; change nothing here by hand."
    (ROOT / "docker" / name).write_text("\n".join([says, *head, *pins.values(), ""]))


if __name__ == "__main__":
    main()
