"""Start a Dask cluster or join one that runs; who does what there, and what is in flight."""

from __future__ import annotations

from tilemap.cluster.census import Route, route_of, thread_count
from tilemap.cluster.connecting import connect, make_flight
from tilemap.cluster.driver import opened, reaching
from tilemap.cluster.settings import (
    CONNECT_TIMEOUT_S,
    THREADS_PER_WORKER,
    ClusterSettings,
    machine_memory,
    memory_per_worker,
    pins,
    usable_cores,
    worker_count,
)

__all__ = [
    "CONNECT_TIMEOUT_S",
    "THREADS_PER_WORKER",
    "ClusterSettings",
    "Route",
    "connect",
    "machine_memory",
    "make_flight",
    "memory_per_worker",
    "opened",
    "pins",
    "reaching",
    "route_of",
    "thread_count",
    "usable_cores",
    "worker_count",
]
