"""The scripts for Slurm, with programs in place of Slurm's that run everything on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "docker" / "slurm"
BIN = Path(sys.executable).parent


def program(folder: Path, name: str, text: str) -> None:
    """A shell script in place of a program."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def submit(script: str, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Slurm does with a batch script."""
    environment = {
        "PATH": f"{tmp_path / 'slurm'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "TILEMAP_HOME": str(tmp_path / "home"),
        "TILEMAP_VENV": str(tmp_path / "venv"),
        "TILEMAP_CONFIG": str(tmp_path / "nightly.toml"),
        "SLURM_JOB_ID": "4711",
        **variables,
    }
    return subprocess.run(
        ["bash", str(SLURM / script)],
        env=environment, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "restarts", "left", "requeued"),
    [
        (0, 0, 0, False),
        (3, 0, 3, False),
        (75, 0, 0, False),
        (78, 0, 78, False),
        (69, 0, 69, True),
        (74, 2, 74, True),
        (69, 3, 69, False),
    ],
)
def test_what_an_exit_code_leads_to(
    tmp_path: Path, code: int, restarts: int, left: int, requeued: bool
) -> None:
    """75 is no failure; what may pass is tried again, three times; all else is told."""
    program(tmp_path / "venv" / "bin", "tilemap", f'echo "$@" >>calls; exit {code}')
    program(tmp_path / "slurm", "scontrol", 'echo "$@" >>requeued')
    ran = submit("nightly.sbatch", tmp_path, SLURM_RESTART_COUNT=str(restarts))
    assert ran.returncode == left, ran.stderr
    assert (tmp_path / "calls").read_text() == f"nightly {tmp_path / 'nightly.toml'}\n"
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 4711\n"


def test_the_end_of_the_time_is_handed_on(tmp_path: Path) -> None:
    """Slurm signals the script; the pass hears of it and is waited for."""
    text = (
        "trap 'sleep 0.2; echo ended >>calls; exit 143' TERM\n"
        'kill -TERM "$PPID"\nfor _ in {1..100}; do sleep 0.1; done; echo "not told" >>calls'
    )
    program(tmp_path / "venv" / "bin", "tilemap", text)
    ran = submit("nightly.sbatch", tmp_path)
    assert (tmp_path / "calls").read_text() == "ended\n"
    assert ran.returncode == 143


SRUN = """
group=$1; shift 2; echo "$group" "$@" >>srun
exec "$@" --host 127.0.0.1
"""
"""Leaves out --kill-on-bad-exit and starts one task, on the loopback interface."""


@pytest.mark.slow
def test_an_allocation_of_its_own(tmp_path: Path) -> None:
    """Scheduler, a CPU and a GPU worker over TLS map a scene; nothing of the job is left over."""
    for name in ("dask", "tilemap"):
        program(tmp_path / "venv" / "bin", name, f'exec {BIN / name} "$@"')
    certificates = f'exec {sys.executable} {ROOT / "docker" / "certificates.py"} "$@"'
    program(tmp_path / "venv" / "bin", "tilemap-certificates", certificates)
    program(tmp_path / "slurm", "srun", SRUN)
    scene = tmp_path / "in" / "example" / "va-eastern-shore"
    scene.mkdir(parents=True)
    for path in (ROOT / "tilemap" / "data" / "scenes").glob("*.tif"):
        os.utime(shutil.copy(path, scene), (0, 0))  # as if it had lain there for long
    text = (SLURM / "gpu.toml").read_text().replace('device = "cuda"', 'device = "cpu"')
    (tmp_path / "nightly.toml").write_text(text.replace("/scratch/tilemap", str(tmp_path)))
    ran = submit(
        "gpu.sbatch",
        tmp_path,
        TILEMAP_DOCKER=str(ROOT / "docker"),
        TILEMAP_JOBS=str(tmp_path / "jobs"),
        TILEMAP_HOST="127.0.0.1",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert list((tmp_path / "out" / "products").glob("example/*/*/landcover.tif"))
    started = (tmp_path / "srun").read_text().splitlines()
    assert len(started) == 2
    assert sum("--resources=GPU=2" in line for line in started) == 1
    assert not list((tmp_path / "jobs").iterdir())
