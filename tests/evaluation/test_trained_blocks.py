"""A map says on which blocks its model was trained, and an evaluation says how many it counts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform as warp_points

import tilemap
from tilemap.cli.main import main
from tilemap.errors import SceneError, SceneMismatchError, UsageError
from tilemap.evaluation import evaluate as module
from tilemap.models.trained_on import TAG, TrainedArea, TrainedOn, TrainedScene
from tilemap.testing import write_geotiff

SHAPE = (70, 110)
GROUND = Affine(10, 0, 400_000, 0, -10, 4_100_000)
BLOCKS = "2tv-3tx2vt-"  # 3 x 4 blocks of 32 pixels, the last ones smaller
LETTERS = np.array([list("ttv-"), list("tttx"), list("vvt-")])


def scene(**changed: Any) -> TrainedScene:
    """The scene that the model was trained on."""
    fields: dict[str, Any] = {
        "crs": "EPSG:32618", "transform": tuple(GROUND)[:6], "shape": SHAPE, "block": 32,
        "blocks": BLOCKS,
    }  # fmt: skip
    return TrainedScene(**(fields | changed))


def letters() -> npt.NDArray[np.str_]:
    """What each pixel of the scene was for, by hand."""
    return LETTERS.repeat(32, axis=0).repeat(32, axis=1)[: SHAPE[0], : SHAPE[1]]


def write(path: Path, values: npt.NDArray[np.uint8], tag: str | None = None, **more: Any) -> Path:
    """A raster of two classes."""
    write_geotiff(path, values[None], nodata=0, **{"transform": GROUND, **more})
    with rasterio.open(path, "r+") as file:
        file.update_tags(CLASS_1="water", CLASS_2="trees")
        if tag is not None:
            file.update_tags(**{TAG: tag})
    return path


def said(*scenes: TrainedScene, labels: tuple[str, ...] = ()) -> str:
    """The tag of a map."""
    return TrainedOn(scenes=scenes, labels=labels).model_dump_json()


@pytest.fixture
def values() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A map and its reference, each with holes."""
    rng = np.random.default_rng(5)
    truth = rng.integers(1, 3, SHAPE).astype(np.uint8)
    found = np.where(rng.random(SHAPE) < 0.8, truth, 3 - truth).astype(np.uint8)
    truth[rng.random(SHAPE) < 0.2] = 0
    found[rng.random(SHAPE) < 0.1] = 0
    return found, truth


def shares(figures: dict[str, Any]) -> tuple[int, int]:
    """Pixels on training and on validation blocks."""
    told = figures["training_blocks"]
    return told["train"]["pixels"], told["validation"]["pixels"]


@pytest.mark.parametrize("core", [2048, 19])
def test_the_share_of_the_blocks_is_exact(
    values: Any, core: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the grid of the training, in one tile or many: as counted by hand."""
    monkeypatch.setattr(module, "FEW", 10**9)
    found, truth = values
    map_ = write(tmp_path / "map.tif", found, said(scene()))
    reference = write(tmp_path / "reference.tif", truth)
    got = tilemap.evaluate(map_, reference=reference, core=core, out=tmp_path / "out")
    both, part = (found > 0) & (truth > 0), letters()
    train, validation = (int((both & (part == letter)).sum()) for letter in "tv")
    assert got.figures["training_blocks"] == {
        "train": {"pixels": train, "share": train / both.sum(), "counted": True},
        "validation": {"pixels": validation, "share": validation / both.sum(), "counted": True},
    }
    (line,) = got.record["warnings"]
    assert line == (
        f"Of the {both.sum():,} pixels counted, {100 * train / both.sum():.1f} % are in the "
        f"model's training blocks and {100 * validation / both.sum():.1f} % are in the model's "
        "validation blocks, so the figures are likely to be too good. `leave_out` "
        "train,validation counts the others only."
    )
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (written["warnings"], written["figures"]) == (got.record["warnings"], got.figures)
    assert "in the model&#x27;s training blocks" in (tmp_path / "out/evaluation.html").read_text()


@pytest.mark.parametrize(
    ("leave_out", "letters_left"),
    [("train,validation", "x-"), (["train"], "vx-"), ("validation, validation", "tx-")],
)
def test_blocks_that_are_left_out_do_not_count(
    values: Any, leave_out: Any, letters_left: str, tmp_path: Path
) -> None:
    """Every figure is that of a reference without these pixels; the record says how many."""
    found, truth = values
    map_ = write(tmp_path / "map.tif", found, said(scene()))
    reference = write(tmp_path / "reference.tif", truth)
    got = tilemap.evaluate(map_, reference=reference, leave_out=leave_out, out=tmp_path / "out")
    kept = np.isin(letters(), list(letters_left))
    less = write(tmp_path / "less.tif", np.where(kept, truth, 0).astype(np.uint8))
    plain = tilemap.evaluate(write(tmp_path / "plain.tif", found), reference=less)
    both = (found > 0) & (truth > 0)
    assert plain.figures["training_blocks"] is None
    for name in set(plain.figures) - {"training_blocks"}:
        assert got.figures[name] == plain.figures[name], name
    for letter, part in (("t", "train"), ("v", "validation")):
        told = got.figures["training_blocks"][part]
        assert told["pixels"] == (both & (letters() == letter)).sum()
        assert told["share"] == told["pixels"] / both.sum()
        assert told["counted"] is (letter in letters_left)
    assert got.record["notes"][1].startswith("Left out: ")
    assert "Left out: " in (tmp_path / "out" / "evaluation.html").read_text()
    assert bool(got.record["warnings"]) is (letters_left != "x-")


def test_on_another_grid_each_pixel_takes_the_block_below_its_centre(tmp_path: Path) -> None:
    """Another CRS and pixel size, counted point by point."""
    shape, ground = (90, 80), Affine(0.00017, 0, -76.127, 0, -0.00009, 37.0425)
    ones = np.ones(shape, dtype=np.uint8)
    place: dict[str, Any] = {"crs": "EPSG:4326", "transform": ground}
    map_ = write(tmp_path / "map.tif", ones, said(scene()), **place)
    reference = write(tmp_path / "reference.tif", ones, **place)
    cols, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    x = ground.c + ground.a * cols.ravel()
    y = ground.f + ground.e * rows.ravel()
    east, north = warp_points("EPSG:4326", "EPSG:32618", x.tolist(), y.tolist())
    col = np.floor((np.array(east) - GROUND.c) / 10).astype(int)
    row = np.floor((GROUND.f - np.array(north)) / 10).astype(int)
    inside = (col >= 0) & (col < SHAPE[1]) & (row >= 0) & (row < SHAPE[0])
    assert 1000 < inside.sum() < inside.size  # part of the map is beside the scene
    found = letters()[row[inside], col[inside]]
    got = shares(tilemap.evaluate(map_, reference=reference).figures)
    # a lattice places centres to 0.02 pixels of the scene
    assert got == pytest.approx([(found == "t").sum(), (found == "v").sum()], rel=0.003)
    assert min(got) > 300


@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:32633"])
def test_on_another_area_there_is_no_word(values: Any, crs: str, tmp_path: Path) -> None:
    """Same numbers elsewhere: no warning, and nothing that could be left out."""
    found, truth = values
    place = {"crs": crs, "transform": Affine(10, 0, 490_000, 0, -10, 4_100_000)}
    map_ = write(tmp_path / "map.tif", found, said(scene()), **place)
    reference = write(tmp_path / "reference.tif", truth, **place)
    got = tilemap.evaluate(map_, reference=reference)
    assert (shares(got.figures), got.record["warnings"]) == ((0, 0), [])
    assert (
        tilemap.evaluate(map_, reference=reference, leave_out="train").figures["pixels"]
        == (got.figures["pixels"])
    )


def test_an_area_that_divides_the_scene(values: Any, tmp_path: Path) -> None:
    """Polygons with a part each, later ones on top; outside of the scene they say nothing."""
    found, truth = values

    def box(top: int, left: int, bottom: int, right: int) -> str:
        (x0, x1), (y0, y1) = ((400_000 + 10 * c for c in (left, right)),
                              (4_100_000 - 10 * r for r in (top, bottom)))  # fmt: skip
        return f"POLYGON (({x0} {y0}, {x1} {y0}, {x1} {y1}, {x0} {y1}, {x0} {y0}))"

    areas = (
        TrainedArea(part="train", wkt=box(3, 5, 40, 200)),
        TrainedArea(part="validation", wkt=box(30, 50, 60, 80)),
        TrainedArea(part="test", wkt=box(50, 60, 70, 110)),
    )
    divided = scene(blocks="", areas=areas, shape=(70, 100))
    map_ = write(tmp_path / "map.tif", found, said(divided))
    part = np.full(SHAPE, "-")
    part[3:40, 5:100] = "t"
    part[30:60, 50:80] = "v"
    part[50:70, 60:] = "x"
    both = (found > 0) & (truth > 0)
    got = tilemap.evaluate(map_, reference=write(tmp_path / "reference.tif", truth))
    assert shares(got.figures) == tuple((both & (part == letter)).sum() for letter in "tv")


def test_where_scenes_overlap_training_wins(values: Any, tmp_path: Path) -> None:
    """A model that was continued has seen a block if either training has."""
    found, truth = values
    other = scene(blocks="4v4x4t")
    map_ = write(tmp_path / "map.tif", found, said(scene(), other))
    got = tilemap.evaluate(map_, reference=write(tmp_path / "reference.tif", truth))
    row = np.arange(SHAPE[0])[:, None] // 32
    train = (letters() == "t") | (row == 2)
    validation = ~train & ((letters() == "v") | (row == 0))
    both = (found > 0) & (truth > 0)
    assert shares(got.figures) == ((both & train).sum(), (both & validation).sum())


def test_plain_images_are_known_by_their_labels(values: Any, tmp_path: Path) -> None:
    """Without a CRS the same pixels are no place: only the labels of the training say which."""
    found, truth = values
    place: dict[str, Any] = {"crs": None, "transform": Affine(2, 0, 5, 0, -2, 7)}
    labels = write(tmp_path / "labels.tif", truth, **place)
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    plain = scene(crs=None, transform=(2, 0, 5, 0, -2, 7), labels=digest)
    map_ = write(tmp_path / "map.tif", found, said(plain), **place)
    both = (found > 0) & (truth > 0)
    train = int((both & (letters() == "t")).sum())
    assert shares(tilemap.evaluate(map_, reference=labels).figures)[0] == train
    other = write(tmp_path / "other.tif", np.maximum(truth, 1), **place)
    assert shares(tilemap.evaluate(map_, reference=other).figures) == (0, 0)


def test_an_old_model_says_only_that_it_knows_the_labels(values: Any, tmp_path: Path) -> None:
    """Its card has digests alone: a word for the labels it names, none for others."""
    found, truth = values
    labels = write(tmp_path / "labels.tif", truth)
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    map_ = write(tmp_path / "map.tif", found, said(labels=(digest,)))
    got = tilemap.evaluate(map_, reference=labels)
    assert got.record["warnings"] == [
        "The model learned from this reference and does not say from which blocks, so the figures "
        "are likely to be too good."
    ]
    assert got.figures["training_blocks"] is None
    other = write(tmp_path / "other.tif", np.where(truth == 1, 2, truth).astype(np.uint8))
    assert tilemap.evaluate(map_, reference=other).record["warnings"] == []


@pytest.mark.parametrize("tag", [None, "{", said(labels=("0" * 64,))])
def test_nothing_is_left_out_that_nobody_knows(
    values: Any, tag: str | None, tmp_path: Path
) -> None:
    """A map without the tag, with a damaged one, and one of an old model are refused in a line."""
    found, truth = values
    map_ = write(tmp_path / "map.tif", found, tag)
    reference = write(tmp_path / "reference.tif", truth)
    with pytest.raises(SceneError, match=r"`leave_out` needs a map whose model says"):
        tilemap.evaluate(map_, reference=reference, leave_out="train", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    warned = tilemap.evaluate(map_, reference=reference).record["warnings"]
    assert [f"The tag {TAG} of the map is damaged" in line for line in warned] == [True] * (
        tag == "{"
    )


def test_what_leave_out_takes(values: Any, tmp_path: Path) -> None:
    """Parts that the model has seen, and it must leave something."""
    found, _ = values
    map_ = write(tmp_path / "map.tif", found, said(scene()))
    with pytest.raises(UsageError, match="`leave_out` takes train and validation, got 'test'"):
        tilemap.evaluate(map_, reference=map_, leave_out="test")
    inside = np.where(letters() == "t", 1, 0).astype(np.uint8)
    reference = write(tmp_path / "reference.tif", inside)
    with pytest.raises(SceneMismatchError, match="`leave_out` must leave pixels to count"):
        tilemap.evaluate(map_, reference=reference, leave_out="train")


def test_the_command_warns_and_leaves_out(
    values: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line names the flag; with it, the note says what was left out."""
    found, truth = values
    map_ = write(tmp_path / "map.tif", found, said(scene()))
    reference = write(tmp_path / "reference.tif", truth)
    printed = []
    for more in ([], ["--leave-out", "train,validation"]):
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", str(map_), "--reference", str(reference), *more])
        assert ended.value.code == 0
        printed.append(capfd.readouterr().out)
    assert "warning: Of the " in printed[0]
    assert "--leave-out train,validation counts the others only." in printed[0]
    assert "warning: " not in printed[1]
    assert "note: Left out: " in printed[1]
