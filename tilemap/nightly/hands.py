"""Who does the work of a pass: one piece after another, or several at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tilemap.nightly.doing import Made
from tilemap.nightly.works import Work


@dataclass(frozen=True)
class Ended:
    """A piece of work that has ended.

    Args:
        work: which.
        made: what came of it; None if it failed.
        error: why it failed.
    """

    work: Work
    made: Made | None = None
    error: Exception | None = None


class Hands:
    """Does work; whoever has them begins it, and waits for whatever ends first.

    A single pair of hands works in the thread that waits. More of them have a thread each: tasks
    run on the cluster, so that the threads mostly wait, and what is one task only, such as the
    export of a scene, leaves the other workers to the next scene.

    Args:
        together: pieces of work at a time.
        do: does one; called in any thread.
    """

    def __init__(self, together: int, do: Callable[[Work], Made]) -> None:
        self._together, self._do = together, do
        self._pool = ThreadPoolExecutor(together, "tilemap-work") if together > 1 else None
        self._begun: list[Work] = []
        self._running: dict[Future[Ended], Work] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What still runs is not waited for: it ends with the cluster, and can be continued."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> tuple[Work, ...]:
        """What is being done, in the order in which it was begun."""
        return (*self._begun, *self._running.values())

    @property
    def free(self) -> bool:
        """Whether one more piece can be begun."""
        return len(self.busy) < self._together

    def begin(self, work: Work) -> None:
        """Begin a piece of work."""
        assert self.free
        if self._pool is None:
            self._begun.append(work)
        else:
            self._running[self._pool.submit(self._attempt, work)] = work

    def wait(self) -> Ended:
        """The piece that ends first."""
        if self._begun:
            return self._attempt(self._begun.pop())
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = next(one for one in self._running if one in done)
        del self._running[future]
        return future.result()

    def _attempt(self, work: Work) -> Ended:
        try:
            return Ended(work, made=self._do(work))
        except Exception as error:  # told by whoever waits
            return Ended(work, error=error)
