"""The page of an evaluation: nothing breaks out of it, and the error map shows the errors."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rasterio.io import MemoryFile

from tilemap.geometry import Window
from tilemap.report.accuracy_charts import heat_map, reliability
from tilemap.report.evaluation_report import AGREE, DISAGREE, error_map, render_evaluation
from tilemap.report.quicklook import BACKGROUND

NASTY = "a <b>\"&' name"


def record(classes: int, calibrated: bool) -> dict[str, Any]:
    """A record as an evaluation makes it, of made-up figures and nasty names."""
    known = ("precision", "recall", "f1")
    shares = ("iou", *known, *(f"boundary_{key}" for key in known))
    file = {"name": NASTY, "bytes": 9, "sha256": "0", "of": "all"}
    row = {"value": 1, "name": NASTY, "color": "#123456", "reference_pixels": 5, "map_pixels": 6}
    bins = [{"low": 0.0, "high": 1.0, "pixels": 9, "confidence": 0.8, "accuracy": 0.7}]
    overall = {"overall_accuracy": 0.5, "miou": 0.4, "macro_f1": 0.3, "fwiou": 0.4, "kappa": 0.1}
    return {
        "figures": {
            **overall, "pixels": 9, "reference_pixels": 9,
            "boundary": {"mean_f1": 0.5, "tolerance": 2.0, "pixel": [1.0, 1.0]},
            "calibration": {"ece": 0.1, "mce": 0.1, "pixels": 9, "bins": bins}
            if calibrated else None,
            "classes": [row | dict.fromkeys(shares, 0.5 if i else None) for i in range(classes)],
            "confusion": np.eye(classes, dtype=int).tolist(),
            "regions": [{"name": NASTY, "pixels": 0, **dict.fromkeys(overall, None)}],
        },
        "warnings": [NASTY],
        "notes": [NASTY, NASTY],
        "inputs": {"map": file, "reference": file},
        "settings": {"column": NASTY, "layer": None}, "versions": {"python": "3"},
        "finished": "2024-01-01",
    }  # fmt: skip


@pytest.mark.parametrize(("classes", "charts"), [(1, 2), (16, 2), (17, 1)])
def test_names_stay_text_and_many_classes_fit(classes: int, charts: int) -> None:
    """No name becomes markup; more than 16 classes have their matrix in the CSV only."""
    page = render_evaluation(record(classes, calibrated=True), b"")
    assert '<b>"' not in page.replace("&quot;", '"').replace(NASTY, "")
    assert NASTY not in page
    assert page.count("<svg") == charts
    assert "Calibration" not in render_evaluation(record(classes, calibrated=False), b"")


def test_charts_are_well_formed() -> None:
    """Each is XML by itself; the diagonal of a perfect map has the accent's full shade."""
    chart = ET.fromstring(heat_map(["x", NASTY], [[3, 0], [0, 0]]))
    fills = [cell.get("fill") for cell in chart.iter("rect")]
    assert fills == ["#2f6f8f", "#f7f7f7", "#f7f7f7", "#f7f7f7"]
    bins = record(1, True)["figures"]["calibration"]["bins"]
    assert len(list(ET.fromstring(reliability(bins)).iter("circle"))) == 1
    ET.fromstring(reliability([{**bins[0], "pixels": 0}]))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_error_map_shows_what_disagrees() -> None:
    """Disagreeing pixels in red, agreeing ones pale, the rest as background."""
    wrong = np.zeros((30, 47), dtype=np.uint8)
    wrong[4, 7] = 1
    seen = np.ones((30, 47), dtype=bool)
    seen[20:, :] = False

    def read(window: Window) -> Any:
        return wrong[window.slices()][None], seen[window.slices()]

    with MemoryFile(error_map(read, (30, 47))) as memory, memory.open() as file:
        picture = file.read()
    assert picture.shape == (3, 30, 47)
    assert tuple(picture[:, 4, 7]) == DISAGREE
    assert tuple(picture[:, 4, 8]) == AGREE
    assert tuple(picture[:, 25, 8]) == (BACKGROUND,) * 3
