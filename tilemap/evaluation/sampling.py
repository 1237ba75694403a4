"""A seeded stratified random sample of a map's pixels, drawn without holding the map.

Two passes, tile by tile: the first counts the pixels of each class in each row, the second looks up
those pixels whose ranks, in raster order within their class, were drawn. So the sample depends on
the map and the seed alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import UsageError
from tilemap.evaluation.census import CORE, Census, ClassMap, Stratum, census, open_map, pixel_ha
from tilemap.evaluation.sample_size import FORMULA, allocate, sample_size
from tilemap.stores.grids import apply
from tilemap.stores.sample_points import SampleFile, check_free, write_sample_file

EXPECTED = 0.85
LEAST = 50

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """How many units of each stratum, and why.

    Args:
        per_stratum: of each, 2 or more; or None, then ``standard_error`` says it.
        standard_error: of the overall accuracy.
        expected: user's accuracy that is expected, of each class.
        expected_of: of single classes instead, by name or number.
        least: of each stratum, 2 or more, with ``standard_error``.
        seed: of the draw, 0 or more.

    Raises:
        UsageError: if one of them cannot hold.
    """

    per_stratum: int | None = None
    standard_error: float | None = None
    expected: float = EXPECTED
    expected_of: tuple[tuple[str, float], ...] = ()
    least: int = LEAST
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.per_stratum is None) == (self.standard_error is None):
            raise UsageError("give either `per_stratum` or `standard_error`")
        least = self.least if self.per_stratum is None else self.per_stratum
        if least < 2:
            raise UsageError(
                f"a sample needs two units of each stratum or more, got {least}: one tells nothing "
                "of the spread"
            )
        if self.standard_error is not None and not 0 < self.standard_error < 0.5:
            raise UsageError(
                f"`standard_error` must lie between 0 and 0.5, got {self.standard_error:g}"
            )
        for accuracy in (self.expected, *(number for _, number in self.expected_of)):
            if not 0 < accuracy < 1:
                raise UsageError(
                    f"`expected_accuracy` must be above 0 and below 1, got {accuracy:g}"
                )
        if self.seed < 0:
            raise UsageError(f"`seed` must be 0 or more, got {self.seed}")

    def accuracies(self, strata: Sequence[Stratum]) -> list[float]:
        """User's accuracy that is expected of each stratum.

        Raises:
            UsageError: if a class is named that does not occur.
        """
        accuracies = [self.expected] * len(strata)
        for key, accuracy in self.expected_of:
            meant = [i for i, s in enumerate(strata) if key in (s.name, str(s.value))]
            if not meant:
                known = ", ".join(s.name for s in strata)
                raise UsageError(
                    f"`expected_accuracy` must name a class of the map ({known}), got {key!r}"
                )
            for index in meant:
                accuracies[index] = accuracy
        return accuracies

    def needed(self, strata: Sequence[Stratum]) -> int | None:
        """Units in all that the formula asks for; None where it was not asked."""
        if self.standard_error is None:
            return None
        pixels = np.array([s.pixels for s in strata], dtype=np.float64)
        return sample_size(pixels / pixels.sum(), self.accuracies(strata), self.standard_error)

    def units(self, strata: Sequence[Stratum]) -> list[int]:
        """Of each stratum, never more than it has."""
        sizes, needed = [s.pixels for s in strata], self.needed(strata)
        if needed is not None:
            return allocate(sizes, needed, self.least)
        assert self.per_stratum is not None
        return [min(self.per_stratum, size) for size in sizes]


@dataclass(frozen=True)
class Drawn:
    """A sample.

    Args:
        strata: of the map, by ascending number.
        units: drawn of each.
        needed: units in all that the size formula asks for; None where it was not asked.
        stratum: number of each unit's stratum, 0..H - 1, int64 (n,), in random order.
        row: of each unit, int64 (n,).
        col: likewise.
    """

    strata: tuple[Stratum, ...]
    units: tuple[int, ...]
    needed: int | None
    stratum: IntArray
    row: IntArray
    col: IntArray


def draw(class_map: ClassMap, counted: Census, plan: Plan) -> Drawn:
    """Draw pixels of each stratum with equal chances, without replacement.

    Args:
        class_map: the map.
        counted: its pixels.
        plan: how many of each.

    Returns:
        The same for the same map, plan and seed; a stratum's do not depend on the others.
    """
    units = plan.units(counted.strata)
    picked: list[IntArray] = []
    for number, (stratum, count) in enumerate(zip(counted.strata, units, strict=True)):
        random = np.random.default_rng([plan.seed, stratum.value])
        rank = np.sort(random.choice(stratum.pixels, count, replace=False)).astype(np.int64)
        until = np.cumsum(counted.in_row[number], dtype=np.int64)
        row = np.searchsorted(until, rank, side="right")
        before = until[row] - counted.in_row[number][row]
        picked.append(np.stack([np.full(count, number), row, rank - before], axis=1))
    wanted = np.concatenate(picked)
    wanted[:, 2] = _columns(class_map, counted.strata, wanted)
    # in an order that does not tell the interpreter what the map says
    wanted = wanted[np.random.default_rng([plan.seed, 256]).permutation(len(wanted))]
    return Drawn(
        counted.strata, tuple(units), plan.needed(counted.strata),
        wanted[:, 0], wanted[:, 1], wanted[:, 2],
    )  # fmt: skip


def _columns(class_map: ClassMap, strata: Sequence[Stratum], wanted: IntArray) -> IntArray:
    """Columns of the pixels that are the n-th of their stratum in a row; rows (stratum, row, n)."""
    in_row: dict[int, list[int]] = defaultdict(list)
    for unit, row in enumerate(wanted[:, 1].tolist()):
        in_row[row].append(unit)
    passed = np.zeros(len(wanted), dtype=np.int64)
    found = np.full(len(wanted), -1, dtype=np.int64)
    only = np.unique(wanted[:, 1] // CORE).tolist()
    for window, image, valid in class_map.tiles(only):
        for row in range(window.top, window.bottom):
            for unit in in_row.get(row, ()):
                if found[unit] >= 0:
                    continue
                line = row - window.top
                same = valid[line] & (image[line] == strata[wanted[unit, 0]].value)
                here, rest = np.count_nonzero(same), wanted[unit, 2] - passed[unit]
                if rest < here:
                    found[unit] = window.left + np.flatnonzero(same)[rest]
                passed[unit] += here
    return found


def sample_map(path: str | Path, out: Path, plan: Plan) -> Drawn:
    """Draw a sample of a map and write it to be labelled.

    Args:
        path: the map, or the directory of a run.
        out: GeoPackage that is not there yet.
        plan: how many units of each stratum.

    Raises:
        OutputError: if the file exists: labels may be in it.
        SceneError: if it is no map of classes.
        UsageError: if the plan does not fit the map.
    """
    check_free(out)
    class_map = open_map(path)
    counted = census(class_map)
    drawn = draw(class_map, counted, plan)
    write_sample_file(out, _file(class_map, drawn, plan), list(class_map.classes.values()))
    return drawn


def _file(class_map: ClassMap, drawn: Drawn, plan: Plan) -> SampleFile:
    x, y = apply(class_map.geobox.affine, drawn.col + 0.5, drawn.row + 0.5)
    strata = drawn.strata
    value = np.array([s.value for s in strata], dtype=np.int64)
    name = np.array([s.name for s in strata], dtype=object)
    points: dict[str, npt.NDArray[Any]] = {
        "id": np.arange(1, drawn.row.size + 1),
        "row": drawn.row,
        "col": drawn.col,
        "pixel_ha": pixel_ha(class_map.geobox, drawn.row, drawn.col),
        "stratum": value[drawn.stratum],
        "stratum_name": name[drawn.stratum],
    }
    design: dict[str, npt.NDArray[Any]] = {
        "stratum": value,
        "name": name,
        "pixels": np.array([s.pixels for s in strata], dtype=np.int64),
        "area_ha": np.array([s.area_ha for s in strata]),
        "units": np.array(drawn.units, dtype=np.int64),
    }
    about: dict[str, Any] = {
        "map": class_map.file, "map_digest": class_map.digest(),
        "seed": plan.seed, "per_stratum": plan.per_stratum,
    }  # fmt: skip
    if plan.standard_error is not None:
        design["expected_accuracy"] = np.array(plan.accuracies(strata))
        about |= {
            "standard_error": plan.standard_error, "formula": FORMULA, "needed": drawn.needed,
            "least": plan.least,
        }  # fmt: skip
    return SampleFile(points, np.asarray(x), np.asarray(y), class_map.geobox.crs, design, about)
