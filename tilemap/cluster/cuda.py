"""The GPUs of this machine, one worker process each, by dask-cuda; CPU workers beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, Nanny

from tilemap.cluster.address import security_for_a_run
from tilemap.cluster.census import GPU, TILE
from tilemap.cluster.embedded import CONFIGURATION, spare_script
from tilemap.cluster.settings import THREADS_PER_WORKER, ClusterSettings
from tilemap.errors import UnavailableError


def cuda_options(settings: ClusterSettings) -> dict[str, Any]:
    """What ``LocalCUDACluster`` is told.

    Device memory is the model's own affair: nothing of Dask's lies there, so nothing is spilled
    from it and no pool is made.
    """
    table = settings.table
    assert table is not None
    cuda = table.cuda
    devices = None if cuda is None else cuda.devices
    return {
        "CUDA_VISIBLE_DEVICES": None if devices is None else ",".join(map(str, devices)),
        "threads_per_worker": THREADS_PER_WORKER,
        "memory_limit": (cuda.memory_limit if cuda is not None else None) or "auto",
        "resources": {GPU: THREADS_PER_WORKER},
        "protocol": "tls",
        "security": security_for_a_run(),
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
    }


@contextmanager
def on_cuda(settings: ClusterSettings) -> Iterator[Client]:
    """A client of a cluster of this machine; it is stopped again.

    Raises:
        UnavailableError: if dask-cuda is not installed, or finds no GPU.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UnavailableError(
            'kind = "cuda" needs dask-cuda; pip install "tilemap[cuda]"'
        ) from error
    spare_script()
    with dask.config.set(CONFIGURATION):
        try:
            started = LocalCUDACluster(**cuda_options(settings))
        except (OSError, RuntimeError, ValueError) as error:
            raise UnavailableError(f"the GPUs of this machine cannot be used: {error}") from error
        with started as cluster, Client(cluster, set_as_default=False) as client:
            if settings.workers is not None:
                _add_cpu(cluster, settings.workers, settings.memory_limit)
            yield client


def _add_cpu(cluster: Any, count: int, memory_limit: int | None) -> None:
    """Workers that see no GPU, for all but segmenting."""
    options = {
        "nthreads": THREADS_PER_WORKER,
        "memory_limit": memory_limit or "auto",
        "resources": {TILE: THREADS_PER_WORKER},
        "env": {"CUDA_VISIBLE_DEVICES": ""},
        "host": "127.0.0.1",
        "protocol": "tls",
        "security": cluster.security,
    }
    for number in range(count):
        cluster.worker_spec[f"cpu-{number}"] = {"cls": Nanny, "options": options}
    cluster.scale(len(cluster.worker_spec))
