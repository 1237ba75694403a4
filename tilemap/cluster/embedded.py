"""A cluster of processes of this machine, started for one run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.deploy.spec import SpecCluster

from tilemap.cluster.census import GPU, TILE
from tilemap.cluster.settings import (
    THREADS_PER_WORKER,
    ClusterSettings,
    memory_per_worker,
    worker_count,
)

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # One arena, or what a forward frees in the task's thread goes back to the system:
    # 8 % of the time of a U-Net (see models/allocator.py).
    "MALLOC_ARENA_MAX": "1",
}
"""Of every worker process, before it loads anything."""

CONFIGURATION: dict[str, Any] = {
    # All tasks of two workers that died are suspect; the driver then tries each alone.
    "distributed.scheduler.allowed-failures": 1,
    # A tile's arrays are no results of tasks: there is nothing to spill, and no use in a pause
    # below the limit, which was checked before the run.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.98,
    "distributed.nanny.pre-spawn-environ": {
        **ENVIRONMENT,
        # A failed tile is told once, by the driver, when it is quarantined.
        "DASK_LOGGING__DISTRIBUTED": "critical",
    },
    "distributed.admin.tick.limit": "30s",
    # Dask samples every worker's stack a hundred times a second; tiles are timed by receipts.
    "distributed.worker.profile.enabled": False,
}

ADAPT_WITHIN = "1s"
"""How soon the work in flight should be done. It is a window, not all there is: a longer time
would let Dask believe that a few workers suffice."""


@contextmanager
def embedded(settings: ClusterSettings) -> Iterator[Client]:
    """A client of a cluster of this machine; it is stopped again."""
    table = settings.table
    adaptive = None if table is None else table.adaptive
    gpus = 0 if table is None else table.gpu_workers
    options: dict[str, Any] = {"resources": {TILE: THREADS_PER_WORKER}} if gpus else {}
    with (
        dask.config.set(CONFIGURATION),
        LocalCluster(
            n_workers=worker_count(settings) if adaptive is None else adaptive.minimum,
            threads_per_worker=THREADS_PER_WORKER,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=memory_per_worker(settings),
            silence_logs=logging.ERROR,
            **options,
        ) as cluster,
        Client(cluster) as client,
    ):
        if gpus:
            add_workers(cluster, "gpu", gpus, {"resources": {GPU: THREADS_PER_WORKER}})
            client.wait_for_workers(worker_count(settings) + gpus, timeout=settings.wait_s)
        if adaptive is not None:
            cluster.adapt(
                minimum=adaptive.minimum, maximum=adaptive.maximum, target_duration=ADAPT_WITHIN
            )
        yield client


def add_workers(cluster: SpecCluster, name: str, count: int, options: dict[str, Any]) -> None:
    """Start workers of another kind beside those that a cluster makes of itself.

    Args:
        options: of the worker's class, over those of the cluster's own workers.
    """
    new = cluster.new_spec
    for number in range(count):
        cluster.worker_spec[f"{name}-{number}"] = {
            **{key: value for key, value in new.items() if key != "group"},
            "options": {**new["options"], **options},
        }
    cluster.scale(len(cluster.worker_spec))
