"""Start an embedded Dask cluster, or join one that runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dask
from distributed import Client, LocalCluster

from tilemap.errors import ConfigError, UnavailableError

CONNECT_TIMEOUT_S = 20
THREADS_PER_WORKER = 2
"""One runs the model, of which a process has one; the other reads, writes, waits for the disk."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where tasks run.

    Args:
        scheduler: address of a running scheduler; None starts an embedded cluster.
        workers: processes of the embedded cluster; None for one per core.
        memory_limit: bytes of memory each worker may use; None for an equal share of the machine.
    """

    scheduler: str | None = None
    workers: int | None = None
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers must be at least 1, got {self.workers}")
        if self.workers is not None and self.scheduler is not None:
            raise ConfigError(
                "--workers sizes the embedded cluster; it cannot be given with --scheduler"
            )


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory() -> int:
    """Memory this process may use, in bytes; the container's limit where there is one."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)


def worker_count(settings: ClusterSettings) -> int:
    """Processes of the embedded cluster."""
    return settings.workers or usable_cores()


def memory_per_worker(settings: ClusterSettings) -> int:
    """Bytes of memory each worker of the embedded cluster may use."""
    return settings.memory_limit or machine_memory() // worker_count(settings)


def pins(settings: ClusterSettings) -> bool:
    """Whether each worker gets a core of its own: embedded, and enough cores for all."""
    return settings.scheduler is None and worker_count(settings) <= usable_cores()


@contextmanager
def connect(settings: ClusterSettings) -> Iterator[Client]:
    """A client of the embedded or of the named cluster; what was started here is stopped again.

    Raises:
        UnavailableError: if no scheduler answers at that address, or it has no workers.
    """
    if settings.scheduler is None:
        yield from _embedded(settings)
    else:
        yield from _remote(settings.scheduler)


def _embedded(settings: ClusterSettings) -> Iterator[Client]:
    configuration = {
        # All tasks of two workers that died are suspect; the driver then tries each alone.
        "distributed.scheduler.allowed-failures": 1,
        # A tile's arrays are no results of tasks: there is nothing to spill, and no use in a pause
        # below the limit, which was checked before the run.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.98,
        "distributed.nanny.pre-spawn-environ": {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # One arena, or what a forward frees in the task's thread goes back to the system:
            # 8 % of the time of a U-Net (see models/allocator.py).
            "MALLOC_ARENA_MAX": "1",
            # A failed tile is told once, by the driver, when it is quarantined.
            "DASK_LOGGING__DISTRIBUTED": "critical",
        },
        "distributed.admin.tick.limit": "30s",
        # Dask samples every worker's stack a hundred times a second; tiles are timed by receipts.
        "distributed.worker.profile.enabled": False,
    }
    with (
        dask.config.set(configuration),
        LocalCluster(
            n_workers=worker_count(settings),
            threads_per_worker=THREADS_PER_WORKER,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=memory_per_worker(settings),
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _remote(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise UnavailableError(
            f"a Dask scheduler must answer at {address} within {CONNECT_TIMEOUT_S} s: {error}"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise UnavailableError(f"the scheduler at {address} must have workers, it has none")
        yield client


def thread_count(client: Client) -> int:
    """Threads of all workers now."""
    threads: dict[str, int] = client.nthreads()
    return max(1, sum(threads.values()))
