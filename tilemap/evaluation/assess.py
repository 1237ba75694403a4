"""From a labelled sample, or a table of counts, to accuracies and areas with their intervals."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from tilemap.errors import SceneError
from tilemap.evaluation.census import ClassMap, Stratum, census, open_map
from tilemap.evaluation.classes import written
from tilemap.evaluation.estimation import Z95, Estimates, Strata, from_matrix, from_units
from tilemap.files import read_file
from tilemap.stores.grids import apply, same_crs
from tilemap.stores.sample_points import ANSWER, SampleFile, read_sample_file

IntArray = npt.NDArray[np.int64]
_SHOWN = 12


@dataclass(frozen=True)
class Assessment:
    """What a sample says of a map.

    Args:
        names: of the classes.
        mapped_ha: area of each as mapped, hectares; NaN where it is not known.
        estimates: accuracies; areas in hectares, NaN where they are not known.
        counts: sampled units, int64 (K, K), row = mapped class, column = reference class.
        left_out: sampled units without a reference.
        notes: what a reader should know, a sentence each.
    """

    names: tuple[str, ...]
    mapped_ha: tuple[float, ...]
    estimates: Estimates
    counts: IntArray
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> int:
        """Sampled, with a reference."""
        return int(self.counts.sum())

    def record(self) -> dict[str, Any]:
        """As JSON; what is not known is null. ``_ci`` is half of a 95 % interval."""
        e = self.estimates
        return {
            "overall_accuracy": _known(e.overall),
            "overall_accuracy_ci": _known(Z95 * e.overall_se),
            "confidence": 0.95,
            "units": self.units,
            "units_left_out": self.left_out,
            "classes": [
                {
                    "name": name,
                    "users_accuracy": _known(e.users[k]),
                    "users_accuracy_ci": _known(Z95 * e.users_se[k]),
                    "producers_accuracy": _known(e.producers[k]),
                    "producers_accuracy_ci": _known(Z95 * e.producers_se[k]),
                    "mapped_area_ha": _known(self.mapped_ha[k]),
                    "area_ha": _known(e.area[k]),
                    "area_ci_ha": _known(Z95 * e.area_se[k]),
                    "area_share": _known(e.share[k]),
                    "area_share_se": _known(e.share_se[k]),
                }
                for k, name in enumerate(self.names)
            ],
            "counts": self.counts.tolist(),
            "area_shares": e.matrix.tolist(),
            "notes": list(self.notes),
        }


# --- a table of counts -------------------------------------------------------------------------


def assess_matrix(path: str | Path) -> Assessment:
    """From a CSV: header ``map,<reference classes...>,mapped_area_ha``, a row per mapped class.

    Rows may stand in any order. A reference class without a row is not mapped anywhere.

    Raises:
        SceneError: if it does not look so.
    """
    rows = _rows(Path(path))
    names = rows[0][1:-1]
    table: dict[str, list[float]] = {}
    for row in rows[1:]:
        if row[0] in table:
            raise SceneError(f"{path} must have one row for each mapped class, {row[0]} has two")
        if row[0] not in names:
            raise SceneError(
                f"{path} must have a column for each mapped class, {row[0]!r} has none among "
                f"{', '.join(names)}"
            )
        table[row[0]] = _numbers(path, row, len(names) + 1)
    numbers = np.array([table.get(name, [0.0] * (len(names) + 1)) for name in names])
    counts, mapped = numbers[:, :-1], numbers[:, -1]
    found = from_matrix(counts, mapped, names)
    return Assessment(tuple(names), tuple(mapped.tolist()), found, counts.astype(np.int64))


def _rows(path: Path) -> list[list[str]]:
    try:
        lines = io.StringIO(read_file(path).decode("utf-8-sig"), newline="")
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SceneError(f"cannot read {path}: {error}") from error
    rows = [row for row in rows if any(row)]
    if len(rows) < 2 or len(rows[0]) < 3 or (rows[0][0], rows[0][-1]) != ("map", "mapped_area_ha"):
        raise SceneError(
            f"{path} must begin with map,<reference classes...>,mapped_area_ha and have a row for "
            "each mapped class"
        )
    names = rows[0][1:-1]
    if len(set(names)) < len(names) or not all(names):
        raise SceneError(f"{path} must name each reference class once, got {', '.join(names)}")
    return rows


def _numbers(path: str | Path, row: list[str], length: int) -> list[float]:
    """Counts and area of one row."""
    try:
        numbers = [float(cell) for cell in row[1:]]
    except ValueError as error:
        raise SceneError(
            f"{path} must hold numbers, in the row {row[0]} it has not: {error}"
        ) from error
    if len(numbers) != length:
        raise SceneError(
            f"{path} must have {length} numbers in each row, {row[0]} has {len(numbers)}"
        )
    if not all(number >= 0 and number.is_integer() for number in numbers[:-1]):
        raise SceneError(f"{path} must have whole numbers of sampled units, see the row {row[0]}")
    return numbers


# --- a labelled sample -------------------------------------------------------------------------


def assess_sample(
    sample: str | Path, class_map: str | Path, ignore_unlabelled: bool = False
) -> Assessment:
    """From a sample of ``tilemap sample`` whose column ``reference`` has been filled in.

    The strata are those it was drawn from, as its layer ``design`` tells; the mapped class of each
    point is read from the map, which may be another one than it was drawn from.

    Args:
        sample: GeoPackage; references are names of the map's classes, or their numbers.
        class_map: the map that is assessed, or the directory of a run.
        ignore_unlabelled: leave out units without a reference, instead of refusing.

    Raises:
        SceneError: if units have no reference or one that is no class, or do not lie on the map.
    """
    file, opened = read_sample_file(Path(sample)), open_map(class_map)
    if missing := [name for name in ("stratum", ANSWER) if name not in file.points]:
        raise SceneError(f"{sample} must have the column {missing[0]} that `tilemap sample` wrote")
    ids = file.points.get("id", np.arange(1, file.x.size + 1))
    answers = [_text(value) for value in file.points[ANSWER]]
    keep = np.array([bool(text) for text in answers])
    _check_labelled(keep, str(sample), ignore_unlabelled)
    stratum = _whole(file.points["stratum"], "stratum")
    mapped = _mapped(file, opened, ids)
    strata, counted, notes = _strata(file, opened, stratum, mapped, ids)
    reference = _references([text for text in answers if text], opened, counted)
    known = all(math.isfinite(s.area_ha) for s in strata)
    design = Strata(
        np.array([s.area_ha if known else s.pixels for s in strata], dtype=np.float64),
        np.array([s.pixels for s in strata], dtype=np.float64),
        tuple(s.name for s in strata),
    )
    used = sorted({s.value for s in counted} | set(reference.tolist()))
    h = _places(stratum[keep], [s.value for s in strata])
    m, r = _places(mapped[keep], used), _places(reference, used)
    found = from_units(h, m, r, design, _sizes(file, keep) if known else None, len(used))
    if not known:
        unknown = np.full(len(used), math.nan)
        found = replace(found, area=unknown, area_se=unknown)
        notes.append("The map has no place on Earth: shares are of its pixels.")
    counts = np.zeros((len(used), len(used)), dtype=np.int64)
    np.add.at(counts, (m, r), 1)
    areas = {s.value: s.area_ha for s in counted}
    return Assessment(
        tuple(opened.name(value) for value in used),
        tuple(areas.get(value, 0.0 if known else math.nan) for value in used),
        found, counts, int((~keep).sum()), tuple(notes),
    )  # fmt: skip


def _places(values: IntArray, among: Sequence[int]) -> IntArray:
    """Where each value stands in a list that has them all."""
    place = {value: number for number, value in enumerate(among)}
    return np.array([place[value] for value in values.tolist()], dtype=np.int64)


def _check_labelled(keep: npt.NDArray[np.bool_], sample: str, ignore: bool) -> None:
    if not keep.any():
        raise SceneError(f"{sample} must be labelled: fill in the column {ANSWER} of its points")
    if not keep.all() and not ignore:
        raise SceneError(
            f"{np.count_nonzero(~keep)} of {keep.size} units of {sample} have no {ANSWER}; label "
            "them, or leave them out with `ignore_unlabelled`"
        )


def _mapped(file: SampleFile, opened: ClassMap, ids: npt.NDArray[Any]) -> IntArray:
    """Number of the map below each point, int64 (n,).

    Raises:
        SceneError: if there is none.
    """
    x, y = file.x, file.y
    here, there = file.crs, opened.geobox.crs
    if here is not None and there is not None and not same_crs(here, there):
        x, y = Transformer.from_crs(here.to_wkt(), there.to_wkt(), always_xy=True).transform(x, y)
    inverse = ~opened.geobox.affine
    col, row = apply(inverse, x, y)
    nowhere = ~(np.isfinite(col) & np.isfinite(row))
    row, col = (np.floor(np.where(nowhere, -1, v)).astype(np.int64) for v in (row, col))
    mapped = opened.at(row, col)
    if (mapped < 0).any():
        raise SceneError(
            f"every point must lie on an observed pixel of {opened.file}, beside it: "
            f"{_listed(ids[mapped < 0])}"
        )
    if file.about.get("map_digest") == opened.digest() and {"row", "col"} <= file.points.keys():
        moved = (file.points["row"] != row) | (file.points["col"] != col)
        if moved.any():
            raise SceneError(
                f"points must lie where they were drawn, moved: {_listed(ids[moved])}; sample the "
                "map again with the same seed to see where"
            )
    return mapped


def _strata(
    file: SampleFile, opened: ClassMap, stratum: IntArray, mapped: IntArray, ids: npt.NDArray[Any]
) -> tuple[Sequence[Stratum], Sequence[Stratum], list[str]]:
    """What was sampled, what the map has, and notes on it."""
    same = file.about.get("map_digest") == opened.digest()
    counted: Sequence[Stratum] = ()
    if not (same and file.design):
        counted = census(opened).strata
    if not file.design:
        if (odd := stratum != mapped).any():
            raise SceneError(
                "a sample without its layer design must be of this map, but the strata of "
                f"{_listed(ids[odd])} are not its classes there"
            )
        return counted, counted, []
    strata = _designed(file)
    if odd_ := sorted(set(stratum.tolist()) - {s.value for s in strata}):
        raise SceneError(f"the layer design must have every stratum, it lacks {odd_[0]}")
    if same:
        return strata, strata, []
    text = f"{file.about.get('map', 'another map')}, the map is {opened.file}"
    return strata, counted, [f"The strata are of {text}."]


def _designed(file: SampleFile) -> list[Stratum]:
    columns = [file.design.get(key) for key in ("stratum", "name", "pixels", "area_ha")]
    if any(column is None for column in columns):
        raise SceneError("the layer design must have stratum, name, pixels and area_ha")
    return [
        Stratum(int(value), str(name), int(pixels), float(area))
        for value, name, pixels, area in zip(*columns, strict=True)
    ]


def _references(answers: Sequence[str], opened: ClassMap, counted: Sequence[Stratum]) -> IntArray:
    """Numbers of the classes that were written down.

    Raises:
        SceneError: naming those that are none.
    """
    classes = {**{s.value: s.name for s in counted}, **opened.classes}
    meant = {written(value): value for value in classes}
    names = [written(name) for name in classes.values()]
    meant |= {n: v for n, v in zip(names, classes, strict=True) if names.count(n) == 1}
    if unknown := sorted({text for text in answers if written(text) not in meant}):
        raise SceneError(
            f"a {ANSWER} must be one of {', '.join(classes.values())}, or its number, got "
            f"{', '.join(map(repr, unknown[:_SHOWN]))}"
        )
    return np.array([meant[written(text)] for text in answers], dtype=np.int64)


def _sizes(file: SampleFile, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64] | None:
    """Areas of the labelled pixels; None where they are not told."""
    column = file.points.get("pixel_ha")
    if column is None:
        return None
    sizes = np.asarray(column, dtype=np.float64)[keep]
    return sizes if np.isfinite(sizes).all() and (sizes > 0).all() else None


def _whole(column: npt.NDArray[Any], name: str) -> IntArray:
    try:
        numbers = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SceneError(f"the column {name} must hold whole numbers: {error}") from error
    if not (np.isfinite(numbers) & (numbers == np.floor(numbers))).all():
        raise SceneError(f"the column {name} must hold whole numbers, some are not")
    return numbers.astype(np.int64)


def _listed(ids: npt.NDArray[Any]) -> str:
    shown = ", ".join(str(one) for one in ids[:_SHOWN])
    return f"{'point' if len(ids) == 1 else 'points'} {shown}" + (
        " ..." if len(ids) > _SHOWN else ""
    )


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
