"""A cluster of processes of this machine, started for one run."""

from __future__ import annotations

import logging
import multiprocessing.spawn
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.deploy.spec import SpecCluster
from distributed.utils import LoopRunner

from tilemap.cluster.address import security_for_a_run
from tilemap.cluster.census import GPU, TILE
from tilemap.cluster.settings import (
    THREADS_PER_WORKER,
    ClusterSettings,
    memory_per_worker,
    worker_count,
)
from tilemap.errors import UnavailableError, UsageError

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

DASK_WORKER = "Dask Worker process (from Nanny)"
"""Name of the processes that Dask spawns."""
ADAPT_WITHIN = "1s"
"""How soon the work in flight should be done. It is a window, not all there is: a longer time
would let Dask believe that a few workers suffice."""


@contextmanager
def embedded(settings: ClusterSettings) -> Iterator[Client]:
    """A client of a cluster of this machine; it is stopped again."""
    table = settings.table
    adaptive = None if table is None else table.adaptive
    gpus = 0 if table is None else table.gpu_workers
    spare_script()
    options: dict[str, Any] = {"resources": {TILE: THREADS_PER_WORKER}} if gpus else {}
    with (
        dask.config.set(CONFIGURATION),
        _loop() as loop,
        LocalCluster(
            loop=loop,
            n_workers=0,
            threads_per_worker=THREADS_PER_WORKER,
            processes=True,
            host="127.0.0.1",
            security=security_for_a_run(),
            dashboard_address="127.0.0.1:0",
            memory_limit=memory_per_worker(settings),
            silence_logs=logging.CRITICAL,
            **options,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        # Not by the cluster's constructor: what is interrupted there nobody closes.
        count = worker_count(settings) if adaptive is None else adaptive.minimum
        cluster.scale(count)
        if gpus:
            add_workers(cluster, "gpu", gpus, {"resources": {GPU: THREADS_PER_WORKER}})
        _wait(client, count + gpus, settings.wait_s)
        if adaptive is not None:
            cluster.adapt(
                minimum=adaptive.minimum, maximum=adaptive.maximum, target_duration=ADAPT_WITHIN
            )
        yield client


def _wait(client: Client, count: int, limit_s: float) -> None:
    """Until all workers are there."""
    if not count:
        return
    try:
        client.wait_for_workers(count, timeout=limit_s)
    except TimeoutError as error:
        raise UnavailableError(
            f"{count} workers must start on this machine within {limit_s:g} s, "
            f"{len(client.nthreads())} did"
        ) from error


@contextmanager
def _loop() -> Iterator[Any]:
    """An event loop whose thread blocks SIGINT, and so do the processes that are spawned from it.

    A terminal sends Ctrl-C to all processes. The driver alone acts on it, and ends the others.
    """
    resource_tracker.ensure_running()  # the thread that starts it has SIGINT unblocked again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


def spare_script() -> None:
    """Have no worker import the script that runs here, neither now nor when one is replaced.

    Python's spawned processes import it, since they may need what it defines. Workers need nothing
    of it, and would run it once more where it has no ``__main__`` guard.

    Raises:
        UsageError: in a process that imports the script for another reason.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(
            "a script whose processes import it again must call tilemap under "
            'if __name__ == "__main__":, this process imports it'
        )
    prepare: Any = multiprocessing.spawn.get_preparation_data
    if not hasattr(prepare, "of_tilemap"):

        def get_preparation_data(name: str) -> dict[str, Any]:
            data: dict[str, Any] = prepare(name)
            if name == DASK_WORKER:
                data = {key: value for key, value in data.items() if key[:9] != "init_main"}
            return data

        get_preparation_data.of_tilemap = True  # type: ignore[attr-defined]
        multiprocessing.spawn.get_preparation_data = get_preparation_data


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
