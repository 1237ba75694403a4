"""Slurm: the job scripts as dask-jobqueue writes them, and jobs that a stand-in for sbatch runs."""

from __future__ import annotations

import gc
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tilemap.cluster import connect, route_of
from tilemap.cluster.census import Member, Route, take_census
from tilemap.cluster.slurm import gpu_options, job_options, open_slurm
from tilemap.cluster.table import ClusterTable, parse_table
from tilemap.errors import ConfigError, UnavailableError

from .machines import Authority

pytest.importorskip("dask_jobqueue")

SBATCH = """#!/bin/bash
# Runs a job at once, as Slurm would: the last argument is its script, of which it keeps a copy.
cp "${@: -1}" "$JOBS/script.$$"
setsid bash "$JOBS/script.$$" > "$JOBS/out.$$" 2>&1 &
echo $! > "$JOBS/job.$!"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
kill -TERM -- "-$1"
"""


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """dask-jobqueue leaves its files of certificates open: they go here, and not in other tests."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _table(folder: Path, **more: Any) -> ClusterTable:
    given = {
        "kind": "slurm", "workers": 4, "tls": Authority(folder / "authority").issue("all"),
        "slurm": {
            "memory": "6GiB", "cores": 2, "partition": "night", "account": "land",
            "walltime": "02:00:00", "job_extra": ["--nice=10"], "python": "/env/bin/python",
            "prologue": ["module load gdal"], "shared_directory": str(folder),
        },
    }  # fmt: skip
    return parse_table({**given, **more}, folder)


def test_the_script_of_a_job(tmp_path: Path) -> None:
    """Slurm is asked for cores, memory and time; Dask for two threads a core, over TLS."""
    table = _table(tmp_path)
    assert table.tls is not None
    with open_slurm(table) as cluster:
        script = cluster.job_script()
        assert cluster.scheduler_address.startswith("tls://")
    for line in (
        "#SBATCH -J tilemap", "#SBATCH -p night", "#SBATCH -A land", "#SBATCH -t 02:00:00",
        "#SBATCH --cpus-per-task=2", "#SBATCH --mem=6G", "#SBATCH --nice=10", "#SBATCH -n 1",
        "export OMP_NUM_THREADS=1", "module load gdal",
    ):  # fmt: skip
        assert line in script.splitlines()
    command = script.strip().splitlines()[-1]
    assert command.startswith("/env/bin/python -m distributed.cli.dask_worker tls://")
    assert "--nthreads 2" in command
    assert "--nworkers 2" in command
    assert "--memory-limit 3.00GiB" in command
    assert "--protocol tls://" in command
    assert f"--tls-cert {table.tls.cert}" in command
    assert "--resources" not in command


def test_jobs_with_a_gpu_are_other_jobs(tmp_path: Path) -> None:
    """One worker each; what the worker is for is said to Dask, what it needs to Slurm."""
    from dask_jobqueue.slurm import SLURMJob

    table = _table(tmp_path, gpu_workers=1)
    assert job_options(table)["worker_extra_args"] == ["--resources", "TILE=2"]
    job = SLURMJob("tls://a:1", name="gpu-0", **{**job_options(table), **gpu_options(table)})
    script = job.job_script()
    assert "#SBATCH --gres=gpu:1" in script
    assert "#SBATCH --nice=10" in script
    assert "--resources GPU=2" in script
    assert "--nworkers" not in script
    assert "--nthreads 2" in script


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with commands that take jobs as Slurm's do; the folder of its jobs."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(jobs))
    return jobs


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_jobs_become_workers_and_end_with_the_run(site: Path, tmp_path: Path) -> None:
    """Submitted, joined over TLS with certificates made for the run, told apart, cancelled."""
    table = parse_table(
        {
            "kind": "slurm", "workers": 1, "gpu_workers": 1, "wait_s": 60,
            "slurm": {
                "memory": "1GiB", "interface": "lo", "python": sys.executable,
                "shared_directory": str(tmp_path), "local_directory": str(tmp_path / "local"),
            },
        },
        tmp_path,
    )  # fmt: skip
    with connect(table.settings()) as client:
        deadline = time.monotonic() + 60
        while len(take_census(client)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        census = take_census(client)
        assert set(census.values()) == {Member(2, 0, 2), Member(2, 2, 0)}
        assert all(address.startswith("tls://") for address in census)
        assert route_of(client) == Route(gpu=True, tile=True)
        jobs = [int(re.sub(r"\D", "", path.name)) for path in site.glob("job.*")]
        assert len(jobs) == 2
        assert all(map(_alive, jobs))
    deadline = time.monotonic() + 30
    while any(map(_alive, jobs)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, jobs))


def test_certificates_need_a_place(tmp_path: Path) -> None:
    """Those made for a run must lie where the nodes see them."""
    table = parse_table({"kind": "slurm", "slurm": {"memory": "1GB"}}, tmp_path)
    with pytest.raises(ConfigError, match="must name a shared_directory"):
        open_slurm(table)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with pytest.raises(UnavailableError, match=r'pip install "tilemap\[slurm\]"'):
        open_slurm(_table(tmp_path))
