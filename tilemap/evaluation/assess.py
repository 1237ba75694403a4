"""From a labelled sample, or a table of counts, to accuracies and areas with their intervals."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilemap.errors import SceneError
from tilemap.evaluation.estimation import Z95, Estimates, from_matrix, from_units
from tilemap.evaluation.sampling import LAYER, Stratum, read_names, strata_of
from tilemap.stores.vectors import read_features


@dataclass(frozen=True)
class Assessment:
    """What a sample says of a map.

    Args:
        names: of the classes.
        mapped_ha: area of each as mapped; NaN where it is not known.
        estimates: accuracies; areas in hectares.
        units: sampled, with a reference.
        left_out: sampled, without one.
    """

    names: tuple[str, ...]
    mapped_ha: tuple[float, ...]
    estimates: Estimates
    units: int
    left_out: int = 0

    def record(self) -> dict[str, Any]:
        """As JSON; what is not known is null."""
        e = self.estimates
        return {
            "overall_accuracy": _known(e.overall),
            "overall_accuracy_ci": _known(Z95 * e.overall_se),
            "units": self.units,
            "units_left_out": self.left_out,
            "confidence": 0.95,
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
        }


def assess_matrix(path: str | Path) -> Assessment:
    """From a CSV: header ``map,<reference classes...>,mapped_area_ha``, a row per mapped class.

    Raises:
        SceneError: if it does not look so.
    """
    try:
        with Path(path).open(newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(f"cannot read {path}: {error}") from error
    if len(rows) < 3 or rows[0][0] != "map" or rows[0][-1] != "mapped_area_ha":
        raise SceneError(
            f"{path} must begin with map,<reference classes...>,mapped_area_ha and have a row for "
            "each class"
        )
    names, table = rows[0][1:-1], {row[0]: row[1:] for row in rows[1:]}
    if sorted(table) != sorted(names) or len(rows) - 1 != len(names):
        raise SceneError(
            f"{path} must have one row for each of {', '.join(names)}, got {', '.join(table)}"
        )
    try:
        numbers = np.array([[float(cell) for cell in table[name]] for name in names])
    except ValueError as error:
        raise SceneError(f"{path} must hold numbers, {len(names) + 1} in a row: {error}") from error
    if numbers.shape != (len(names), len(names) + 1):
        raise SceneError(f"{path} must have {len(names) + 1} numbers in each row")
    counts, mapped = numbers[:, :-1], numbers[:, -1]
    found = from_matrix(counts, mapped)
    return Assessment(tuple(names), tuple(mapped.tolist()), found, int(counts.sum()))


def assess_sample(
    sample: str | Path, class_map: str | Path, ignore_unlabelled: bool = False
) -> Assessment:
    """From a sample of ``tilemap sample`` whose column ``reference`` has been filled in.

    Args:
        sample: GeoPackage; references are names of the map's classes, or their numbers.
        class_map: the map it was drawn from.
        ignore_unlabelled: leave out units without a reference, instead of refusing.

    Raises:
        SceneError: if units have no reference, one that is no class, or strata the map has not.
    """
    features = read_features(sample, LAYER)
    strata, names = strata_of(class_map), read_names(str(class_map))
    known = {**{s.value: s.name for s in strata}, **names}
    stratum = np.array(features.column("stratum"), dtype=np.int64)
    said = [_text(value) for value in features.column("reference")]
    blank = [not text for text in said]
    if all(blank):
        raise SceneError(f"{sample} must be labelled: fill in the column reference of its points")
    if any(blank) and not ignore_unlabelled:
        raise SceneError(
            f"{sum(blank)} of {len(said)} units of {sample} have no reference; label them, or "
            "leave them out with --ignore-unlabelled"
        )
    values = {name: value for value, name in known.items()}
    reference = []
    for text in said:
        value = values.get(text, int(text) if text.isdigit() else -1)
        if text and value not in known:
            raise SceneError(
                f"a reference must be one of {', '.join(known.values())}, got {text!r}"
            )
        reference.append(value)
    places = {s.value: n for n, s in enumerate(strata)}
    if odd := sorted(set(stratum.tolist()) - set(places)):
        raise SceneError(f"{class_map} must be the map of the sample, it has no class {odd[0]}")
    keep = ~np.array(blank)
    return _assessed(strata, stratum[keep], np.array(reference)[keep], known, int(sum(blank)))


def _assessed(
    strata: tuple[Stratum, ...],
    mapped: Any,
    reference: Any,
    known: dict[int, str],
    left_out: int,
) -> Assessment:
    used = sorted({s.value for s in strata} | set(reference.tolist()))
    place = {value: n for n, value in enumerate(used)}
    rows = {s.value: n for n, s in enumerate(strata)}
    units = from_units(
        [rows[v] for v in mapped.tolist()], [place[v] for v in mapped.tolist()],
        [place[v] for v in reference.tolist()], [s.pixels for s in strata],
    )  # fmt: skip
    areas = {s.value: s.area_ha for s in strata}
    counts = np.zeros((len(used), len(used)))
    np.add.at(
        counts,
        ([place[v] for v in mapped.tolist()], [place[v] for v in reference.tolist()]),
        1,
    )
    mapped_ha = [areas.get(value, 0.0) for value in used]
    if all(math.isfinite(area) for area in mapped_ha):
        units = from_matrix(counts, mapped_ha)  # true areas; the strata are the classes
    else:
        units = _without_areas(units)
    names = tuple(known[value] for value in used)
    return Assessment(names, tuple(mapped_ha), units, len(mapped), left_out)


def _without_areas(found: Estimates) -> Estimates:
    from dataclasses import replace

    unknown = np.full(len(found.share), math.nan)
    return replace(found, area=unknown, area_se=unknown)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return (
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    )


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
