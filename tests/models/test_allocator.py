"""Freed memory stays with the process."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import pytest

from tilemap.models.allocator import give_back_freed_memory, keep_freed_memory

COUNT = """
import resource
import numpy as np
from tilemap.models.allocator import keep_freed_memory
{call}
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(50_000_000, np.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))
"""


def faults(call: str) -> int:
    """Page faults of making an array of 50 MB again."""
    code = COUNT.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_a_second_array_costs_no_pages() -> None:
    """Without it every page is asked for again (some hundred, where they are huge)."""
    assert keep_freed_memory()
    assert faults("keep_freed_memory()") <= 2
    assert faults("") >= 20


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the function is not there."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: resource)
    assert not keep_freed_memory.__wrapped__()
    assert not give_back_freed_memory()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_what_was_kept_can_be_given_back() -> None:
    """A process that keeps what it frees gets smaller when it is told to."""
    code = """
import numpy as np
from tilemap.models.allocator import give_back_freed_memory, keep_freed_memory
from tilemap.worker import resident_memory
keep_freed_memory()
np.ones(50_000_000, np.uint8)
kept = resident_memory()
assert give_back_freed_memory()
print(kept - resident_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 40_000_000
