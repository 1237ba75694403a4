"""Under what a training runs: device, threads, order of sums; and batches made one step ahead."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from tilemap.errors import UnavailableError, UsageError
from tilemap.models.allocator import keep_freed_memory

if TYPE_CHECKING:
    from tilemap.training.samples import Batch


def pick_device(name: str) -> torch.device:
    """A device by its name.

    Args:
        name: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        UnavailableError: if there is no such GPU.
        UsageError: if the name is none.
    """
    seen = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if seen else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= seen:
        raise UnavailableError(f"device {name} must be a GPU that torch sees, it sees {seen}")
    return device


@contextmanager
def reproducible(device: torch.device, threads: int) -> Iterator[None]:
    """Fixed threads and, where a device has them, operations that sum in a fixed order.

    On a CPU the same threads give the same bits. On a GPU some backward passes have no fixed order;
    those are let pass. Settings of the process are as before in the end.
    """
    keep_freed_memory()
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    tuned = torch.backends.cudnn.benchmark
    gpu = device.type == "cuda"
    devices = [device.index or 0] if gpu else []
    try:
        torch.set_num_threads(threads)
        if gpu:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic.*")
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        torch.backends.cudnn.benchmark = tuned


def seed_step(seed: int, step: int) -> None:
    """Make what a step draws (dropout) a function of the step alone; a resume needs no state.

    Args:
        step: 0 for the first; -1 for what is drawn before it.
    """
    torch.manual_seed((seed * 1_000_003 + step + 1) % 2**63)


class Ahead:
    """Makes the batch of the next step in a thread while the network is busy with this one.

    Args:
        batch: a pure function of the step.
        steps: of the training; none is made beyond.
    """

    def __init__(self, batch: Callable[[int], Batch], steps: int) -> None:
        self._batch, self._steps = batch, steps
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tilemap-batch")
        self._next: tuple[int, Future[Batch]] | None = None

    def get(self, step: int) -> Batch:
        """The batch of a step; the next one is begun."""
        if self._next is None or self._next[0] != step:
            self._next = (step, self._pool.submit(self._batch, step))
        batch = self._next[1].result()
        self._next = None
        if step + 1 < self._steps:
            self._next = (step + 1, self._pool.submit(self._batch, step + 1))
        return batch

    def rest(self) -> None:
        """Wait until the thread is idle."""
        if self._next is not None:
            wait([self._next[1]])

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
