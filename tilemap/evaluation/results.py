"""Figures from counts, and the files that tell them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import OutputError
from tilemap.evaluation.boundary import Tolerance, boundary_scores
from tilemap.evaluation.calibration import Calibration, calibration
from tilemap.evaluation.classes import MapClass
from tilemap.evaluation.metrics import Scores, scores
from tilemap.evaluation.tally import Tally
from tilemap.evaluation.trained_blocks import left_note
from tilemap.files import system_error
from tilemap.report.evaluation_report import write_evaluation_report
from tilemap.stores.sidecars import write_text

SAMPLE_NOTE = (
    "These figures describe the reference's {pixels} pixels only; unless those are a probability "
    "sample of the map, they are no estimate of the accuracy of the whole map."
)
PER_CLASS = (
    "value", "name", "reference_pixels", "map_pixels", "iou", "precision", "recall", "f1",
    "boundary_precision", "boundary_recall", "boundary_f1",
)  # fmt: skip
OVERALL = ("pixels", "overall_accuracy", "miou", "macro_f1", "fwiou", "kappa")
FILES = ("evaluation.json", "evaluation.csv", "regions.csv", "confusion.csv", "evaluation.html")


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Args:
        record: contents of ``evaluation.json``; ``record["figures"]`` holds every figure.
        out: directory of the files; None if none were asked for.
    """

    record: dict[str, Any]
    out: Path | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """Every figure, the same for the same input however it was counted."""
        figures: dict[str, Any] = self.record["figures"]
        return figures


def figures_of(
    tally: Tally,
    classes: Sequence[MapClass],
    tolerance: Tolerance,
    region_names: Sequence[str] = (),
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All figures of a tally as plain JSON; what cannot be told is None.

    Args:
        tally: of the whole map.
        classes: of the map.
        tolerance: of the boundaries.
        region_names: by number.
        training: from ``blocks_record``; None if the model does not say where it was trained.
    """
    all_scores, borders = scores(tally.matrix), boundary_scores(tally.boundary)
    return {
        **_overall(all_scores),
        "reference_pixels": tally.reference,
        "training_blocks": training,
        "boundary": {
            "mean_f1": borders.mean_f1,
            "tolerance": tolerance.distance,
            "pixel": list(tolerance.pixel),
        },
        "calibration": _reliability(calibration(tally.confidence)),
        "classes": [
            {
                "value": c.value,
                "name": c.name,
                "color": c.color,
                "reference_pixels": int(all_scores.support[i]),
                "map_pixels": int(all_scores.predicted[i]),
                **{key: _told(getattr(all_scores, key), all_scores.present, i)
                   for key in ("iou", "precision", "recall", "f1")},
                **{f"boundary_{key}": _told(getattr(borders, key), borders.present, i)
                   for key in ("precision", "recall", "f1")},
            }
            for i, c in enumerate(classes)
        ],
        "confusion": tally.matrix.tolist(),
        "regions": [
            _region(name, tally.regions.get(number)) for number, name in enumerate(region_names)
        ],
    }  # fmt: skip


def _reliability(found: Calibration) -> dict[str, Any] | None:
    if found.ece is None:
        return None
    columns = {
        "low": found.edges[:-1], "high": found.edges[1:], "pixels": found.pixels,
        "confidence": found.confidence, "accuracy": found.accuracy,
    }  # fmt: skip
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return {
        "ece": found.ece,
        "mce": found.mce,
        "pixels": int(found.pixels.sum()),
        "bins": [dict(zip(columns, row, strict=True)) for row in rows],
    }


def _overall(found: Scores) -> dict[str, Any]:
    return {key: getattr(found, key) for key in OVERALL}


def _told(
    values: npt.NDArray[np.float64], present: npt.NDArray[np.bool_], index: int
) -> float | None:
    return float(values[index]) if present[index] else None


def _region(name: str, matrix: npt.NDArray[np.int64] | None) -> dict[str, Any]:
    if matrix is None or not matrix.any():
        return {"name": name, **dict.fromkeys(OVERALL, None), "pixels": 0, "confusion": None}
    return {"name": name, **_overall(scores(matrix)), "confusion": matrix.tolist()}


def notes_of(figures: dict[str, Any], before: Sequence[str]) -> list[str]:
    """What a reader should know, the most important first."""
    notes = [SAMPLE_NOTE.format(pixels=f"{figures['pixels']:,}")]
    notes += [*left_note(figures["training_blocks"]), *before]
    lost = figures["reference_pixels"] - figures["pixels"]
    if lost:
        notes.append(f"{lost:,} pixels of the reference have no class in the map: left out.")
    absent = [c["name"] for c in figures["classes"] if c["iou"] is None]
    if absent:
        notes.append(f"Neither map nor reference show {', '.join(absent)}: left out of the means.")
    empty = [r["name"] for r in figures["regions"] if not r["pixels"]]
    if empty:
        notes.append(f"No pixel was compared in {len(empty)} regions, such as {empty[0]}.")
    if figures["calibration"] is not None:
        notes.append(
            "Calibration is of the confidence as stored, in whole percent, in 15 bins of equal "
            "width."
        )
    return notes


def check_out(out: Path) -> None:
    """Refuse a place where no directory can be, before anything is counted.

    Raises:
        OutputError: if it, or a parent of it, is a file.
    """
    for place in (out, *out.parents):
        if place.is_dir():
            return
        if place.exists() or place.is_symlink():
            raise OutputError(f"`out` must be a directory, {place} is not; choose another one")


def write_files(out: Path, record: dict[str, Any], picture: bytes) -> None:
    """Write all files of an evaluation, each whole or not at all; those of an earlier one go.

    Args:
        out: directory; made if it is not there.
        record: contents of ``evaluation.json``, which is written last.
        picture: the error map, PNG.

    Raises:
        OutputError: if the directory cannot be made or written.
        StoreError: if a file cannot be written.
    """
    figures = record["figures"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in reversed(FILES):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise system_error(f"cannot write into {out}", error, out, OutputError) from error
    names = [c["name"] for c in figures["classes"]]
    write_text(out / "evaluation.csv", _table(PER_CLASS, figures["classes"]))
    rows = [
        {"reference": name, **dict(zip(names, row, strict=True))}
        for name, row in zip(names, figures["confusion"], strict=True)
    ]
    write_text(out / "confusion.csv", _table(("reference", *names), rows))
    if figures["regions"]:
        write_text(out / "regions.csv", _table(("name", *OVERALL), figures["regions"]))
    write_evaluation_report(out / "evaluation.html", record, picture)
    write_text(out / "evaluation.json", json.dumps(record, indent=2) + "\n")


def _table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """CSV; a figure that cannot be told is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
