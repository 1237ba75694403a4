"""Nights with a real model on small scenes: what is corrected or mended is done again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from tests.integration.toy import BANDS, cluster, make_toy
from tilemap import api, worker
from tilemap.errors import StoreError
from tilemap.nightly.config import parse_config
from tilemap.nightly.doing import PassCluster
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.passing import run_pass
from tilemap.nightly.request import PassRequest
from tilemap.testing import write_geotiff

LONG_AGO = 1_600_000_000
SHAPE = (64, 256)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker in this process."""
    with cluster() as opened:
        yield opened


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class of the largest band."""
    return make_toy(tmp_path_factory.mktemp("models") / "toy")


class Root:
    """A folder of two scenes, five years apart, and nights over them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        for largest, year in enumerate((2010, 2015)):
            self.bring(year, largest)

    def bring(self, year: int, largest: int) -> Path:
        """A scene arrives, long ago."""
        image = np.full((3, *SHAPE), 500, np.uint16)
        image[largest] = 3000
        path = self.folder / "in" / f"s{year}0701.tif"
        path.parent.mkdir(exist_ok=True)
        write_geotiff(path, image, names=BANDS, scale=1e-4)
        os.utime(path, (LONG_AGO, LONG_AGO))
        return path

    def mask(self, year: int, hidden: bool) -> None:
        """A mask of all or nothing; its size and its time are always the same."""
        path = self.folder / "masks" / f"s{year}0701.tif"
        path.parent.mkdir(exist_ok=True)
        write_geotiff(path, np.full((1, *SHAPE), int(hidden), np.uint8))
        os.utime(path, (LONG_AGO, LONG_AGO))

    def night(self, **change: Any) -> PassOutcome:
        """One pass."""
        table = {
            "nightly": {"root": "out"},
            "model": str(self.model),
            "segment": {"core": 64, "halo": 0, "blend": 0},
            "change": {"mmu_ha": 0.0, **change},
            "areas": [{"name": "a", "scenes": ["in"]}],
        }
        return run_pass(PassRequest(parse_config(table, self.folder), "nightly.toml"))


@pytest.fixture
def root(tmp_path: Path, model: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A root whose passes run on the worker of this process."""
    monkeypatch.setattr(PassCluster, "client", lambda _: client)
    return Root(tmp_path, model)


def _did(outcome: PassOutcome) -> list[tuple[str, str]]:
    return [(done.kind, done.status) for done in outcome.done]


def _not_observed(root: Root, outcome: PassOutcome) -> float:
    import json

    (folder,) = (done.folder for done in outcome.done if done.kind == "change")
    path = root.folder / "out" / "products" / str(folder) / "run.json"
    return float(json.loads(path.read_text())["found"]["not_observed"])


def test_another_band_of_the_masks_is_another_comparison(root: Root) -> None:
    """One band hides all, the other nothing."""
    for year in (2010, 2015):
        planes = np.stack([np.full(SHAPE, hidden, np.uint8) for hidden in (0, 1)])
        (root.folder / "masks").mkdir(exist_ok=True)
        write_geotiff(root.folder / "masks" / f"s{year}0701.tif", planes, names=("snow", "cloud"))
    clear = root.night(mask="masks/{scene}.tif:snow", mask_rule="values:1")
    assert _not_observed(root, clear) == 0
    cloudy = root.night(mask="masks/{scene}.tif:2", mask_rule="values:1")
    assert _did(cloudy) == [("change", "ok")]
    assert _not_observed(root, cloudy) == 1


def test_a_corrected_mask_is_used_and_a_moved_one_is_the_same(root: Root) -> None:
    """Though its size and its time say nothing of it."""
    for year, hidden in ((2010, False), (2015, True)):
        root.mask(year, hidden)
    how = {"mask": "masks/{scene}.tif", "mask_rule": "values:1"}
    first = root.night(**how)
    assert _did(first) == [("map", "ok"), ("map", "ok"), ("change", "ok")]
    assert _not_observed(root, first) == 1
    root.mask(2015, False)
    second = root.night(**how)
    assert _did(second) == [("change", "ok")]
    assert _not_observed(root, second) == 0
    (root.folder / "masks").rename(root.folder / "clouds")
    assert _did(root.night(**{**how, "mask": "clouds/{scene}.tif"})) == []


def test_a_table_of_transitions_counts_by_content(root: Root) -> None:
    """Corrected in place it is another work; moved it is the same."""
    table, names = root.folder / "a.csv", ("soil", "grass", "wood")

    def write(stays: float) -> None:
        rows = [
            ",".join(str(stays if i == j else (1 - stays) / 2) for j in range(3)) for i in range(3)
        ]
        lines = [f"from,{','.join(names)}"]
        lines += [f"{name},{row}" for name, row in zip(names, rows, strict=True)]
        table.write_text("\n".join(lines) + "\n")
        os.utime(table, (LONG_AGO, LONG_AGO))

    write(0.8)
    assert ("change", "ok") in _did(root.night(transitions="a.csv"))
    table = table.rename(root.folder / "b.csv")
    assert _did(root.night(transitions="b.csv")) == []
    write(0.6)
    assert _did(root.night(transitions="b.csv")) == [("change", "ok")]


def test_a_mended_map_has_its_series_compared_again(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The series of a partial map is partial and says so; the night that mends it redoes both."""
    real, broken = worker.read_patch, [True]

    def read_patch(reader: Any, window: Any) -> Any:
        if broken[0] and "2015" in reader.scene.name and window.left >= 192:
            raise StoreError("Input/output error")
        return real(reader, window)

    monkeypatch.setattr(worker, "read_patch", read_patch)
    first = root.night()
    assert _did(first) == [("map", "ok"), ("map", "partial"), ("change", "partial")]
    assert first.exit_code == 3
    assert first.done[-1].error == "tiles are missing of 2015-07-01"
    assert _not_observed(root, first) == 0.25
    broken[0] = False
    second = root.night()
    assert _did(second) == [("map", "ok"), ("change", "ok")]
    assert _not_observed(root, second) == 0
    assert _did(root.night()) == []


def test_a_scene_that_changes_during_the_night_waits_for_the_next(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found as one, planned as another: no product says it is of the first; none is set aside."""
    real, changing = api.plan, [True]

    def plan(scenes: Any, **options: Any) -> Any:
        if changing[0] and "2015" in str(scenes):
            root.bring(2015, 2)
            os.utime(root.folder / "in" / "s20150701.tif", (LONG_AGO + 9, LONG_AGO + 9))
            changing[0] = False
        return real(scenes, **options)

    monkeypatch.setattr(api, "plan", plan)
    first = root.night()
    assert _did(first) == [("map", "ok"), ("map", "failed")]
    assert "s20150701.tif must stay as it was found" in str(first.done[1].error)
    assert not first.quarantined
    assert _did(root.night()) == [("map", "ok"), ("change", "ok")]
