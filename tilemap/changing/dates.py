"""One date of a series: the directory of a run, and the day it is of."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from tilemap.changing.geobox import apart
from tilemap.directory import RUN_FILE, STORES, digest_of
from tilemap.errors import SceneError, SceneMismatchError, UsageError
from tilemap.files import read_sealed
from tilemap.geometry import Window
from tilemap.models.card import ClassInfo
from tilemap.models.registry import file_sha256
from tilemap.scene import SceneRequest
from tilemap.stages.gather import GatherReader
from tilemap.stores.fingerprint import Inputs
from tilemap.stores.grids import footprint
from tilemap.stores.inputs import find_inputs
from tilemap.stores.masks import Rule, mask_file
from tilemap.stores.mosaic import Handles
from tilemap.stores.opening import plain_path
from tilemap.stores.probabilities import FILE, MENDS, ProbabilityStore
from tilemap.stores.rasters import Raster, describe
from tilemap.stores.sensors import MIDDLE, day_of_name

LABELS = "landcover.tif"
_SPOT = 256  # pixels, side of the parts of a mask that are looked at before a run


@dataclass(frozen=True)
class DateInput:
    """A finished run as one date of a series.

    Args:
        path: its directory.
        day: when the scene was observed.
        geobox: grid of its map.
        classes: of its map, in the order of its probabilities.
        model_sha256: of the model that made it.
        digest: of everything that decided its map.
        hard: labels only, no probabilities.
        lacks: digest of the tiles that it lacks; empty if it is whole.
        inputs: files that are read besides its store.
        notes: for people.
        altered: its labels are not those that its run wrote.
    """

    path: Path
    day: datetime.date
    geobox: GeoBox
    classes: tuple[ClassInfo, ...]
    model_sha256: str
    digest: str
    hard: bool
    lacks: str = ""
    inputs: Inputs = Inputs()
    notes: tuple[str, ...] = ()
    altered: bool = False


def is_run(path: str | Path) -> bool:
    """Whether a path is a directory that a run left or has begun in."""
    place = Path(path)
    return (place / RUN_FILE).is_file() or (place / STORES).is_dir()


def open_date(path: str | Path, day: str | None = None) -> DateInput:
    """Open the directory of a run as one date.

    Args:
        path: what ``tilemap segment`` left.
        day: ISO day; default that of its scene, else of the names.

    Raises:
        SceneError: if it is not finished, or its day is not known.
        UsageError: if ``day`` is none.
    """
    place = Path(path)
    record = _record(place)
    identity: dict[str, Any] = record["identity"]
    notes, altered = list[str](), list[str]()
    lacks = lacks_of(record)
    if lacks:
        notes.append(f"{path} is partial: tiles that it lacks count as not observed")
    store, inputs = place / FILE, Inputs()
    hard = not store.exists()
    if hard:
        if identity.get("probabilities"):
            raise SceneError(f"{store} is gone, of which the run says that it is there; {MENDS}")
        notes.append(
            f"{path} has labels only, which count as certain; better: `probabilities` and `fresh`"
        )
        altered = _changed_labels(place, record)
        notes += altered
        raster = describe(str(place / LABELS))
        geobox, inputs = raster.geobox, Inputs.of(raster.files)
    else:
        kept = ProbabilityStore(store)
        if kept.digest != record["digest"]:
            raise SceneError(f"{store} must be of the run beside it, it is of another one")
        geobox = kept.geobox
        if kept.is_linear:
            notes.append(
                f"{path} has probabilities in coarse steps, from an earlier version; better: "
                "segment it again with `fresh`"
            )
    found = _day(place, record, day, notes)
    model: dict[str, Any] = identity["model"]
    try:
        classes = tuple(ClassInfo(**kind) for kind in model["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise SceneError(f"{place / RUN_FILE} must name its classes: {error}") from error
    return DateInput(
        path=place,
        day=found,
        geobox=geobox,
        classes=classes,
        model_sha256=str(model["sha256"]),
        digest=str(record["digest"]),
        hard=hard,
        lacks=lacks,
        inputs=inputs,
        notes=tuple(notes),
        altered=bool(altered),
    )


def lacks_of(record: Mapping[str, Any]) -> str:
    """Digest of the tiles that a run could not map; empty if there are none.

    Args:
        record: of ``run.json``.
    """
    if record["status"] == "ok":
        return ""
    lost = [[one.get("stage"), one.get("tile")] for one in record.get("quarantined", [])]
    return digest_of({"lacks": sorted(lost, key=str)})[:16]


def _record(place: Path) -> dict[str, Any]:
    """``run.json`` of a finished run of ``segment``."""
    record = read_sealed(place / RUN_FILE)
    if record is None:
        if (place / RUN_FILE).is_file():
            raise SceneError(f"{place / RUN_FILE} is damaged; {MENDS}")
        if (place / STORES).is_dir():
            raise SceneError(
                f"{place} must be a finished run of `tilemap segment`, it has only begun; run the "
                "same command again, which continues it"
            )
        raise SceneError(
            f"{place} must be the directory of a run of `tilemap segment`, it has no {RUN_FILE}"
        )
    identity = record.get("identity")
    if not isinstance(identity, dict) or "model" not in identity:
        raise SceneError(
            f"{place} must be of `tilemap segment`, its {RUN_FILE} is of something else; a series "
            "is made of maps, one for each date"
        )
    return record


def _changed_labels(place: Path, record: dict[str, Any]) -> list[str]:
    """What is to be told of a class map that is not as its run wrote it.

    A person may correct labels, so they are taken; damage cannot be told from that.
    """
    path = place / LABELS
    made = record.get("products", {}).get(LABELS, {})
    if not path.is_file() or "sha256" not in made or file_sha256(path) == made["sha256"]:
        return []
    return [
        f"{path} is not what its run wrote: its labels were corrected, or are damaged; they count "
        f"as they are, and {MENDS}"
    ]


def _day(place: Path, record: dict[str, Any], said: str | None, notes: list[str]) -> datetime.date:
    if said is not None:
        return parse_day(said)
    known = record["scene"].get("date")
    if known is not None:
        return datetime.datetime.fromisoformat(known).date()
    names = [str(record["scene"].get("name")), place.absolute().name]
    told = [found for name in names if (found := day_of_name(name)) is not None]
    for day, note in sorted(told, key=lambda found: found[1] is not None):  # whole days first
        if note is not None:
            notes.append(f"{place}: {note}")
        return day
    raise SceneError(
        f"the day of {place} must be known, neither the run nor the names {', '.join(names)} tell; "
        "give the days of all inputs with `dates`"
    )


def day_of(text: str, said: str | None, request: SceneRequest) -> tuple[datetime.date, str | None]:
    """The day of a scene that is not segmented yet, and a note if it had to be guessed.

    Raises:
        SceneError: if it is not known.
    """
    if said is not None:
        return parse_day(said), None
    inputs = find_inputs(request)
    if inputs.date is not None:
        return inputs.date.date(), None
    found = day_of_name(inputs.name)
    if found is None:
        raise SceneError(
            f"the day of {text} must be known, its name does not tell; give the days of all "
            "inputs with `dates`"
        )
    day, note = found
    return day, None if note is None else f"{text}: {note}"


def parse_day(text: str) -> datetime.date:
    """A day as YYYY-MM-DD, or a year for its middle.

    Raises:
        UsageError: if it is none.
    """
    try:
        if re.fullmatch(r"\d{4}", text.strip()):
            return datetime.date(int(text), *MIDDLE)
        return datetime.date.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(f"a day must look like 2020-07-01, got {text!r}") from error


def check_comparable(
    dates: Sequence[tuple[str, Sequence[ClassInfo], str]], allow_mismatch: bool
) -> None:
    """All dates have the same classes and are of one model.

    Args:
        dates: name, classes and digest of the model of each.
        allow_mismatch: other models will do, other classes will not.

    Raises:
        SceneMismatchError: naming the first two that differ.
    """
    first, classes, model = dates[0]
    for name, others, digest in dates[1:]:
        one, two = ([(c.value, c.name) for c in kinds] for kinds in (classes, others))
        if one != two:
            told = (", ".join(f"{value} {word}" for value, word in kinds) for kinds in (one, two))
            raise SceneMismatchError(
                f"all dates must have the same classes: {first} has {next(told)}; {name} has "
                f"{next(told)}"
            )
        if digest != model and not allow_mismatch:
            raise SceneMismatchError(
                f"all dates must be mapped by one model: {first} is of {model[:12]}, {name} of "
                f"{digest[:12]}; map them anew with one, or give `allow_model_mismatch`"
            )


def gather_reader(
    found: DateInput,
    geobox: GeoBox,
    mask: str | Path | None = None,
    rule: Rule | None = None,
    inputs: Inputs | None = None,
) -> GatherReader:
    """How the date is read on the grid of the series.

    Args:
        found: the date.
        geobox: grid of the series.
        mask: raster of clouds and the like, on any grid; see ``check_mask``.
        rule: which of its numbers were not observed.
        inputs: the files that it reads, mask and labels.

    Raises:
        SceneError: if the mask cannot hold what the rule asks for.
        SceneMismatchError: if the mask has no ground in common with the series.
    """
    clouds = None if mask is None else check_mask(mask, geobox, rule)
    place = found.path.absolute()
    return GatherReader(
        probabilities=None if found.hard else place / FILE,
        labels=place / LABELS if found.hard else None,
        values=tuple(c.value for c in found.classes),
        geobox=geobox,
        mask=None if clouds is None else Path(clouds.path),
        mask_band=1 if clouds is None else clouds.bands[0].index,
        rule=rule,
        digest=found.digest,
        inputs=inputs or Inputs(),
    )


def check_mask(mask: str | Path, geobox: GeoBox, rule: Rule | None = None) -> Raster:
    """A mask holds whole numbers and lies where the series lies.

    Args:
        mask: its file; of a file of several bands ``FILE:BAND``, a number or a description.
        geobox: grid of the series.
        rule: held against some of its pixels, from all over it.

    Returns:
        The mask, as described, with its one band.

    Raises:
        SceneError: if it holds other numbers, or cannot be read; if they are no codes of the rule;
            if it has several bands and none is named, or not the one that is.
        SceneMismatchError: if the two have no ground in common; naming both bounding boxes.
    """
    file, band = mask_file(str(mask))
    raster = _one_band(describe(str(plain_path(file))), band)
    dtype = np.dtype(raster.bands[0].dtype)
    if dtype.kind not in "iu":
        raise SceneError(f"a mask must hold whole numbers, {mask} holds {dtype}")
    if footprint(raster.geobox, geobox).size == 0:
        raise SceneMismatchError(apart(str(mask), raster.geobox, "the series", geobox))
    if rule is None:
        return raster
    rows, cols = (np.linspace(0, max(n - _SPOT, 0), 3, dtype=int).tolist() for n in raster.shape)
    whole = Window(0, 0, *raster.shape)
    with Handles() as handles:
        for top, left in {(top, left) for top in rows for left in cols}:
            spot = Window(top, left, top + _SPOT, left + _SPOT).intersect(whole)
            pixels, valid = handles.of(raster).read((0,), spot)
            try:
                rule.masked(pixels[0][valid])
            except SceneError as error:
                raise SceneError(f"{mask}: {error}") from error
    return raster


def _one_band(raster: Raster, wanted: str) -> Raster:
    """The same mask with the band that is wanted alone; its only one if none is named."""
    bands = raster.opaque().bands
    if not wanted and len(bands) == 1:
        return raster
    names = {b.index: b.said or b.description or f"band {b.index}" for b in bands}
    found = [
        band for band in bands
        if wanted and wanted.lower() in (str(band.index), names[band.index].lower())
    ]  # fmt: skip
    if len(found) == 1:
        return dataclasses.replace(raster.opaque(), bands=(found[0],))
    listed = ", ".join(f"{index} ({name})" for index, name in names.items())
    what = f"has no band {wanted!r}" if wanted else f"has {len(bands)}"
    raise SceneError(
        f"a mask must be one band, {raster.path} {what}; name one as in "
        f"{Path(raster.path).name}:{bands[-1].index}, of {listed}"
    )
