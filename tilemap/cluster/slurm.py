"""Workers as jobs of a Slurm site, by dask-jobqueue; the scheduler runs beside the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client
from distributed.security import Security

from tilemap.cluster.address import security_for_a_run, security_of
from tilemap.cluster.census import GPU, TILE
from tilemap.cluster.embedded import ADAPT_WITHIN, CONFIGURATION, ENVIRONMENT, add_workers
from tilemap.cluster.settings import THREADS_PER_WORKER, ClusterSettings
from tilemap.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from dask_jobqueue.slurm import SLURMCluster

    from tilemap.cluster.table import ClusterTable

DEATH_S = 120
"""A worker that finds no scheduler for so long ends its job: the driver may be gone."""


def job_options(table: ClusterTable) -> dict[str, Any]:
    """What dask-jobqueue is told of a job whose workers have no GPU.

    A worker process has one core and two threads: as elsewhere, one for the model and one that
    reads and writes. Slurm is asked for the cores, Dask is told of the threads.
    """
    slurm = table.slurm
    assert slurm is not None
    lines = [f"export {name}={value}" for name, value in ENVIRONMENT.items()]
    tile = ["--resources", f"{TILE}={THREADS_PER_WORKER}"] if table.gpu_workers else []
    return {
        "queue": slurm.partition,
        "account": slurm.account,
        "walltime": slurm.walltime,
        "processes": slurm.cores,
        "job_cpu": slurm.cores,
        "cores": slurm.cores * THREADS_PER_WORKER,
        "memory": f"{slurm.memory} B",
        "job_name": slurm.job_name,
        "job_extra_directives": list(slurm.job_extra),
        "job_script_prologue": [*lines, *slurm.prologue],
        "worker_extra_args": tile,
        "python": slurm.python,
        "interface": slurm.interface,
        "local_directory": slurm.local_directory,
        "log_directory": slurm.log_directory,
        "death_timeout": DEATH_S,
    }


def gpu_options(table: ClusterTable) -> dict[str, Any]:
    """How a job with a GPU differs: one worker process, which segments and does nothing else."""
    slurm = table.slurm
    assert slurm is not None
    return {
        "processes": 1,
        "cores": THREADS_PER_WORKER,
        "job_extra_directives": [*slurm.job_extra, *slurm.gpu_job_extra],
        "worker_extra_args": ["--resources", f"{GPU}={THREADS_PER_WORKER}"],
    }


def open_slurm(table: ClusterTable) -> SLURMCluster:
    """A scheduler here, and nothing submitted yet.

    Raises:
        ConfigError: if a file of the certificates is not there.
        UnavailableError: if dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise UnavailableError(
            'kind = "slurm" needs dask-jobqueue; pip install "tilemap[slurm]"'
        ) from error
    slurm = table.slurm
    assert slurm is not None
    try:
        with dask.config.set(CONFIGURATION):
            return SLURMCluster(
                **job_options(table),
                security=_security(table),
                shared_temp_directory=slurm.shared_directory,
                scheduler_options={"dashboard_address": "127.0.0.1:0"},
            )
    except ValueError as error:
        raise ConfigError(f"cluster.slurm: {error}") from error


def _security(table: ClusterTable) -> Security | None:
    """The table's certificates; without any, some that are good for this run."""
    if table.tls is not None or table.insecure:
        return security_of(table.tls)
    if table.slurm is not None and table.slurm.shared_directory is None:
        raise ConfigError(
            "cluster.slurm must name a shared_directory that the nodes see, for the certificates "
            "that are made for the run; or give [cluster.tls]"
        )
    return security_for_a_run()


@contextmanager
def on_slurm(settings: ClusterSettings) -> Iterator[Client]:
    """A client of a cluster whose jobs end with it.

    Raises:
        ConfigError: see ``open_slurm``.
        UnavailableError: see ``open_slurm``, or if a job cannot be submitted.
    """
    table = settings.table
    assert table is not None
    with open_slurm(table) as cluster, Client(cluster, set_as_default=False) as client:
        if table.adaptive is not None:
            cluster.adapt(
                minimum=table.adaptive.minimum, maximum=table.adaptive.maximum,
                target_duration=ADAPT_WITHIN,
            )  # fmt: skip
        else:
            cluster.scale(n=table.workers or 1)
        if table.gpu_workers:
            add_workers(cluster, "gpu", table.gpu_workers, gpu_options(table))
        yield client
