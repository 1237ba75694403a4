"""Bytes that were fetched and may be needed again, of all files and threads of a process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class ByteCache:
    """Values by key, the ones used longest ago dropped first; for any number of threads.

    Args:
        most: bytes that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> bytes | None:
        """A value, if it is still there."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep a value, unless it would drive out most of the others."""
        if len(value) > self._most // 4:
            return
        with self._lock:
            self._held += len(value) - len(self._values.pop(key, b""))
            self._values[key] = value
            while self._held > self._most:
                self._held -= len(self._values.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._held = 0

    @property
    def held(self) -> int:
        """Bytes kept now."""
        return self._held
