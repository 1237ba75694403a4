"""Figures of the last pass, and counters over all, for the node exporter's text-file collector."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.telling.record import BAD, STATUSES, mpx_per_s, pixels
from tilemap.nightly.telling.words import clean
from tilemap.stores.sidecars import write_text

LAST_SUCCESS = "tilemap_last_success_timestamp_seconds"
_FAILURES = "tilemap_failures_total"
_SAMPLE = re.compile(r'(tilemap_\w+(?:\{(?:\w+="(?:[^"\\\n]|\\.)*",?)*\})?) (\S+)')
_AREA = re.compile(r'\{(?:.*,)?area="((?:[^"\\\n]|\\.)*)"')
_PARTS_MOST = 4096  # areas that a file of before may bring back


@dataclass(frozen=True, slots=True)
class _Family:
    """One metric: its name, its type, what it means, its samples as (labels, value)."""

    name: str
    kind: str
    about: str
    samples: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        lines = [f"# HELP {self.name} {self.about}", f"# TYPE {self.name} {self.kind}"]
        lines += [f"{self.name}{labels} {_number(value)}" for labels, value in self.samples]
        return "\n".join(lines) + "\n"


def parse_metrics(text: str) -> dict[str, float]:
    r"""Samples by name and labels, as they stand in the file; what is damaged is left out.

    >>> parse_metrics('# TYPE x gauge\ntilemap_queue 3\ntilemap_que')
    {'tilemap_queue': 3.0}
    """
    samples = {}
    for line in text.split("\n"):
        if (found := _SAMPLE.fullmatch(line.strip())) is None:
            continue
        try:
            value = float(found[2])
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            samples[found[1]] = value
    return samples


def read_metrics(path: Path) -> dict[str, float]:
    """The same of a file; nothing where there is none."""
    try:
        return parse_metrics(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def metrics_text(outcome: PassOutcome, previous: Mapping[str, float] | None = None) -> str:
    """The file after a pass.

    Args:
        outcome: of the pass; a dry one counts nothing.
        previous: of the file before, see ``read_metrics``: counters go on from there, and the last
            success stays where this pass is none. A success is a pass with exit code 0.
    """
    before = previous or {}
    areas = sorted(_areas(outcome) | _areas_of(before))
    return "".join(
        family.text
        for family in (
            *_of_the_pass(outcome, before),
            *_by_area(outcome, areas),
            *_counters(outcome, before, areas),
        )
    )


def write_metrics(path: Path, text: str) -> None:
    """Write the file whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    write_text(path, text)


def _of_the_pass(outcome: PassOutcome, before: Mapping[str, float]) -> list[_Family]:
    ended = _seconds_of(outcome.ended)
    success = outcome.exit_code == 0 and not outcome.dry
    last = ended if success else before.get(LAST_SUCCESS, 0.0)
    version = clean(outcome.versions.get("tilemap", "unknown"))
    told = (
        (LAST_SUCCESS, "End of the last pass with exit code 0; 0 if none is known.", last),
        ("tilemap_last_pass_timestamp_seconds", "End of the last pass.", ended),
        ("tilemap_last_pass_exit_code", "Exit code of the last pass.", outcome.exit_code),
        ("tilemap_pass_seconds", "Wall time of the last pass.", outcome.seconds),
        ("tilemap_queue", "Work that the last pass left waiting.", len(outcome.waiting)),
        ("tilemap_copying", "Scenes still being copied at the last pass.", len(outcome.copying)),
        ("tilemap_skipped", "Work found done before by the last pass.", outcome.skipped),
        ("tilemap_problems", "Sources that could not be looked through.", len(outcome.problems)),
        ("tilemap_mpx_per_second", "Million pixels mapped a second, last pass.",
         mpx_per_s(outcome)),
    )  # fmt: skip
    families = [_Family(name, "gauge", about, (("", value),)) for name, about, value in told]
    info = ((_labels(version=version), 1.0),)
    return [*families, _Family("tilemap_build_info", "gauge", "Version of tilemap.", info)]


def _by_area(outcome: PassOutcome, areas: Iterable[str]) -> list[_Family]:
    """Every area with every status, so that a series does not end where there is nothing."""
    count = Counter[tuple[str, str, str]]((d.kind, d.area, d.status) for d in outcome.done)
    aside = Counter(quarantine.area for quarantine in outcome.quarantined)

    def by_status(kind: str) -> tuple[tuple[str, float], ...]:
        return tuple(
            (_labels(area=area, status=status), count[kind, area, status])
            for area in areas
            for status in STATUSES
        )

    quarantined = tuple((_labels(area=area), aside[area]) for area in areas)
    return [
        _Family("tilemap_scenes", "gauge", "Scenes of the last pass.", by_status("map")),
        _Family("tilemap_changes", "gauge", "Series of the last pass.", by_status("change")),
        _Family("tilemap_quarantined", "gauge", "Work set aside now.", quarantined),
    ]


def _counters(
    outcome: PassOutcome, before: Mapping[str, float], areas: Iterable[str]
) -> list[_Family]:
    counted = not outcome.dry

    def on(name: str, about: str, more: Mapping[str, float]) -> _Family:
        samples = [(key, before.get(name + key, 0.0) + counted * more[key]) for key in more]
        others = {k.removeprefix(name): v for k, v in before.items() if k.startswith(name + "{")}
        samples += [(key, value) for key, value in others.items() if key not in more]
        return _Family(name, "counter", about, tuple(samples))

    bad = Counter(done.area for done in outcome.done if done.status in BAD)
    done = sum(d.kind == "map" and d.status in ("ok", "partial") for d in outcome.done)
    cost = {} if outcome.cost is None else {_labels(currency=outcome.currency): outcome.cost}
    return [
        on(_FAILURES, "Work that failed, or is there in part only.",
           {_labels(area=area): bad[area] for area in areas}),
        on("tilemap_passes_total", "Passes by how they ended.",
           {_labels(status=outcome.status): 1}),
        on("tilemap_scenes_done_total", "Scenes mapped.", {"": done}),
        on("tilemap_pixels_total", "Pixels of scenes mapped.", {"": pixels(outcome)}),
        on("tilemap_km2_total", "Square kilometres mapped.", {"": outcome.km2}),
        on("tilemap_cost_total", "Cost of the passes, in the currency.", cost),
    ]  # fmt: skip


def _areas(outcome: PassOutcome) -> set[str]:
    parts = (
        outcome.done, outcome.copying, outcome.waiting, outcome.quarantined, outcome.problems
    )  # fmt: skip
    return {one.area for part in parts for one in part}


def _areas_of(samples: Mapping[str, float]) -> set[str]:
    """Areas that a file of before knows."""
    found = (_AREA.search(key) for key in samples if key.startswith(_FAILURES))
    return {_unescaped(one[1]) for one in list(found)[:_PARTS_MOST] if one is not None}


def _labels(**labels: str) -> str:
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{told}}}"


def _escaped(value: str) -> str:
    return clean(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value)


def _seconds_of(moment: datetime) -> float:
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def _number(value: float) -> str:
    """As short as it can be read back; a whole number without a point."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
