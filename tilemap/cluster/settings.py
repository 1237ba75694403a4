"""Where the tasks of a run are done, and how large an embedded cluster is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilemap.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client

    from tilemap.cluster.table import ClusterTable

CONNECT_TIMEOUT_S = 20.0
"""Within which a scheduler must answer, unless the table says otherwise."""
WAIT_S = 300.0
"""How long a run waits for a worker that can do what is left, unless the table says otherwise."""
THREADS_PER_WORKER = 2
"""One runs the model, of which a process has one; the other reads, writes, waits for the disk."""


MOST_PROCESSES = 1000
"""Of an embedded cluster; each takes some hundred megabytes before it does anything."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where tasks run.

    Args:
        scheduler: address of a running scheduler, or a client of it; None starts a cluster.
        workers: processes of the cluster that is started; None for one per core.
        memory_limit: bytes of memory each worker may use; None for an equal share of the machine.
        table: what more a ``[cluster]`` table says; None for an embedded cluster or an address.

    Raises:
        ConfigError: if both a scheduler and a number of workers are given.
    """

    scheduler: str | Client | None = None
    workers: int | None = None
    memory_limit: int | None = None
    table: ClusterTable | None = None

    def __post_init__(self) -> None:
        if not (self.scheduler is None or isinstance(self.scheduler, str)) and not hasattr(
            self.scheduler, "scheduler_info"
        ):
            raise ConfigError(
                f"scheduler must be an address or a dask Client, got {self.scheduler!r}"
            )
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"`workers` must be at least 1, got {self.workers}")
        if self.embedded and self.workers is not None and self.workers > MOST_PROCESSES:
            raise ConfigError(
                f"`workers` must be at most {MOST_PROCESSES} on one machine, "
                f"got {str(self.workers)[:30]}"
            )
        if self.workers is not None and self.scheduler is not None:
            raise ConfigError(
                "`workers` sizes the embedded cluster; it cannot be given with `scheduler`"
            )

    @property
    def embedded(self) -> bool:
        """Whether the workers are processes of this machine, started here, on its CPU."""
        local = self.table is None or self.table.kind == "local"
        return self.scheduler is None and local

    @property
    def asked(self) -> bool:
        """Whether a person said where to run, so that it is done there however little it is."""
        return (self.scheduler, self.workers, self.table) != (None, None, None)

    @property
    def timeout_s(self) -> float:
        """Seconds within which a scheduler must answer."""
        return CONNECT_TIMEOUT_S if self.table is None else self.table.timeout_s

    @property
    def wait_s(self) -> float:
        """Seconds that a run waits for a worker that can do what is left."""
        return WAIT_S if self.table is None else self.table.wait_s


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
    """Processes of the cluster that is started, those for GPUs apart."""
    return settings.workers or usable_cores()


def memory_per_worker(settings: ClusterSettings) -> int:
    """Bytes of memory each worker may use."""
    count = worker_count(settings)
    if settings.table is not None:
        count += settings.table.gpu_workers
    return settings.memory_limit or machine_memory() // count


def pins(settings: ClusterSettings) -> bool:
    """Whether each worker gets a core of its own: embedded, and enough cores for all."""
    alone = settings.table is None or settings.table.gpu_workers == 0
    return settings.embedded and alone and worker_count(settings) <= usable_cores()
