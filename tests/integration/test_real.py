"""Real scenes and real trained models: the figures that the project stands for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate
from safetensors.torch import save_file

from tilemap import api
from tilemap.geometry import TileGrid, Window
from tilemap.models import registry
from tilemap.models.card import ClassInfo, ModelCard
from tilemap.models.networks import build
from tilemap.models.protocol import Model
from tilemap.stages.segment import standardise
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneReader, SceneRequest, open_scene
from tilemap.testing import map_in_memory, tiled_probability

TEACHER = "models/ukis_csmask_0.2.1_model_6b_5class.onnx"
ITAIPU = ("scenes/l8_l1tp_224078_20200518_b234.tif", "scenes/l8_l1tp_224077_20200518_b234_crop.tif")


def _virginia(data: Path) -> list[Path]:
    return [data / "scenes" / f"s2_l1c_va_eastern_shore_{gsd}m.tif" for gsd in (10, 20)]


def _shares(record: dict) -> dict[str, float]:
    return {row["name"]: row["share"] for row in record["classes"]}


@pytest.fixture(scope="module")
def finite() -> Model:
    """The trained model that looks exactly 24 pixels around each."""
    return registry.load(registry.resolve("iplunet-cloud-6b"), "cpu", "float32", 2)


@pytest.fixture(scope="module")
def crop(finite: Model) -> SceneReader:
    """The scene that ships with the package."""
    files = tuple(str(path) for path in api.demo_scene())
    return open_scene(SceneRequest(files, bands=finite.card.bands)).open()


def _whole(reader: SceneReader, model: Model, pad: int) -> np.ndarray:
    """Probabilities of one forward of the whole scene, padded by the same reflection."""
    rows, cols = reader.scene.shape
    stride = model.card.stride
    window = Window(
        -pad, -pad, -(-rows // stride) * stride + pad, -(-cols // stride) * stride + pad
    )
    standard = standardise(*read_patch(reader, window), reader.scene, model.card)
    return model.predict(standard, Window(pad, pad, pad + rows, pad + cols))


@pytest.fixture(scope="module")
def whole(crop: SceneReader, finite: Model) -> np.ndarray:
    """The oracle of the finite-context model."""
    return _whole(crop, finite, 32)


@pytest.mark.parametrize("core", [128, 256])
def test_tiled_probabilities_are_those_of_the_whole_scene(
    core: int, crop: SceneReader, finite: Model, whole: np.ndarray
) -> None:
    """Halo 24 shows the model all it looks at: bit-identical, where the runtime rounds alike."""
    tiled = tiled_probability(crop, finite, TileGrid(crop.scene.shape, core, 24, 0, 4))
    assert np.abs(tiled - whole).max() <= (0 if core == 128 else 1e-6)


@pytest.mark.parametrize(("halo", "low", "high"), [(20, 1e-5, 0.01), (0, 0.1, 1.0)])
def test_a_halo_below_the_context_shows(
    halo: int, low: float, high: float, crop: SceneReader, finite: Model, whole: np.ndarray
) -> None:
    """The test above can fail: four pixels too few are seen, and none at all badly so."""
    tiled = tiled_probability(crop, finite, TileGrid(crop.scene.shape, 128, halo, 0, 4))
    assert low < np.abs(tiled - whole).max() < high


def test_the_cut_leaves_no_trace_in_labels(crop: SceneReader, finite: Model) -> None:
    """Cores of 128, 256, 512 and 960 pixels: not one label and not one percent differs."""
    maps = [
        map_in_memory(crop, finite, TileGrid(crop.scene.shape, core, 32, 8, 4))
        for core in (128, 256, 512, 960)
    ]
    for landcover, confidence in maps[1:]:
        np.testing.assert_array_equal(landcover, maps[0][0])
        assert np.count_nonzero(confidence != maps[0][1]) <= 1e-6 * confidence.size


@pytest.mark.slow
def test_five_classes_over_virginia(data: Path, tmp_path: Path) -> None:
    """The 5-class model at 10 m: shares as known, and a file that GIS tools open as it is."""
    scenes = _virginia(data)
    out = tmp_path / "run"
    result = api.segment(
        scenes, model=data / TEACHER, out=out, scale=1e-4, keep_stores=False, halo=32, blend=8
    )
    shares = _shares(result.record)
    for name, share in {"water": 0.512, "land": 0.428, "shadow": 0.047}.items():
        assert shares[name] == pytest.approx(share, abs=0.01)
    valid, errors, warnings = cog_validate(str(result.landcover), strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(result.landcover) as got, rasterio.open(scenes[0]) as scene:
        assert got.transform == scene.transform
        assert got.crs == scene.crs
        assert got.shape == scene.shape
        assert got.nodata == 255
        colors = {c.value: c.rgb for c in registry.resolve(data / TEACHER).card.classes}
        assert {value: got.colormap(1)[value][:3] for value in colors} == colors
        assert got.tags()["CLASS_1"] == "water"
    assert "water" in (out / "landcover.tif.aux.xml").read_text()


def test_five_classes_over_virginia_at_30_m(data: Path, tmp_path: Path) -> None:
    """The same averaged to 30 m."""
    result = api.segment(
        _virginia(data), model=data / TEACHER, out=tmp_path / "run", scale=1e-4, resolution=30
    )
    shares = _shares(result.record)
    assert shares["water"] == pytest.approx(0.518, abs=0.01)
    assert shares["land"] == pytest.approx(0.473, abs=0.01)


def test_five_classes_against_the_hand_mask(data: Path, tmp_path: Path) -> None:
    """Overall accuracy of the 5-class model on a plain image without CRS: as published."""
    with np.load(data / "scenes" / "csmask_sentinel2_512_6b_5class.npz") as file:
        image, truth = file["img"], file["msk"][..., 0]
    path = tmp_path / "plain.tif"
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(
        path, "w", driver="GTiff", count=6, height=512, width=512, dtype="float32"
    ) as out:  # fmt: skip
        out.write(np.moveaxis(image, -1, 0))
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    result = api.segment(path, model=data / TEACHER, out=tmp_path / "run", bands=names)
    assert len(result.record["warnings"]) == 1
    with pytest.warns(NotGeoreferencedWarning):
        file = rasterio.open(result.landcover)
    with file:
        assert file.crs is None
        label = file.read(1)
    assert (label == truth).mean() == pytest.approx(0.967, abs=0.005)


@pytest.mark.slow
def test_the_seam_of_a_mosaic_is_invisible(data: Path, tmp_path: Path) -> None:
    """Itaipu: in the overlap the mosaic's labels are those of either scene alone.

    All three are brought onto the grid of the overlap, so that patches begin at the same pixels.
    The mosaic takes the first scene where it is observed: patches away from its swath edge are
    the same in both, and every label of them is. The second was resampled on its own: 70 % of the
    pixels differ from the first, half of them by one unit of 8000, 1 % by more than 11; labels
    follow that closely and not exactly.
    """
    files = tuple(str(data / name) for name in ITAIPU)
    request = SceneRequest(files, bands=("blue", "green", "red"), nodata=0, scale=2e-5)
    first, second = (open_scene(replace(request, sources=(name,))).scene for name in files)
    like = _empty_raster(tmp_path / "like.tif", _overlap(first.geobox, second.geobox))
    with open_scene(request).open() as reader:
        model = _seeded_unet(tmp_path / "model", reader)
    with open_scene(replace(request, like=str(like))).open() as joined:
        grid = TileGrid(joined.scene.shape, 160, 64, 16, 32)
        label, _ = map_in_memory(joined, model, grid)
        shares = np.bincount(label.ravel(), minlength=256)[:255] / (label != 255).sum()
        assert np.count_nonzero(shares > 0.01) >= 3  # not one class everywhere
        for name, least in zip(files, (200_000, 0), strict=True):
            with open_scene(replace(request, sources=(name,), like=str(like))).open() as single:
                own, _ = map_in_memory(single, model, grid)
                away = _same_patches(joined, single, grid)
            overlap = (own != 255) & (label != 255)
            assert (away & overlap).sum() > least
            np.testing.assert_array_equal(own[away & overlap], label[away & overlap])
            assert (own[overlap] == label[overlap]).mean() > 0.97


def _seeded_unet(folder: Path, reader: SceneReader) -> Model:
    """A U-Net of three bands with seeded weights, through the registry like any other.

    The last bias is moved so that on a crop of the scene no class wins by default.
    """
    architecture = {"name": "unet", "encoder": "resnet18", "width": 8}
    torch.manual_seed(3)
    network = build(architecture, 3, 5)
    network.eval()
    image, _ = reader.read(Window(800, 800, 1056, 1056))
    with torch.inference_mode():
        logits = network((torch.from_numpy(image * np.float32(2e-5))[None] - 0.2) / 0.02)
    network.state_dict()["head.bias"] -= logits.mean(dim=(0, 2, 3))
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    card = ModelCard(
        name="seeded",
        title="Seeded",
        description="Weights that were never trained.",
        license="Apache-2.0",
        bands=("blue", "green", "red"),
        mean=(0.2, 0.2, 0.2),
        std=(0.02, 0.02, 0.02),
        architecture=architecture,
        classes=tuple(ClassInfo(value=i, name=f"class {i}", color="#808080") for i in range(5)),
        weights="model.safetensors",
        sha256=registry.file_sha256(folder / "model.safetensors"),
    )
    registry.save_card(card, folder)
    return registry.load(registry.resolve(folder), "cpu", "float32", 2)


def _overlap(one: GeoBox, two: GeoBox) -> GeoBox:
    """What two grids of the same pixels have in common."""
    size, both = one.affine.a, (one, two)
    left, top = max(box.affine.c for box in both), min(box.affine.f for box in both)
    right = min(box.affine.c + size * box.shape[1] for box in both)
    bottom = max(box.affine.f - size * box.shape[0] for box in both)
    shape = (round((top - bottom) / size), round((right - left) / size))
    return GeoBox(shape, Affine(size, 0, left, 0, -size, top), one.crs)


def _empty_raster(path: Path, geobox: GeoBox) -> Path:
    rows, cols = geobox.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "sparse_ok": True}
    crs, transform = geobox.crs.to_wkt(), geobox.affine
    with rasterio.open(path, "w", **profile, height=rows, width=cols, crs=crs, transform=transform):
        return path


def _same_patches(joined: SceneReader, single: SceneReader, grid: TileGrid) -> np.ndarray:
    """Where both runs show the model the same: interiors of tiles whose patches are equal."""
    same = np.zeros(grid.scene, dtype=np.bool_)
    for tile in grid.tiles():
        window = grid.patch_window(tile)
        one, two = read_patch(joined, window), read_patch(single, window)
        if np.array_equal(one[1], two[1]) and np.array_equal(one[0], two[0]):
            same[grid.interior_window(tile).slices()] = True
    return same
