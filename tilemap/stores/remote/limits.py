"""How much is asked of the network at a time, how long, and how often again."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one process and one request.

    Args:
        block: bytes that small reads are rounded to.
        first: bytes that the first request for a file asks for; most headers fit.
        gap: bytes between two ranges that are fetched along rather than asked for apart.
        longest: bytes of one request.
        together: requests of one read that are under way at a time.
        attempts: times a request is made before it fails.
        wait_s: before the second attempt; doubled each time, less a random part.
        longest_wait_s: before any attempt, whatever the server asks for.
        connect_s: to reach a host.
        silence_s: without a byte.
        request_s: for a whole request.
        redirects: hops that are followed.
    """

    block: int = 32 * KIB
    first: int = 64 * KIB
    gap: int = 32 * KIB
    longest: int = 8 * MIB
    together: int = 4
    attempts: int = 5
    wait_s: float = 0.25
    longest_wait_s: float = 30.0
    connect_s: float = 10.0
    silence_s: float = 30.0
    request_s: float = 120.0
    redirects: int = 5


LIMITS = Limits()
CONNECTIONS = 8
"""Requests that one process has under way at a time, to all hosts together."""
CACHE = 32 * MIB
"""Bytes that one process keeps of what it fetched: neighbouring tiles share blocks of pixels."""
MEMORY = CACHE + 32 * MIB
"""Bytes of memory that it takes, requests under way included."""
