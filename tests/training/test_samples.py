from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

import tilemap
from tilemap.api import DEMO_MODEL, demo_scene
from tilemap.errors import (
    ConfigError,
    InputChangedError,
    SceneError,
    StoreError,
    TilemapError,
)
from tilemap.geometry import TileGrid, Window
from tilemap.models import registry
from tilemap.models.card import QUANTILES
from tilemap.models.mlm import card_to_item, write_json
from tilemap.models.trained_on import TrainedOn
from tilemap.run_plan import GridSettings, choose_grid
from tilemap.stages.segment import standardise
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneRequest, open_scene
from tilemap.testing import load_toy, random_scene, toy_card, write_geotiff, write_toy_scene
from tilemap.training.config import TrainingConfig, parse_config
from tilemap.training.drawing import Spots
from tilemap.training.samples import IGNORE, TrainingData, prepare_data
from tilemap.training.split import Part

SHAPE = (300, 420)
BANDS = ("red", "green", "nir")
KAMPALA = "aerial_kampala_z21_1238448_1046528"
PLAIN = {
    "flip": False, "rotate": False, "scale": [1, 1], "gain": 0, "band_gain": 0, "offset": 0,
    "haze": 0, "shadow": 0, "season": 0, "noise": 0,
}  # fmt: skip
ALL = {"turn": True, "haze": 1.0, "shadow": 1.0, "season": 1.0, "scale": [0.5, 2]}


def _labels(shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray[Any, Any]:
    """Three classes in patches of 10 pixels, the third rare; some pixels are nodata (9)."""
    random = np.random.default_rng(seed)
    small = random.choice([0, 1, 2, 9], (-(-shape[0] // 10), -(-shape[1] // 10)),
                          p=[0.55, 0.38, 0.02, 0.05])  # fmt: skip
    big = np.kron(small, np.ones((10, 10), int))[: shape[0], : shape[1]]
    return big.astype(np.uint8)


def _write(folder: Path, image: Any = None, labels: Any = None, name: str = "s") -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    image = random_scene(SHAPE) if image is None else image
    labels = _labels() if labels is None else labels
    write_geotiff(folder / f"{name}.tif", image, names=BANDS, scale=1e-4, nodata=0)
    write_geotiff(folder / f"{name}_labels.tif", labels[None], nodata=9)
    return {"files": [f"{name}.tif"], "labels": f"{name}_labels.tif"}


def _config(folder: Path, scenes: Sequence[dict[str, Any]], **fields: Any) -> TrainingConfig:
    table = {
        "name": "t",
        "scenes": list(scenes),
        "classes": [{"name": f"class {i + 1}", "value": i} for i in range(3)],
        "split": {"block": 64},
        "sampling": {"crop": 64, "batch": 4},
        "model": {"arch": "unet", "units": "reflectance"},
        **fields,
    }
    return parse_config(table, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingConfig, Path, TrainingData]:
    """A scene with some nodata, prepared without augmentation."""
    folder = tmp_path_factory.mktemp("made")
    image = random_scene(SHAPE)
    image[:, 30:50, 100:140] = 0
    config = _config(folder, [_write(folder, image)], augment=PLAIN)
    return config, folder, prepare_data(config, folder / "out")


def _parts(data: TrainingData, scene: int = 0) -> np.ndarray[Any, Any]:
    parts = data._counted.parts[scene]
    return parts.read(Window(0, 0, *parts.store.scene.shape))


def _known(folder: Path) -> np.ndarray[Any, Any]:
    """Labels as a class index where observed, straight from the files."""
    with rasterio.open(folder / "s.tif") as file, rasterio.open(folder / "s_labels.tif") as labels:
        known = labels.read(1)
        known[(file.read() == 0).any(axis=0) | (known == 9)] = IGNORE
    return known


def test_a_batch_depends_on_its_step_alone(tmp_path: Path) -> None:
    """In any order, again, from a second preparation, from several threads: the same bits."""
    config = _config(tmp_path, [_write(tmp_path)], augment=ALL)
    data, other = (prepare_data(config, tmp_path / name) for name in ("a", "b"))
    steps = (0, 7, 3)
    first = [data.batch(step) for step in steps]
    again = [other.batch(step) for step in reversed(steps)][::-1]
    found: dict[int, Any] = {}

    def fetch(step: int) -> None:
        found[step] = other.batch(step)

    threads = [threading.Thread(target=fetch, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step, one, two in zip(steps, first, again, strict=True):
        for same in (two, found[step]):
            assert (one.image == same.image).all()
            assert (one.label == same.label).all()
            assert one.places == same.places
    assert (first[0].image != first[1].image).any()


def test_crops_are_pieces_of_the_scene(made: tuple[TrainingConfig, Path, TrainingData]) -> None:
    """Standardised pixels of the file with their labels; 0 and IGNORE where they are held out."""
    _, folder, data = made
    with rasterio.open(folder / "s.tif") as file:
        stored = file.read()
    known, parts = _known(folder), _parts(data)
    mean, std = (np.array(v)[:, None, None] for v in (data.mean, data.std))
    for step in range(5):
        batch = data.batch(step)
        assert batch.image.dtype == np.float32
        assert batch.image.shape == (4, 3, 64, 64)
        assert batch.teacher is None
        for image, label, place in zip(batch.image, batch.label, batch.places, strict=True):
            name, rows, cols = place.replace(",", "").replace("rows ", "").split(" ")[:1] + [
                part.split(" ")[-1] for part in place.split(", ")
            ]
            assert name == "s.tif"
            at = tuple(slice(*map(int, part.split("-"))) for part in (rows, cols))
            here, part = known[at], parts[at]
            held = (part == Part.VALIDATION) | (part == Part.TEST)
            hidden = held | (stored[:, *at] == 0).any(axis=0)
            expected = np.where(hidden, 0, (stored[:, *at] * 1e-4 - mean) / std)
            np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-6)
            assert (image[:, hidden] == 0).all()
            assert (label == np.where(part == Part.TRAIN, here, IGNORE)).all()
            assert (label != IGNORE).any()


def test_what_is_held_out_never_enters_training(tmp_path: Path) -> None:
    """Other numbers in the blocks that are held out change not one bit of any batch."""
    image = random_scene(SHAPE)
    secret = image.copy()
    config = _config(tmp_path / "a", [_write(tmp_path / "a", image)], augment=ALL)
    data = prepare_data(config, tmp_path / "a" / "out")
    parts = _parts(data)
    held = (parts == Part.VALIDATION) | (parts == Part.TEST)
    assert 0.3 < held.mean() < 0.5
    secret[:, held] = 65535
    config = _config(tmp_path / "b", [_write(tmp_path / "b", secret)], augment=ALL)
    other = prepare_data(config, tmp_path / "b" / "out")
    assert (_parts(other) == parts).all()
    assert (other.mean, other.std, other.statistics) == (data.mean, data.std, data.statistics)
    for step in range(12):
        one, two = data.batch(step), other.batch(step)
        assert (one.image == two.image).all()
        assert (one.label == two.label).all()
        assert np.abs(one.image).max() < 30  # the secret would be near 65535e-4 / 0.2
    for part in (Part.VALIDATION, Part.TEST):  # and there the model sees it
        assert any((b.image > 15).any() for b in other.blocks(part))


def test_classes_are_drawn_evenly_where_balanced(
    made: tuple[TrainingConfig, Path, TrainingData],
) -> None:
    """Each class a third of the spots, however rare; without balance as often as it is there."""
    _, folder, data = made
    known, parts = _known(folder), _parts(data)
    random = np.random.default_rng(0)
    share = data.counts[Part.TRAIN] / data.counts[Part.TRAIN].sum()
    assert share.min() < 0.05
    for balanced, expected in ((1.0, np.full(3, 1 / 3)), (0.0, share), (0.5, share / 2 + 1 / 6)):
        spots = [data._spots.draw(random, balanced) for _ in range(1500)]
        classes = np.array([known[spot.row, spot.col] for spot in spots])
        assert all(parts[spot.row, spot.col] == Part.TRAIN for spot in spots)
        drawn = np.bincount(classes, minlength=3) / 1500
        spread = np.sqrt(expected * (1 - expected) / 1500)
        assert (np.abs(drawn - expected) < 4 * spread).all()


def test_every_pixel_of_a_class_is_as_likely_as_any_other(tmp_path: Path) -> None:
    """Also where they lie in different chunks, few in one and many in another."""
    labels = np.full((40, 1100), 9, dtype=np.uint8)
    labels[::4, ::60] = 0
    labels[5:8, 5] = 1  # three in the first chunk, one in the third
    labels[30, 1090] = 1
    labels[::8, 30::64] = 2
    image = random_scene((40, 1100))
    config = _config(
        tmp_path, [_write(tmp_path, image, labels)],
        split={"block": 32, "validation": 0, "test": 0},
    )  # fmt: skip
    data = prepare_data(config, tmp_path / "out")
    assert data.counts[Part.TRAIN].tolist() == [(labels == i).sum() for i in range(3)]
    random = np.random.default_rng(1)
    drawn = [data._spots.draw(random, 1.0) for _ in range(3000)]
    found = [(s.row, s.col) for s in drawn if labels[s.row, s.col] == 1]
    times = np.array([found.count(at) for at in ((5, 5), (6, 5), (7, 5), (30, 1090))])
    assert times.sum() == len(found)
    assert (np.abs(times - 250) < 4 * np.sqrt(250)).all()


def test_blocks_show_what_production_shows(
    made: tuple[TrainingConfig, Path, TrainingData],
) -> None:
    """Standardised by the same function, reflected at the edge; labels are of this part alone."""
    config, folder, data = made
    known, parts = _known(folder), _parts(data)
    source = open_scene(config.scenes[0].request())
    seen = np.zeros(SHAPE, int)
    for part in (Part.TRAIN, Part.VALIDATION, Part.TEST):
        total = np.zeros(3, int)
        for block in data.blocks(part):
            rows, cols = (tuple(map(int, t.split(" ")[-1].split("-"))) for t in
                          block.place.split(", "))  # fmt: skip
            inner = Window(rows[0], cols[0], rows[1], cols[1])
            assert min(block.inner.top, block.inner.left) == 64
            assert block.inner.shape == inner.shape == block.label.shape
            assert all(side % data.stride == 0 for side in block.image.shape[1:])
            left, top = inner.left - 64, inner.top - 64
            patch = Window(top, left, top + block.image.shape[1], left + block.image.shape[2])
            with source.open() as reader:
                pixels, valid = read_patch(reader, patch)
            expected = standardise(pixels, valid, source.scene, data._card)
            assert (block.image == expected).all()
            assert (block.label == known[inner.slices()]).all()
            assert (parts[inner.slices()] == part).all()
            seen[inner.slices()] += 1
            total += np.bincount(block.label[block.label != IGNORE], minlength=3)
        assert (total == data.counts[part]).all()
    assert seen.max() == 1
    assert (seen[known != IGNORE] == 1).all()


def test_statistics_are_those_of_the_training_blocks(
    made: tuple[TrainingConfig, Path, TrainingData],
) -> None:
    """Mean, deviation and quantiles of observed pixels, against numpy."""
    _, folder, data = made
    with rasterio.open(folder / "s.tif") as file:
        stored = file.read()
    trained = (_parts(data) == Part.TRAIN) & (stored != 0).all(axis=0)
    for band, one in enumerate(data.statistics):
        values = stored[band][trained] * 1e-4
        assert one.mean == pytest.approx(values.mean(), rel=1e-9)
        assert one.std == pytest.approx(values.std(), rel=1e-9)
        expected = np.quantile(values, QUANTILES, method="inverted_cdf")
        np.testing.assert_allclose(one.quantiles, expected, rtol=1e-12)
    assert data.gsd_m is not None
    assert data.gsd_m[0] == pytest.approx(10, rel=0.001)
    assert data.bands == BANDS


def test_floats_have_statistics_too(tmp_path: Path) -> None:
    """Of several scenes as of one; quantiles are of a sample where numbers cannot be counted."""
    numbers = [random_scene(SHAPE, seed=i, dtype=np.float32) * np.float32(1e4) for i in range(2)]
    scenes = [_write(tmp_path, image, _labels(seed=i), f"s{i}") for i, image in enumerate(numbers)]
    config = _config(tmp_path, scenes, split={"block": 64, "validation": 0, "test": 0})
    data = prepare_data(config, tmp_path / "out")
    parts = [_parts(data, i) == Part.TRAIN for i in range(2)]
    for band, one in enumerate(data.statistics):
        images = [image[band] * 1e-4 for image in numbers]
        values = np.concatenate([v[t] for v, t in zip(images, parts, strict=True)])
        assert one.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
        assert one.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)
        np.testing.assert_allclose(one.quantiles, np.quantile(values, QUANTILES), rtol=1e-3)


def test_samples_are_made_once(tmp_path: Path) -> None:
    """The same inputs: read back, without a word. Other labels, another split: made anew."""
    config = _config(tmp_path, [_write(tmp_path)])
    said: list[str] = []
    first = prepare_data(config, tmp_path / "out", said.append)
    assert len(said) == 2
    said.clear()
    second = prepare_data(config, tmp_path / "out", said.append)
    assert said == []
    assert (first.statistics, first.notes, first.gsd_m) == (
        second.statistics, second.notes, second.gsd_m,
    )  # fmt: skip
    assert (first.batch(1).image == second.batch(1).image).all()
    assert first.record() == second.record()
    other = _config(tmp_path, [{"files": ["s.tif"], "labels": "s_labels.tif"}], seed=5)
    prepare_data(other, tmp_path / "out", said.append)
    assert said == ["counting classes and bands"]
    said.clear()
    _write(tmp_path, labels=_labels(seed=4))
    third = prepare_data(config, tmp_path / "out", said.append)
    assert len(said) == 2
    assert (third.counts != first.counts).any()


def _polygons(path: Path, values: Sequence[int]) -> None:
    """A shapefile of fields of 60 pixels, from left to right, with the classes given."""
    boxes = [
        shapely.box(400_000 + 600 * n, 4_100_000 - 3000, 400_600 + 600 * n, 4_100_000)
        for n in range(7)
    ]
    pyogrio.raw.write(
        str(path), geometry=shapely.to_wkb(boxes), field_data=[np.array(values, np.int32)],
        fields=["value"], geometry_type="Polygon", crs="EPSG:32618", driver="ESRI Shapefile",
    )  # fmt: skip


def test_the_attributes_of_a_shapefile_count(tmp_path: Path) -> None:
    """They are in a file beside it; the same polygons with other classes are other labels."""
    scene = _write(tmp_path) | {"labels": "fields.shp", "column": "value"}
    config = _config(tmp_path, [scene])
    _polygons(tmp_path / "fields.shp", [0, 1, 2, 0, 1, 2, 0])
    first = prepare_data(config, tmp_path / "out")
    shapes = (tmp_path / "fields.shp").read_bytes()
    _polygons(tmp_path / "fields.shp", [0, 0, 1, 1, 0, 1, 2])
    assert (tmp_path / "fields.shp").read_bytes() == shapes
    second = prepare_data(config, tmp_path / "out")
    assert (second.counts != first.counts).any()


@pytest.mark.parametrize("name", ["s.tif", "s_labels.tif"])
def test_a_file_that_changes_while_samples_are_made_is_told(tmp_path: Path, name: str) -> None:
    """They are not kept; the same call makes them of the file as it is then."""
    config = _config(tmp_path, [_write(tmp_path)])
    other = _write(tmp_path / "other", random_scene(SHAPE, seed=5), _labels(seed=5))
    want = prepare_data(_config(tmp_path / "other", [other]), tmp_path / "want")

    def meddle(_: str) -> None:
        shutil.copyfile(tmp_path / "other" / name, tmp_path / name)

    with pytest.raises(InputChangedError, match=f"{name} must stay as it is during the run"):
        prepare_data(config, tmp_path / "out", meddle)
    for file in ("s.tif", "s_labels.tif"):
        shutil.copyfile(tmp_path / "other" / file, tmp_path / file)
    assert prepare_data(config, tmp_path / "out").statistics == want.statistics


def test_a_half_written_store_is_made_anew_and_a_damaged_one_told(tmp_path: Path) -> None:
    """Only the last step gives it its name; a flipped bit is an error."""
    config = _config(tmp_path, [_write(tmp_path)])
    first = prepare_data(config, tmp_path / "out").batch(0)
    store = tmp_path / "out" / "samples" / "scene-0.zarr"
    half = store.with_name(store.name + ".partial")
    store.rename(half)
    (half / "zarr.json").unlink()
    data = prepare_data(config, tmp_path / "out")
    assert (data.batch(0).image == first.image).all()
    assert not half.exists()
    chunk = store / "image" / "c" / "0" / "0" / "0"
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"chunk \(0, 0, 0\) of image is damaged"):
        prepare_data(config, tmp_path / "out").batch(0)


def test_a_scene_smaller_than_a_crop_is_reflected(tmp_path: Path) -> None:
    """The image goes on beyond the edge, labels do not."""
    image, labels = random_scene((50, 40)), _labels((50, 40), 3)
    labels[::7] = 2
    config = _config(
        tmp_path, [_write(tmp_path, image, labels)], augment=PLAIN,
        split={"block": 64, "validation": 0, "test": 0},
    )  # fmt: skip
    data = prepare_data(config, tmp_path / "out")
    batch = data.batch(0)
    assert (batch.image != 0).any(axis=1).all()
    for label in batch.label:
        assert 0 < (label != IGNORE).sum() <= 50 * 40


@pytest.mark.parametrize("labelled", [False, True])
def test_a_teacher_speaks_in_the_order_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    """Its probabilities are those of the whole scene at once; without labels it gives those too."""
    card = toy_card(classes=3, context=5)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / card.weights).write_bytes(b"")
    write_json(card_to_item(card), tmp_path / "toy" / "model.json")
    monkeypatch.setattr("tilemap.training.making.load_teacher", lambda *_: load_toy(card))
    image = random_scene((300, 600))
    image[:, 30:50, 100:140] = 0
    scene = _write(tmp_path, image, _labels((300, 600)))
    if not labelled:
        del scene["labels"]
    order = (2, 0, 1)
    config = _config(
        tmp_path, [scene], distillation={"teacher": "toy"}, augment=PLAIN,
        classes=[{"name": f"class {i + 1}", "value": i} for i in order],
    )  # fmt: skip
    data = prepare_data(config, tmp_path / "out")
    source = open_scene(config.scenes[0].request(card.bands))
    grid = TileGrid((300, 600), 600, 8, 0)
    with source.open() as reader:
        pixels, valid = read_patch(reader, grid.patch_window((0, 0)))
        standard = standardise(pixels, valid, source.scene, card)
    whole = load_toy(card).predict(standard)[list(order), 8:308, 8:608].astype(np.float16)
    valid = valid[8:308, 8:608]
    whole[:, ~valid] = 0
    store = data._counted.parts[0].store
    everywhere = Window(0, 0, 300, 600)
    assert (store.teacher(everywhere) == whole).all()
    label = store.label(everywhere)
    known = np.array([1, 2, 0, *[IGNORE] * 253])[_known(tmp_path)] if labelled else whole.argmax(0)
    assert (label == np.where(valid, known, IGNORE)).all()
    batch = data.batch(0)
    assert batch.teacher is not None
    assert batch.teacher.shape == (4, 3, 64, 64)
    total = batch.teacher.sum(axis=1)
    np.testing.assert_allclose(total[batch.label != IGNORE], 1, atol=2e-3)  # float16 in the store
    block = next(data.blocks(Part.TEST))
    assert block.teacher is not None
    assert block.teacher.shape[1:] == block.label.shape


def test_the_shipped_model_teaches(tmp_path: Path) -> None:
    """A real teacher on a real scene: what it says of the whole; a class it never saw is noted."""
    ref = registry.resolve(DEMO_MODEL)
    source = open_scene(SceneRequest(tuple(map(str, demo_scene())), bands=ref.card.bands))
    with source.open() as reader:
        pixels, _ = reader.read(Window(256, 0, 384, 160))
    write_geotiff(tmp_path / "s.tif", pixels, names=ref.card.bands, scale=1e-4)
    config = _config(
        tmp_path, [{"files": ["s.tif"]}], distillation={"teacher": DEMO_MODEL},
        classes=[{"name": c.name, "value": c.value} for c in ref.card.classes],
        split={"block": 32},
    )  # fmt: skip
    data = prepare_data(config, tmp_path / "out")
    lacking = [c.name for c, n in zip(data.classes, data.counts[Part.TRAIN], strict=True) if not n]
    assert 0 < len(lacking) < 5, data.counts
    assert any(note == f"train: no pixel of {', '.join(lacking)}" for note in data.notes)
    store = data._counted.parts[0].store
    everywhere = Window(0, 0, 128, 160)
    teacher = store.teacher(everywhere).astype(np.float32)
    np.testing.assert_allclose(teacher.sum(axis=0), 1, atol=2e-3)
    halo = choose_grid((128, 160), ref.card, GridSettings()).halo
    image, valid = read_patch(store, everywhere.grow(halo))
    standard = standardise(image, valid, store.scene, ref.card)
    inner = Window(halo, halo, halo + 128, halo + 160)
    expected = registry.load(ref).predict(standard, inner)
    np.testing.assert_allclose(teacher, expected, atol=5e-4)  # float16
    assert (store.label(everywhere) == teacher.argmax(axis=0)).all()


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    """Classes are matched by name."""
    card = toy_card(classes=4)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / card.weights).write_bytes(b"")
    write_json(card_to_item(card), tmp_path / "toy" / "model.json")
    config = _config(tmp_path, [_write(tmp_path)], distillation={"teacher": "toy"})
    with pytest.raises(ConfigError, match="must be those of the teacher, toy-box has class 1"):
        prepare_data(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scenes_are_drawn_by_weight_and_split_together_if_small(tmp_path: Path) -> None:
    """Eight scenes of one block each make three parts; weight 3 is drawn three times as often."""
    scenes = [
        _write(tmp_path, random_scene((64, 64), seed=i), _labels((64, 64), i + 20), f"s{i}")
        for i in range(8)
    ]
    scenes[2]["weight"] = 3.0
    config = _config(
        tmp_path, scenes, split={"block": 64, "validation": 0.25, "test": 0.25},
        classes=[{"name": "a", "value": 0}, {"name": "b", "value": 1, "labels": [1, 2]}],
    )  # fmt: skip
    data = prepare_data(config, tmp_path / "out")
    parts = [int(np.unique(_parts(data, i))[0]) for i in range(8)]
    assert sorted(parts) == [0, 0, 0, 0, 1, 1, 2, 2]
    assert any("split together" in note for note in data.notes)
    trained = [i for i in range(8) if parts[i] == Part.TRAIN]
    weights = [scenes[i].get("weight", 1.0) for i in range(8)]
    spots = Spots(data._counted.parts, data._counted.tallies, weights)
    random = np.random.default_rng(0)
    drawn = np.bincount([spots.draw(random, 0.5).scene for _ in range(2000)], minlength=8) / 2000
    odds = np.array([weights[i] * (i in trained) for i in range(8)])
    assert (np.abs(drawn - odds / odds.sum()) < 0.05).all()
    assert {place.split(" ")[0] for step in range(6) for place in data.batch(step).places} <= {
        f"s{i}.tif" for i in trained
    }


def _no_overlap(folder: Path) -> TrainingConfig:
    scene = _write(folder)
    labels = _labels()
    labels[:] = 9
    write_geotiff(folder / "s_labels.tif", labels[None], nodata=9)
    return _config(folder, [scene])


def _unknown(folder: Path) -> TrainingConfig:
    labels = _labels()
    labels[0, :3] = 44
    return _config(folder, [_write(folder, labels=labels)])


def _no_samples(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder)], classes=[
        {"name": n, "value": i} for i, n in enumerate(("a", "b", "c", "d"))
    ])  # fmt: skip


def _few_bands(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder)], model={"bands": ["red", "blue"]})


def _odd_crop(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder)], sampling={"crop": 100})


def _no_file(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder) | {"files": ["none.tif"]}])


def _no_labels(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder) | {"labels": "none.gpkg"}])


def _no_weights(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder)], model={"weights": "none.pth"})


def _no_scale(folder: Path) -> TrainingConfig:
    scene = _write(folder)
    write_geotiff(folder / "s.tif", random_scene(SHAPE), names=BANDS)
    return _config(folder, [scene])


def _no_network(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder)], model={"arch": "unett"})


def _no_folder(folder: Path) -> TrainingConfig:
    config = _config(folder, [_write(folder)])
    (folder / "out").write_text("a file")
    return config


def _large_blocks(folder: Path) -> TrainingConfig:
    return _config(folder, [_write(folder)], split={"block": 512})


@pytest.mark.parametrize(
    ("make", "message", "code"),
    [
        (_no_overlap, "s must have pixels that are observed and labelled, s_labels.tif", 65),
        (_unknown, r"s_labels.tif has 44 \(3 pixels\)", 65),
        (_no_samples, "labelled pixels in the training part, d has none", 65),
        (_few_bands, "lacks blue: wanted red, blue, found red, green, nir", 65),
        (_odd_crop, "sampling.crop must be a multiple of 32 pixels for unet, got 100; 96", 78),
        (_no_file, "no such file", 65),
        (_no_labels, "there is no such file", 65),
        (_no_weights, "model.weights must be a file", 78),
        (_no_scale, "takes reflectance .* stores uint16 without a scale", 65),
        (_no_network, "architecture name must be one of unet", 65),
        (_no_folder, "samples: cannot be made", 73),
        (_large_blocks, "at least 3 labelled blocks, got 1", 78),
    ],
)
def test_what_cannot_be_learned_leaves_no_trace(
    tmp_path: Path, make: Any, message: str, code: int
) -> None:
    """One or two lines, a code, and no folder."""
    config = make(tmp_path)
    with pytest.raises(TilemapError, match=message) as caught:
        prepare_data(config, tmp_path / "out")
    assert caught.value.exit_code == code
    assert str(caught.value).count("\n") < 2
    assert not (tmp_path / "out").is_dir()


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    """Files of the user in the directory of the training stay."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(SceneError):
        prepare_data(_unknown(tmp_path), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_the_cache_of_chunks_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one chunk the batches are the same."""
    image, labels = random_scene((600, 700)), _labels((600, 700))
    config = _config(tmp_path, [_write(tmp_path, image, labels)])
    data = prepare_data(config, tmp_path / "out")
    expected = [data.batch(step) for step in range(3)]
    small = prepare_data(config, tmp_path / "out")
    cache = small._counted.parts[0].store._cache
    monkeypatch.setattr(cache, "_most", 1 << 20)
    for step, one in enumerate(expected):
        assert (small.batch(step).image == one.image).all()
        assert cache.held_bytes <= 3 * 512 * 512 * 2


def test_kampala_has_roofs_in_every_part(data: Path, tmp_path: Path) -> None:
    """Real roofs: numbers stay within 8 bits, every part sees about a quarter of them."""
    table = {
        "name": "roofs",
        "scenes": [
            {
                "files": [str(data / f"scenes/{KAMPALA}_rgb.tif")],
                "resolution": 0.3,
                "labels": str(data / f"labels/{KAMPALA}_buildings.gpkg"),
                "background": "other",
            }
        ],
        "classes": [{"name": "other", "value": 0}, {"name": "roof", "value": 1}],
        "split": {"block": 128},
    }
    made = prepare_data(parse_config(table, tmp_path), tmp_path / "out")
    share = made.counts[:, 1] / made.counts.sum(axis=1)
    assert made.counts.sum() == 510 * 764  # the last column overhangs the file
    assert made.counts[:, 1].sum() / made.counts.sum() == pytest.approx(0.242, abs=5e-4)
    assert ((share > 0.15) & (share < 0.35)).all()
    assert made.gsd_m is not None
    assert made.gsd_m[0] == pytest.approx(0.3, rel=0.01)
    batch = made.batch(0)
    mean, std = (np.array(v)[:, None, None] for v in (made.mean, made.std))
    physical = batch.image * std + mean
    assert physical.min() >= -1e-3
    assert physical.max() <= 255 + 1e-3
    assert all(len(np.unique(label)) > 1 for label in batch.label)


def test_the_ground_for_the_card_is_that_of_the_samples(tmp_path: Path) -> None:
    """Slanted polygons with a part each: an evaluation counts what the training would learn from.

    Two workers of a cluster count it as well, and the same.
    """
    table = write_toy_scene(tmp_path)
    shapes = {
        "train": [[2.3, 1.1], [150.2, 7.4], [120.9, 152.7], [5, 140]],
        "val": [[100, 20], [240, 60], [180.5, 150.5]],
    }
    features = [
        {
            "type": "Feature",
            "properties": {"use": use},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[4e5 + 10 * col, 4.1e6 - 10 * row] for col, row in [*ring, ring[0]]]
                ],
            },
        }
        for use, ring in shapes.items()
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}}
    content = {"type": "FeatureCollection", "crs": crs, "features": features}
    (tmp_path / "area.geojson").write_text(json.dumps(content))
    table["scenes"][0] |= {"area": "area.geojson", "area_split": "use"}
    made = prepare_data(parse_config(table, tmp_path), tmp_path / "out")
    tag = TrainedOn(scenes=made.trained_on()).model_dump_json()
    shutil.copy(tmp_path / "labels.tif", tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif", "r+") as file:
        file.update_tags(CLASS_1="low", CLASS_2="high field", TILEMAP_TRAINED_ON=tag)
    for more in ({}, {"workers": 2, "core": 64, "leave_out": "train"}):
        found = tilemap.evaluate(
            tmp_path / "map.tif", reference=tmp_path / "labels.tif", **more
        ).figures["training_blocks"]
        assert found["train"]["pixels"] == made.counts[Part.TRAIN].sum() > 1000
        assert found["validation"]["pixels"] == made.counts[Part.VALIDATION].sum() > 1000


def test_flanders_takes_its_parts_from_the_area(data: Path, tmp_path: Path) -> None:
    """What is held out is held out by polygon: no training label lies in a box of validation."""
    table = {
        "name": "fields",
        "scenes": [
            {
                "files": [str(data / "scenes/s2_flanders_2023_b08b04b03_u8.tif")],
                "labels": str(data / "labels/s2_flanders_fields_polygons.gpkg"),
                "layer": "polygons",
                "column": "label_name",
                "background": "other",
                "area": str(data / "labels/s2_flanders_fields_locations.gpkg"),
                "area_split": "traindata_type",
            }
        ],
        "classes": [
            {"name": "other", "value": 0},
            {"name": "field", "value": 1, "labels": ["field"]},
        ],
        "sampling": {"crop": 128, "batch": 4},
    }
    made = prepare_data(parse_config(table, tmp_path), tmp_path / "out")
    assert made.bands == ("nir", "red", "green")
    assert (made.counts[Part.TRAIN] > 0).all()
    assert (made.counts[Part.VALIDATION] > 0).all()
    assert made.counts[Part.TEST].sum() == 0
    assert "nothing is held out for test" in made.notes
    parts = _parts(made)
    for part in (Part.TRAIN, Part.VALIDATION):
        blocks = list(made.blocks(part))
        assert sum(int((b.label != IGNORE).sum()) for b in blocks) == made.counts[part].sum()
        assert (parts == part).sum() == made.counts[part].sum()
    assert list(made.blocks(Part.TEST)) == []
    assert all((label != IGNORE).any() for label in made.batch(0).label)
