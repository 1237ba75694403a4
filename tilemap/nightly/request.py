"""What a person asks of a pass, and the dry run that only tells what it would do."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tilemap.errors import EXIT_OK, ModelError, UsageError
from tilemap.nightly.config import AreaTable, NightlyConfig
from tilemap.nightly.facts import CHANGE_ID, PassOutcome, Waiting
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.places import Places, stamp
from tilemap.nightly.surveying import survey, survey_series
from tilemap.nightly.works import Work

if TYPE_CHECKING:
    from rich.console import Console

    from tilemap.progress import Progress


@dataclass(frozen=True)
class PassRequest:
    """What a person asks of one pass, besides the configuration.

    Args:
        config: of the passes.
        file: where it stands, for reports.
        areas: names of the areas to look at; empty for all.
        budget_s: seconds after which nothing new is begun; None for the configuration's.
        dry: only tell what would be done.
        console: for the human log; None for standard error.
        bar: shows one run on it, such as ``ConsoleProgress``; None for a line now and then.
    """

    config: NightlyConfig
    file: str
    areas: tuple[str, ...] = ()
    budget_s: float | None = None
    dry: bool = False
    console: Console | None = field(default=None, repr=False)
    bar: Callable[[Console], Progress] | None = field(default=None, repr=False)

    @property
    def chosen(self) -> tuple[AreaTable, ...]:
        """The areas to look at.

        Raises:
            UsageError: if there is none of that name.
        """
        known = {area.name: area for area in self.config.areas}
        if odd := [name for name in self.areas if name not in known]:
            raise UsageError(f"`area` must be one of {', '.join(known)}, got {odd[0]!r}")
        return tuple(area for name, area in known.items() if not self.areas or name in self.areas)


def tell_only(request: PassRequest, places: Places, areas: Sequence[AreaTable]) -> PassOutcome:
    """What a pass would do, as its ``waiting``; nothing is written."""
    started, clock = datetime.now(UTC), time.monotonic()
    with Ledger.peek(places.ledger) as ledger:
        found = survey(request.config, areas, ledger, started, write=False)
        waiting = [work.waiting for work in found.maps]
        busy = {work.area for work in found.maps}
        set_aside = ledger.quarantines()
        for area in areas:
            if area.name in busy and area.series:
                waiting.append(Waiting(area.name, "change", CHANGE_ID, None, "after its scenes"))
                continue
            with contextlib.suppress(ModelError):  # told among the problems
                work = survey_series(request.config, area, ledger, places, found)
                if isinstance(work, Work | list):
                    waiting += [one.waiting for one in (work if isinstance(work, list) else [work])]
    return PassOutcome(
        id=stamp(started), root=str(places.root), config=request.file, host=socket.gethostname(),
        started=started, ended=datetime.now(UTC), seconds=time.monotonic() - clock, status="ok",
        exit_code=EXIT_OK, skipped=found.skipped, copying=tuple(found.copying),
        waiting=tuple(waiting), quarantined=tuple(set_aside), problems=tuple(found.problems),
        notes=tuple(found.notes), dry=True,
    )  # fmt: skip
