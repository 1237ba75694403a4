"""All who are told of a pass, one after another; none can keep the others from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tilemap.nightly.config import TellTable
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.places import Places
from tilemap.nightly.telling.hooks import tell
from tilemap.nightly.telling.log import PassLog
from tilemap.nightly.telling.prometheus import metrics_text, read_metrics, write_metrics
from tilemap.nightly.telling.summary import read_history, write_summary


def tell_all(outcome: PassOutcome, table: TellTable, places: Places, log: PassLog) -> None:
    """Write the summary of the pass, that of the last pass and the metrics; command and webhook.

    What fails is logged; neither the outcome nor the exit code changes by it.

    Args:
        outcome: of the pass; of a dry one nobody is told.
        table: who is told what.
        places: of the passes.
        log: of the pass.
    """
    if outcome.dry:
        return
    history = read_history(places.passes, before=outcome.id)

    def write(folder: Path) -> Path:
        return write_summary(folder, outcome, history, places.products)

    page = _tried("the summary", lambda: write(places.passes / outcome.id), log)
    last = _tried("the summary of the last pass", lambda: write(places.root), log)
    shown = page or last
    if shown is not None:
        log.event("summary", text=f"summary: {shown}", path=shown)
    metrics = places.metrics if table.prometheus is None else Path(table.prometheus)

    def measure() -> Path:
        write_metrics(metrics, metrics_text(outcome, read_metrics(metrics)))
        return metrics

    if _tried("the metrics", measure, log) is not None:
        log.event("metrics", path=metrics)

    def call() -> Path:
        tell(outcome, table, log, shown)
        return places.root

    _tried("command and webhook", call, log)


def _tried(what: str, do: Callable[[], Path], log: PassLog) -> Path | None:
    try:
        return do()
    except Exception as error:  # a pass that is done must not fail in being told
        text = f"{what} could not be done: {str(error) or type(error).__name__}"
        log.event("telling_failed", "warning", text, what=what, error_type=type(error).__name__)
        return None
