"""A client of the cluster that the settings ask for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from distributed import Client, default_client

from tilemap.cluster.address import reached
from tilemap.cluster.census import Route, route_of, tell_roles
from tilemap.cluster.cuda import on_cuda
from tilemap.cluster.driver import reaching
from tilemap.cluster.embedded import embedded
from tilemap.cluster.flight import Flight
from tilemap.cluster.kubernetes import on_kubernetes
from tilemap.cluster.settings import THREADS_PER_WORKER, ClusterSettings
from tilemap.cluster.slurm import on_slurm
from tilemap.cluster.versions import compare, guard
from tilemap.cluster.wheel import send_wheel
from tilemap.errors import ConfigError, UnavailableError

POLL_S = 0.2


@contextmanager
def connect(settings: ClusterSettings) -> Iterator[Client]:
    """A client of the cluster; what was started here is stopped again.

    Raises:
        ConfigError: if the cluster cannot be as it is described, or its versions differ.
        UnavailableError: if no scheduler answers in time, no worker comes, or an optional
            package is not there.
    """
    with _started(settings) as client, reaching(client):
        if not settings.embedded:
            join(client, settings)
        if not settings.embedded or settings.table is not None:
            tell_roles(client)
        yield client


def join(client: Client, settings: ClusterSettings) -> None:
    """Settle with a cluster whose machines are not this one: the same software everywhere.

    Raises:
        ConfigError: if versions differ.
        UnavailableError: if no worker comes in time.
    """
    wheel = None if settings.table is None else settings.table.wheel
    if wheel is not None:
        send_wheel(client, wheel)
    compare(client, workers=False)
    wait_for_worker(client, settings)
    for note in compare(client, scheduler=False):
        logging.getLogger("tilemap").warning("versions differ: %s", note)
    guard(client)


def _started(settings: ClusterSettings) -> AbstractContextManager[Client]:
    if isinstance(settings.scheduler, Client):
        return nullcontext(_usable(settings.scheduler))
    if settings.scheduler is not None:
        return reached(settings.scheduler, settings)
    if not settings.asked:
        _tell_of_another()
    kind = "local" if settings.table is None else settings.table.kind
    started = {"slurm": on_slurm, "kubernetes": on_kubernetes, "cuda": on_cuda}
    return started.get(kind, embedded)(settings)


def _usable(client: Client) -> Client:
    if client.asynchronous or client.status != "running":
        found = "is asynchronous" if client.asynchronous else f"is {client.status}"
        raise ConfigError(f"the client given as scheduler must be running and wait, it {found}")
    return client


def _tell_of_another() -> None:
    """Say that a Dask client that is active here is not used: its workers may lack tilemap."""
    with suppress(ValueError):  # there is none
        address = default_client().scheduler_info()["address"]
        logging.getLogger("tilemap").warning(
            "the active Dask client of %s is not used, workers are started for this run; "
            "to use it give scheduler=client",
            address,
        )


def wait_for_worker(client: Client, settings: ClusterSettings) -> None:
    """Until there is one; a cluster that grows with its work starts without.

    Raises:
        UnavailableError: if none comes in time.
    """
    table = settings.table
    if table is not None and table.adaptive is not None and table.adaptive.minimum == 0:
        return
    # Somebody else's cluster has workers or has not; those of ours are only just asked for.
    limit = settings.timeout_s if settings.scheduler is not None else settings.wait_s
    deadline = time.monotonic() + limit
    while not client.nthreads():
        if time.monotonic() > deadline:
            where = _address(settings)
            raise UnavailableError(
                f"the scheduler of {where} must have workers, it has none after {limit:g} s"
            )
        time.sleep(POLL_S)


def _address(settings: ClusterSettings) -> str:
    if isinstance(settings.scheduler, Client):
        return str(settings.scheduler.scheduler_info()["address"])
    return settings.scheduler or "this cluster"


def make_flight(
    client: Client, settings: ClusterSettings, route: Route | None = None
) -> Flight[Any]:
    """An empty window of tasks on a cluster.

    Args:
        route: where the tasks go; default what suits the workers that are there.
    """
    table = settings.table
    adaptive = None if table is None else table.adaptive
    return Flight(
        client,
        route_of(client) if route is None else route,
        settings.wait_s,
        at_least=1 if adaptive is None else THREADS_PER_WORKER * adaptive.maximum,
    )
