"""Connections of this process: how many there may be, and to what they may not lead."""

from __future__ import annotations

import ipaddress
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from tilemap.errors import SceneError
from tilemap.stores.remote.cache import ByteCache
from tilemap.stores.remote.limits import CACHE, CONNECTIONS


class Pool:
    """What all readers of a process share.

    ``gate`` is held while a request is under way; ``cache`` has what came of some.
    """

    def __init__(self) -> None:
        self.gate = threading.BoundedSemaphore(CONNECTIONS)
        self.cache = ByteCache(CACHE)

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        """For requests that go out together."""
        return ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="tilemap-remote")

    @cached_property
    def http(self) -> urllib3.PoolManager:
        """Connections by host; certificates are always verified."""
        manager = urllib3.PoolManager(16, maxsize=CONNECTIONS, block=True, retries=False)
        manager.pool_classes_by_scheme = {"http": _Plain, "https": _Secure}
        return manager


_pools: dict[int, Pool] = {}


def pool() -> Pool:
    """The one of this process; a forked child gets its own."""
    found = _pools.get(os.getpid())
    return found if found is not None else _pools.setdefault(os.getpid(), Pool())


def check_peer(host: str, peer: str) -> None:
    """A name must not lead to a link-local address: there clouds keep their credentials.

    Raises:
        SceneError: if it does; an address that the user has listed as such may be asked.
    """
    found = ipaddress.ip_address(peer.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    if mapped.is_link_local and host.strip("[]") != peer:
        raise SceneError(f"{host} leads to {peer}, an address of this machine's own network link")


class _PlainConnection(HTTPConnection):
    def _new_conn(self) -> Any:
        return _checked(self, super()._new_conn())


class _SecureConnection(HTTPSConnection):
    def _new_conn(self) -> Any:
        return _checked(self, super()._new_conn())


def _checked(connection: HTTPConnection, link: Any) -> Any:
    try:
        check_peer(connection.host, link.getpeername()[0])
    except BaseException:
        link.close()
        raise
    return link


class _Plain(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _Secure(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
