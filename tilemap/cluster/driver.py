"""What a driver puts on a cluster goes when the driver goes, whatever ended it.

A driver that is killed cannot clean up, so the scheduler does: it sees the connection end, or
TCP's keep-alive ends it for a driver whose machine or network is gone.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # ships no annotations
from distributed import Client, Scheduler, SchedulerPlugin, WorkerPlugin
from distributed.core import clean_exception
from distributed.protocol.pickle import dumps

from tilemap.errors import TilemapError, UnavailableError

LOST = (
    "the Dask scheduler must stay until the run ends, the connection to it was lost; "
    "the same command continues"
)


_sent: Counter[str] = Counter()
_sending = threading.Lock()


@contextmanager
def by_value(module: ModuleType) -> Iterator[None]:
    """What a module defines is sent as it is meanwhile: no tilemap is needed where it arrives.

    Several threads may do so at a time: a night maps several scenes.
    """
    with _sending:
        _sent[module.__name__] += 1
        if _sent[module.__name__] == 1:
            cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        with _sending:
            _sent[module.__name__] -= 1
            if not _sent[module.__name__]:
                cloudpickle.unregister_pickle_by_value(module)


class DriverPlugin(SchedulerPlugin):
    """Takes away what a driver has put on the cluster when the driver is gone.

    Everything of the driver has a name that ends with the id of its client.

    Args:
        client: id of the driver's client.
    """

    idempotent = True
    # A worker that joined just before may set a plugin up after it was asked the first time.
    again_s = (0.0, 2.0, 10.0)

    def __init__(self, client: str) -> None:
        self.client = client
        self.name = f"tilemap-driver-{client}"
        self.drop = dumps(_drop)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Called by Dask when a client has left."""
        if client != self.client:
            return
        names = [name for name in scheduler.worker_plugins if name.endswith(client)]
        for name in names:
            del scheduler.worker_plugins[name]
        for name in [name for name in scheduler.plugins if name.endswith(client)]:
            scheduler.remove_plugin(name=name)
        for seconds in self.again_s if names else ():
            scheduler.loop.call_later(seconds, self.forget, scheduler)

    async def forget(self, scheduler: Scheduler) -> None:
        """Have every worker drop what is the driver's."""
        if scheduler.status.name != "running":
            return
        message = {
            "op": "run", "function": self.drop, "args": dumps((self.client,)), "kwargs": dumps({}),
            "wait": True,
        }  # fmt: skip
        await scheduler.broadcast(msg=message, on_error="ignore")


async def _drop(ending: str, dask_worker: Any) -> None:
    """In a worker: no plugin with such a name any more."""
    for name in [name for name in dask_worker.plugins if name.endswith(ending)]:
        await dask_worker.plugin_remove(name=name)


async def _add(
    client: str, name: str, plugin: bytes, for_workers: bool, dask_scheduler: Any
) -> dict[str, Any]:
    """In the scheduler: register a plugin, unless its driver has left meanwhile."""
    if client not in dask_scheduler.clients:
        return {}
    if not for_workers:
        await dask_scheduler.register_scheduler_plugin(plugin=plugin, name=name, idempotent=True)
        return {}
    dask_scheduler.worker_plugins[name] = plugin
    message = {"op": "plugin-add", "plugin": plugin, "name": name}
    # A worker that dies meanwhile is replaced by one that joins.
    answers: dict[str, Any] = await dask_scheduler.broadcast(msg=message, on_error="ignore")
    return answers


def _remove(name: str, dask_scheduler: Any) -> None:
    """In the scheduler: whoever joins does without the plugin."""
    dask_scheduler.worker_plugins.pop(name, None)


def put(client: Client, plugin: WorkerPlugin | SchedulerPlugin) -> None:
    """Register a plugin until it is taken away, or the driver is gone.

    Raises:
        Exception: what its set-up raised in a worker.
    """
    with by_value(sys.modules[__name__]):
        if client.cluster is None:  # a cluster that was started here goes with the driver
            client.register_plugin(DriverPlugin(client.id))
        answers = client.run_on_scheduler(
            _add, client.id, _name(client, plugin), dumps(plugin), isinstance(plugin, WorkerPlugin)
        )
    for answer in answers.values():
        if answer["status"] == "error":
            # threads of one process hand the wrapped bytes on as they are
            parts = (
                getattr(answer[key], "data", answer[key]) for key in ("exception", "traceback")
            )
            _, error, trace = clean_exception(*parts)
            assert error is not None
            raise error.with_traceback(trace)


def take(client: Client, plugin: WorkerPlugin) -> None:
    """Take a plugin away from every worker."""
    with by_value(sys.modules[__name__]):
        client.run_on_scheduler(_remove, _name(client, plugin))
        client.run(_drop, _name(client, plugin), on_error="ignore")


def _name(client: Client, plugin: Any) -> str:
    return f"{plugin.name}-{client.id}"


@contextmanager
def opened(client: Client, plugin: WorkerPlugin) -> Iterator[None]:
    """A run open in every worker process of a cluster, and closed again, come what may.

    Args:
        client: of the cluster.
        plugin: opens the run where it is set up.

    Raises:
        UnavailableError: if the connection to the scheduler is lost.
    """
    with reaching(client):
        try:
            put(client, plugin)
            yield
        except UnavailableError:
            raise  # there is nobody to tell
        except BaseException:  # a notebook keeps its client after an interrupt
            take(client, plugin)
            raise
        take(client, plugin)


@contextmanager
def reaching(client: Client) -> Iterator[Client]:
    """The client; whatever fails because its scheduler is gone is told as that.

    Raises:
        UnavailableError: if the connection to the scheduler is lost.
    """
    try:
        yield client
    except TilemapError:
        raise
    except Exception as error:
        if _connected(client):
            raise
        raise UnavailableError(LOST) from error


def _connected(client: Client) -> bool:
    stream = client.scheduler_comm
    return bool(client.status == "running" and stream is not None and not stream.comm.closed())
