"""Asking again: what may pass is tried a few times, ever more slowly, and never for ever."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tilemap.errors import StoreError
from tilemap.stores.remote.limits import Limits
from tilemap.stores.remote.pool import pool

T = TypeVar("T")


class PassingError(Exception):
    """Something that may go well the next time.

    Args:
        reason: for a person, without secrets.
        after_s: how long the server asks to wait; None if it does not.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


def wait_before(attempt: int, after_s: float | None, limits: Limits, chance: float) -> float:
    """Seconds to wait before an attempt.

    Args:
        attempt: 1 is the first after a failure.
        after_s: what the server asks for, if it does.
        chance: 0..1, what is taken at random: so that many workers do not come back together.

    >>> [wait_before(n, None, Limits(), 0.0) for n in (1, 2, 3)]
    [0.25, 0.5, 1.0]
    """
    own = limits.wait_s * 2.0 ** (attempt - 1) * (1 - chance / 2)
    return min(max(own, after_s or 0.0), limits.longest_wait_s)


def persist(attempt: Callable[[], T], doing: str, limits: Limits) -> T:
    """Try until it goes well, as often as the limits allow.

    While it is tried, and not while it waits, it counts among the connections of the process.

    Args:
        attempt: raises ``PassingError`` for what may pass, any other error for what will not.
        doing: for the message, such as "read https://example.org/scene.tif".

    Raises:
        StoreError: if it never went well.
    """
    for number in range(1, limits.attempts + 1):
        try:
            with pool().gate:
                return attempt()
        except PassingError as problem:
            if number == limits.attempts:
                raise StoreError(
                    f"cannot {doing}: {problem}, {number} times; the same command continues"
                ) from problem
            time.sleep(wait_before(number, problem.after_s, limits, random.random()))
    raise AssertionError("at least one attempt")
