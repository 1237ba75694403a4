"""Connections of this process: how many there may be, and to what they may not lead."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from tilemap.stores.remote.address import AllowList
from tilemap.stores.remote.cache import ByteCache
from tilemap.stores.remote.limits import CACHE, CONNECTIONS


class Pool:
    """What all readers of a process share.

    ``gate`` is held while a request is under way; ``cache`` has what came of some.
    """

    def __init__(self) -> None:
        self.gate = threading.BoundedSemaphore(CONNECTIONS)
        self.cache = ByteCache(CACHE)
        self._managers: dict[AllowList, urllib3.PoolManager] = {}

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        """For requests that go out together."""
        return ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="tilemap-remote")

    def http(self, allow: AllowList) -> urllib3.PoolManager:
        """Connections by host, each to an address that the list permits.

        Certificates are always verified. Another list has other connections.
        """
        found = self._managers.get(allow)
        if found is None:
            found = urllib3.PoolManager(16, maxsize=CONNECTIONS, block=True, retries=False)
            found.pool_classes_by_scheme = {
                "http": partial(_Plain, allow=allow),  # type: ignore[dict-item]  # it is called
                "https": partial(_Secure, allow=allow),  # type: ignore[dict-item]
            }
            found = self._managers.setdefault(allow, found)
        return found


_pools: dict[int, Pool] = {}


def pool() -> Pool:
    """The one of this process; a forked child gets its own."""
    found = _pools.get(os.getpid())
    return found if found is not None else _pools.setdefault(os.getpid(), Pool())


class _PlainConnection(HTTPConnection):
    def __init__(self, *args: Any, allow: AllowList, **options: Any) -> None:
        super().__init__(*args, **options)
        self._allow = allow

    def _new_conn(self) -> Any:
        return _checked(self, super()._new_conn(), self._allow)


class _SecureConnection(HTTPSConnection):
    def __init__(self, *args: Any, allow: AllowList, **options: Any) -> None:
        super().__init__(*args, **options)
        self._allow = allow

    def _new_conn(self) -> Any:
        return _checked(self, super()._new_conn(), self._allow)


def _checked(connection: HTTPConnection, link: Any, allow: AllowList) -> Any:
    """The link, if it leads where it may: nothing has been sent yet.

    The name is not looked up again, so it cannot lead elsewhere afterwards.
    """
    try:
        peer, port = link.getpeername()[:2]
        allow.check_peer(connection.host, peer, port)
    except BaseException:
        link.close()
        raise
    return link


class _Plain(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _Secure(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
