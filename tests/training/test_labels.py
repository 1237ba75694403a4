from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine

from tilemap.errors import ConfigError, SceneError, SceneMismatchError, TilemapError
from tilemap.geometry import Window
from tilemap.scene import Scene
from tilemap.stores.geotiff import open_scene
from tilemap.stores.grids import compose
from tilemap.testing import random_scene, write_geotiff
from tilemap.training.config import TrainingConfig, parse_config
from tilemap.training.labels import IGNORE, SceneLabels, open_labels
from tilemap.training.split import Part

KAMPALA = "aerial_kampala_z21_1238448_1046528"
UTM = Affine(10, 0, 400_000, 0, -10, 4_100_000)
CLASSES = [
    {"name": "other", "value": 0, "labels": [0, "grass", ""]},
    {"name": "roof", "value": 9, "labels": [1, 2, "tiles"]},
]


def _config(folder: Path, scene: dict[str, Any], **fields: Any) -> TrainingConfig:
    table = {"name": "t", "classes": CLASSES, "scenes": [scene], **fields}
    return parse_config(table, folder)


def _open(
    folder: Path, classes: Sequence[dict[str, Any]] = (), ignore: Sequence[Any] = (), **scene: Any
) -> tuple[Scene, SceneLabels]:
    """The labels of a scene in ``folder``; a made-up one of 75 x 110 pixels if none is named."""
    if "files" not in scene:
        write_geotiff(folder / "scene.tif", random_scene())
        scene["files"] = ["scene.tif"]
    more = {"classes": classes} if classes else {}
    config = _config(folder, scene, ignore_labels=ignore, **more)
    opened = open_scene(config.scenes[0].request()).scene
    return opened, open_labels(opened, config.scenes[0], config)


def _write_polygons(
    path: Path, geometries: Sequence[Any], layer: str | None = None, **columns: Sequence[Any]
) -> Path:
    pyogrio.raw.write(
        path,
        geometry=np.array(shapely.to_wkb(np.array(geometries, dtype=object)), dtype=object),
        field_data=[np.array(v, dtype=object) for v in columns.values()],
        fields=np.array(list(columns)),
        geometry_type="Polygon",
        crs="EPSG:32618",
        layer=layer,
        append=path.exists(),
    )
    return path


def _square(top: int, left: int, bottom: int, right: int) -> Any:
    """A rectangle of pixels of the made-up scene."""
    x, y = UTM.c + 10 * np.array([left, right]), UTM.f - 10 * np.array([top, bottom])
    return shapely.box(x[0], y[1], x[1], y[0])


def _all(labels: SceneLabels, scene: Scene) -> np.ndarray[Any, Any]:
    return labels.read(Window(0, 0, *scene.shape))[0]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_a_raster_on_the_same_grid_is_looked_up(tmp_path: Path, dtype: str) -> None:
    """Every number through the table, nodata and ignored numbers to IGNORE; no note is needed."""
    values = np.random.default_rng(0).integers(0, 5, (75, 110))
    write_geotiff(tmp_path / "l.tif", values[None].astype(dtype), nodata=4)
    scene, labels = _open(tmp_path, labels="l.tif", ignore=[3])
    expected = np.array([0, 1, 1, IGNORE, IGNORE])[values]
    assert (_all(labels, scene) == expected).all()
    labels.labels.check()
    assert labels.notes == ()


def test_windows_make_the_whole(tmp_path: Path) -> None:
    """However windows are cut, a raster on another grid gives the same labels."""
    values = np.random.default_rng(1).integers(0, 3, (90, 90), dtype=np.uint8)
    turned = compose(Affine.translation(400_100, 4_099_950), Affine.rotation(20))
    turned = compose(turned, Affine.scale(9, -7))
    write_geotiff(tmp_path / "l.tif", values[None], transform=turned)
    scene, labels = _open(tmp_path, labels="l.tif")
    whole = _all(labels, scene)
    assert 0.3 < (whole != IGNORE).mean() < 1
    for window in (Window(0, 0, 40, 33), Window(31, 60, 75, 110), Window(7, 7, 8, 8)):
        assert (labels.read(window)[0] == whole[window.slices()]).all()
    assert len(labels.notes) == 1
    assert "nearest neighbour" in labels.notes[0]


def test_another_crs_gives_the_pixel_that_holds_each_centre(tmp_path: Path) -> None:
    """Against exact projection of every pixel, but where a centre lies on a border to 1/1000."""
    values = np.random.default_rng(2).integers(0, 3, (140, 180), dtype=np.uint8)
    there = Affine(1e-4, 0, -76.131, 0, -8e-5, 37.0425)
    write_geotiff(tmp_path / "l.tif", values[None], crs="EPSG:4326", transform=there)
    scene, labels = _open(tmp_path, labels="l.tif")
    got = _all(labels, scene)
    y, x = np.mgrid[:75, :110] + 0.5
    move = pyproj.Transformer.from_crs("EPSG:32618", "EPSG:4326", always_xy=True)
    lon, lat = move.transform(UTM.c + 10 * x, UTM.f - 10 * y)
    col, row = (lon - there.c) / there.a, (lat - there.f) / there.e
    inside = (col >= 0) & (col < 180) & (row >= 0) & (row < 140)
    clear = np.minimum(np.abs(col - np.rint(col)), np.abs(row - np.rint(row))) > 1e-3
    assert clear.mean() > 0.99
    assert inside[clear].mean() > 0.5
    index = np.floor(row).astype(int).clip(0, 139), np.floor(col).astype(int).clip(0, 179)
    expected = np.where(inside, np.array([0, 1, 1])[values[index]], IGNORE)
    assert (got[clear] == expected[clear]).all()


def test_a_raster_that_covers_part_leaves_the_rest_unknown(tmp_path: Path) -> None:
    """Background is what the raster leaves open inside its extent, not what lies beyond."""
    values = np.full((20, 30), 255, dtype=np.uint8)
    values[5:10, 5:10] = 1
    shifted = Affine(10, 0, 400_400, 0, -10, 4_099_900)  # 10 rows down, 40 columns right
    write_geotiff(tmp_path / "l.tif", values[None], transform=shifted, nodata=255)
    scene, labels = _open(tmp_path, labels="l.tif", background="other")
    expected = np.full((75, 110), IGNORE)
    expected[10:30, 40:70] = 0
    expected[15:20, 45:50] = 1
    assert (_all(labels, scene) == expected).all()


def test_fine_labels_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window whose source is too large is quartered, and stays the same."""
    values = np.random.default_rng(3).integers(0, 3, (300, 440), dtype=np.uint8)
    fine = Affine(2.5, 0, 400_000, 0, -2.5, 4_100_000)
    write_geotiff(tmp_path / "l.tif", values[None], transform=fine)
    scene, labels = _open(tmp_path, labels="l.tif")
    whole = _all(labels, scene)
    assert (whole == np.array([0, 1, 1])[values[2::4, 2::4]]).all()
    monkeypatch.setattr("tilemap.training.nearest._LARGEST_SOURCE", 5000)
    assert (_all(labels, scene) == whole).all()


def test_polygons_by_their_column(tmp_path: Path) -> None:
    """Text decides the class; ignored polygons hide what they cover; the rest is background."""
    _write_polygons(
        tmp_path / "p.gpkg",
        [_square(0, 0, 20, 30), _square(40, 50, 60, 90), _square(5, 5, 10, 10)],
        kind=["tiles", "grass", "cloud"],
    )
    scene, labels = _open(tmp_path, labels="p.gpkg", column="kind", ignore=["cloud"])
    expected = np.full((75, 110), IGNORE)
    expected[:20, :30] = 1
    expected[40:60, 50:90] = 0
    expected[5:10, 5:10] = IGNORE
    assert (_all(labels, scene) == expected).all()
    scene, labels = _open(
        tmp_path, labels="p.gpkg", column="kind", ignore=["cloud"], background="other"
    )
    assert (_all(labels, scene) == np.where(expected == 1, 1, _hidden(expected))).all()
    assert (labels.read(Window(3, 3, 12, 40))[0] == _all(labels, scene)[3:12, 3:40]).all()


def _hidden(expected: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out = np.zeros_like(expected)
    out[5:10, 5:10] = IGNORE
    return out


def test_without_a_column_polygons_are_of_the_one_class_they_can_mean(tmp_path: Path) -> None:
    """That is neither the background nor a class that no label means."""
    _write_polygons(tmp_path / "p.gpkg", [_square(0, 0, 20, 30)], a=[1])
    for rest in ({"background": "a"}, {}):
        told = [{"name": "a", "value": 0, "labels": []}, {"name": "b", "value": 1}]
        if rest:
            del told[0]["labels"]
        scene, labels = _open(tmp_path, told, labels="p.gpkg", **rest)
        assert (_all(labels, scene)[:20, :30] == 1).all()


@pytest.mark.parametrize("own", [{}, {"labels": [7]}, {"labels": ["c"]}])
def test_without_a_column_polygons_of_several_classes_are_refused(
    tmp_path: Path, own: dict[str, Any]
) -> None:
    """All of them were taken for the first class, whatever the file says of each."""
    _write_polygons(tmp_path / "p.gpkg", [_square(0, 0, 20, 30)], a=[1])
    told = [{"name": "a", "value": 0}, {"name": "b", "value": 1}, {"name": "c", "value": 2} | own]
    with pytest.raises(ConfigError, match=r"must say their class, .* b, c; name .* `column`"):
        _open(tmp_path, told, labels="p.gpkg", background="a")


def test_labels_hold_inside_the_area_only(tmp_path: Path) -> None:
    """Outside nothing is known; of two polygons of the area the one that is held out wins."""
    _write_polygons(tmp_path / "p.gpkg", [_square(0, 0, 20, 30)], a=[1])
    _write_polygons(
        tmp_path / "area.gpkg",
        [_square(10, 10, 30, 40), _square(0, 0, 20, 20), _square(60, 60, 70, 70)],
        use=["Validation", "train", "test"],
    )
    scene, labels = _open(tmp_path, labels="p.gpkg", background="other", area="area.gpkg")
    expected = np.full((75, 110), IGNORE)
    for rows, cols in ((slice(10, 30), slice(10, 40)), (slice(0, 20), slice(0, 20))):
        expected[rows, cols] = 0
    expected[60:70, 60:70] = 0
    expected[:20, :30][expected[:20, :30] == 0] = 1
    got, part = labels.read(Window(0, 0, *scene.shape))
    assert part is None
    assert (got == expected).all()
    _, labels = _open(
        tmp_path, labels="p.gpkg", background="other", area="area.gpkg", area_split="use"
    )
    got, part = labels.read(Window(0, 0, *scene.shape))
    wanted = np.full((75, 110), Part.NONE)
    wanted[:20, :20] = Part.TRAIN
    wanted[10:30, 10:40] = Part.VALIDATION
    wanted[60:70, 60:70] = Part.TEST
    assert part is not None
    assert (part == wanted).all()
    assert (got == expected).all()


def _unknown_raster(folder: Path) -> dict[str, Any]:
    values = np.zeros((1, 75, 110), dtype=np.uint8)
    values[0, :2, :5] = 77
    write_geotiff(folder / "l.tif", values)
    return {"labels": "l.tif"}


def _elsewhere(folder: Path) -> dict[str, Any]:
    write_geotiff(
        folder / "l.tif",
        np.zeros((1, 9, 9), dtype=np.uint8),
        transform=Affine(10, 0, 800_000, 0, -10, 4_100_000),
    )
    return {"labels": "l.tif"}


def _two_bands(folder: Path) -> dict[str, Any]:
    write_geotiff(folder / "l.tif", np.zeros((2, 75, 110), dtype=np.uint8))
    return {"labels": "l.tif"}


def _no_crs(folder: Path) -> dict[str, Any]:
    write_geotiff(folder / "l.tif", np.zeros((1, 75, 110), dtype=np.uint8), crs=None)
    return {"labels": "l.tif"}


def _raster_with_column(folder: Path) -> dict[str, Any]:
    write_geotiff(folder / "l.tif", np.zeros((1, 75, 110), dtype=np.uint8))
    return {"labels": "l.tif", "column": "kind"}


def _polygons(folder: Path) -> dict[str, Any]:
    _write_polygons(folder / "p.gpkg", [_square(0, 0, 9, 9)] * 3, kind=["tiles", "shed", "shed"])
    return {"labels": "p.gpkg", "column": "kind"}


def _no_column(folder: Path) -> dict[str, Any]:
    return _polygons(folder) | {"column": "sort"}


def _polygons_elsewhere(folder: Path) -> dict[str, Any]:
    _write_polygons(folder / "p.gpkg", [_square(9000, 0, 9009, 9)], a=[1])
    return {"labels": "p.gpkg", "background": "other"}


def _odd_part(folder: Path) -> dict[str, Any]:
    _write_polygons(folder / "p.gpkg", [_square(0, 0, 9, 9)], use=["practice"])
    return {"labels": "p.gpkg", "area": "p.gpkg", "area_split": "use", "background": "other"}


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (_unknown_raster, SceneError, r"l.tif has 77 \(10 pixels\); add it to"),
        (_elsewhere, SceneError, "must overlap their scene, l.tif and scene do not meet"),
        (_two_bands, SceneError, "one band, .* has 2"),
        (_no_crs, SceneMismatchError, "both have a CRS or none, l.tif has none"),
        (_raster_with_column, ConfigError, "column is of polygons"),
        (_polygons, SceneError, r"p.gpkg has 'shed' \(2 polygons\)"),
        (_no_column, SceneError, "must have an attribute 'sort', it has kind"),
        (_polygons_elsewhere, SceneError, "none of 1 does"),
        (_odd_part, SceneError, "must be train, validation or test, got 'practice'"),
    ],
)
def test_labels_that_do_not_fit(
    tmp_path: Path, make: Any, kind: type[TilemapError], message: str
) -> None:
    """Each is an error that names what is wrong, at the latest when all was read."""
    with pytest.raises(kind, match=message):  # noqa: PT012 - some show only when all is read
        scene, labels = _open(tmp_path, **make(tmp_path))
        _all(labels, scene)
        labels.labels.check()


def test_kampala_by_polygons_and_by_raster(data: Path) -> None:
    """24 % are roofs, and the raster made of the polygons says the same but at the edges."""
    scene = {"files": [f"scenes/{KAMPALA}_rgb.tif"], "resolution": 0.3}
    opened, polygons = _open(
        data, labels=f"labels/{KAMPALA}_buildings.gpkg", background="other", **scene
    )
    by_polygon = _all(polygons, opened)
    assert (by_polygon == 1).mean() == pytest.approx(0.242, abs=5e-4)
    _, raster = _open(data, labels=f"scenes/{KAMPALA}_buildings.tif", **scene)
    by_raster = _all(raster, opened)
    known = by_raster != IGNORE  # the scene's last row overhangs the raster
    assert known.mean() > 0.998
    assert (by_raster != by_polygon)[known].mean() < 0.005
    assert "by nearest neighbour" in raster.notes[0]


def test_flanders_holds_inside_its_locations(data: Path) -> None:
    """A null geometry is noted; labels hold inside the boxes only, whose parts are theirs."""
    opened, labels = _open(
        data,
        [{"name": "other", "value": 0}, {"name": "field", "value": 1, "labels": ["field"]}],
        files=["scenes/s2_flanders_2023_b08b04b03_u8.tif"],
        labels="labels/s2_flanders_fields_polygons.gpkg",
        layer="polygons",
        column="label_name",
        background="other",
        area="labels/s2_flanders_fields_locations.gpkg",
        area_split="traindata_type",
    )
    assert any("1 feature has no geometry" in note for note in labels.notes)
    label, part = labels.read(Window(0, 0, *opened.shape))
    assert part is not None
    boxes = pyogrio.raw.read(data / "labels/s2_flanders_fields_locations.gpkg", layer="locations")
    with rasterio.open(data / "scenes/s2_flanders_2023_b08b04b03_u8.tif") as file:
        kinds = boxes[3][list(boxes[0]["fields"]).index("traindata_type")]
        for kind, wanted in (("train", Part.TRAIN), ("validation", Part.VALIDATION)):
            shapes = [
                shapely.from_wkb(g) for g, k in zip(boxes[2], kinds, strict=True) if k == kind
            ]
            burned = rasterio.features.rasterize(shapes, file.shape, transform=file.transform)
            assert ((part == wanted) == (burned == 1)).all()
    assert ((label == IGNORE) == (part == Part.NONE)).all()
    assert 0 < (label == 1).sum() < (label == 0).sum()
