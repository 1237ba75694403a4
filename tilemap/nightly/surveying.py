"""What there is and what is to be done about it: looked up, nothing done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.directory import RUN_FILE
from tilemap.errors import ModelError, SceneError, StoreError
from tilemap.files import read_sealed
from tilemap.nightly.config import AreaTable, NightlyConfig, is_remote
from tilemap.nightly.facts import Found, Problem, Product, Quarantine
from tilemap.nightly.places import Places
from tilemap.nightly.works import (
    Work,
    change_work,
    dates_of,
    decide,
    in_order,
    map_digest,
    wanted,
)
from tilemap.stores.masks import mask_file

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger

_FILES = ("like", "transitions")
"""Options that name a file."""


@dataclass
class Survey:
    """What a pass found before it did anything.

    Args:
        maps: scenes to map, in order.
        skipped: scenes that were done before.
        copying: scenes left for the next pass.
        set_aside: scenes in quarantine that are still as they were.
        problems: sources that could not be looked through, models that are not there.
        found: all scenes that were found, by area and id.
        notes: for people.
    """

    maps: list[Work] = field(default_factory=list)
    skipped: int = 0
    copying: list[Found] = field(default_factory=list)
    set_aside: list[Quarantine] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    found: dict[str, dict[str, Found]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def survey(
    config: NightlyConfig, areas: Sequence[AreaTable], ledger: Ledger, now: datetime, write: bool
) -> Survey:
    """Look through the sources of all areas and compare with the ledger.

    Args:
        config: of the passes.
        areas: those to look at.
        ledger: what is known.
        now: the time of day.
        write: tell the ledger what was seen.
    """
    found = Survey()
    for area in areas:
        _survey_area(config, area, ledger, now, write, found)
    found.maps = in_order(found.maps)
    return found


def _survey_area(
    config: NightlyConfig,
    area: AreaTable,
    ledger: Ledger,
    now: datetime,
    write: bool,
    survey: Survey,
) -> None:
    from tilemap.nightly.discovery import discover

    known = {row.found.id: row.found.fingerprint for row in ledger.scenes(area.name)}
    scenes, problems = discover(
        area, config, now.timestamp(), lambda key, fingerprint: known.get(key) == fingerprint
    )
    survey.problems += problems
    survey.found[area.name] = {scene.id: scene for scene in scenes}
    if write:
        with ledger.together():
            for scene in scenes:
                ledger.see(scene, now)
            if not problems:
                ledger.gone(area.name, survey.found[area.name], now)
    try:
        models = model_identities(config, area)
    except ModelError as error:
        survey.problems.append(Problem(area.name, ", ".join(config.models(area)), str(error)))
        return
    options = by_content(config.segment_options(area))
    keep = wanted(scenes, ledger.products(area=area.name), config.retention.keep_dates)
    for scene in scenes:
        if scene.id not in keep:
            continue
        if scene.state == "copying":
            survey.copying.append(scene)
            continue
        work = Work(
            area.name, "map", scene.id, map_digest(scene.fingerprint, models, options), scene.day,
            "", area.priority, scene.sources, scene.fingerprint,
        )  # fmt: skip
        decided = decide(work, ledger, config.nightly.attempts)
        if decided is None:
            survey.skipped += 1
        elif isinstance(decided, Quarantine):
            survey.set_aside.append(decided)
        else:
            survey.maps.append(decided)


def model_identities(config: NightlyConfig, area: AreaTable) -> list[dict[str, Any]]:
    """What decides the result of the models of an area.

    Raises:
        ModelError: if one is not there.
    """
    from tilemap.models import registry

    return [registry.resolve(model).card.identity() for model in config.models(area)]


def survey_series(
    config: NightlyConfig,
    area: AreaTable,
    ledger: Ledger,
    places: Places,
    survey: Survey,
    mended: Collection[str] = (),
    deep: bool = False,
) -> Work | Quarantine | list[Work] | None:
    """What is to be done about the series of an area whose scenes are done.

    Maps of another model or of other options than the area's of now are left out.

    Args:
        config: of the passes.
        area: whose series.
        ledger: what is known.
        places: of the passes.
        survey: scenes that were found; what hinders the series is added to its problems.
        mended: ids of scenes that were mapped again for the series in this pass.
        deep: read all probabilities of the dates, as they are damaged somewhere.

    Returns:
        The series; or what set it aside; or scenes that are to be mapped again before it, since
        their runs are gone or damaged; or None.
    """
    from tilemap.changing.dates import lacks_of

    if not area.series:
        return None
    models, options = model_identities(config, area), by_content(config.segment_options(area))
    listed = [
        product
        for product in ledger.products(area=area.name)
        if product.kind == "map"
        and product.digest == map_digest(product.fingerprint, models, options)
    ]
    kept = wanted((), listed, config.retention.keep_dates)
    dates, notes = dates_of([product for product in listed if product.id in kept])
    survey.notes += [note for note in notes if note not in survey.notes]
    if len(dates) < 2:
        return None
    records = [read_sealed(places.root / product.run / RUN_FILE) for product in dates]
    broken = [date for date, record in zip(dates, records, strict=True) if record is None]
    if not broken:
        change = config.change_options(area)
        lacks = [lacks_of(record) for record in records if record is not None]
        options, masks = by_content(change), _masks(change, dates)
        work = change_work(area.name, dates, options, area.priority, masks, lacks)
        decided = decide(work, ledger, config.nightly.attempts)
        if isinstance(decided, Work):
            broken = [date for date in dates if not _is_whole(places.root / date.run, deep)]
        if not broken:
            return decided
    return _again(broken, area, ledger, survey, mended)


def _is_whole(run: Path, deep: bool) -> bool:
    """Return True if the run of a date can be read; if ``deep``, all of its probabilities."""
    from tilemap.changing.dates import open_date
    from tilemap.stores.probabilities import FILE, ProbabilityStore

    try:
        found = open_date(run, "1970-01-01")  # any day: the record may not know it
        if found.altered:  # nobody corrects labels below the root of a nightly run
            return False
        return not deep or ProbabilityStore(run / FILE).verify()
    except (SceneError, StoreError):
        return False


def _again(
    broken: Sequence[Product],
    area: AreaTable,
    ledger: Ledger,
    survey: Survey,
    mended: Collection[str],
) -> list[Work] | None:
    """Scenes to map again since their runs are gone or damaged; None if one cannot be."""
    works, hindered = [], False
    for product in broken:
        found = survey.found[area.name].get(product.id)
        same = found is not None and _plain(found.fingerprint) == _plain(product.fingerprint)
        aside = ledger.quarantined(area.name, "map", product.id)
        if found is None or not same or aside is not None or product.id in mended:
            hindered = True
            name = f"{area.name}/{product.id}"
            reason = "it is in quarantine" if aside else "its scene is not there as it was"
            if product.id in mended:
                reason = "it could not be mapped again"
            text = (
                f"the series waits: the run of {name} is gone or damaged, and {reason}; mend "
                f"that, or leave the date out with `tilemap ledger forget {name}`"
            )
            survey.problems.append(Problem(area.name, product.run, text))
        else:
            works.append(
                Work(
                    area.name, "map", product.id, product.digest, product.day,
                    "its run is gone or damaged", area.priority, found.sources, found.fingerprint,
                )
            )  # fmt: skip
    return None if hindered else works


def _plain(fingerprint: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [dict(file) for file in fingerprint]


def by_content(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in which files that are named are what they hold, wherever they are.

    An address stays one. A file that is not there has no content; its work fails later.
    """
    named = [options[key] for key in _FILES if options.get(key) is not None]
    content = _content([path for path in named if not is_remote(path)])
    found = {
        key: content.get(value, value) if key in _FILES else value for key, value in options.items()
    }
    if "mask" in found:
        found["mask"] = True  # the masks of the dates have content of their own
    return found


def _masks(options: dict[str, Any], dates: Sequence[Product]) -> list[Any] | None:
    """Content of each date's mask; [] for one that is not there."""
    template = options.get("mask")
    if template is None:
        return None
    named = [mask_file(template.format(scene=product.id)) for product in dates]
    content = _content([file for file, _ in named])
    return [[*content[file], {"band": band}] if band else content[file] for file, band in named]


def _content(paths: Sequence[str]) -> dict[str, Any]:
    """What files hold, those beside them that belong to them included; [] of one not there."""
    if not paths:
        return {}
    from tilemap.stores.fingerprint import Inputs, files_of

    parts = {path: files_of(path) if Path(path).is_file() else () for path in paths}
    inputs = Inputs.of(file for files in parts.values() for file in files)
    return {path: inputs.records(files) for path, files in parts.items()}
