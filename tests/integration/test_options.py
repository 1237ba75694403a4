"""Several models, mirrored patches, uncertainty: one forward of the whole scene says the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tilemap import api
from tilemap.api import demo_scene, segment
from tilemap.errors import OutputError
from tilemap.geometry import Window
from tilemap.models import registry
from tilemap.models.card import BandStatistics
from tilemap.models.recipe import Recipe
from tilemap.probability import quantise
from tilemap.run import RunResult, execute
from tilemap.stages.segment import classify, measure_uncertainty
from tilemap.stores.marks import Mark
from tilemap.stores.predictions import PredictionStore
from tilemap.stores.probabilities import ProbabilityStore
from tilemap.testing import write_geotiff

pytest.importorskip("onnxruntime")
MODEL = "iplunet-cloud-6b"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
SHAPE = (139, 171)
"""2 x 3 tiles, the last row and column ragged."""
PRODUCTS = ("landcover.tif", "confidence.tif", "entropy.tif", "margin.tif")


def _pixels() -> np.ndarray:
    """Six bands of the scene that ships with made-up clouds, uint16 (band, y, x)."""
    with rasterio.open(demo_scene()[0]) as fine, rasterio.open(demo_scene()[1]) as coarse:
        near = fine.read(window=((300, 440), (400, 572)))
        far = coarse.read(window=((150, 220), (200, 286))).repeat(2, axis=1).repeat(2, axis=2)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    clouds = np.clip(np.sin(y / 17 + x / 29) * np.cos(x / 23 - y / 41), 0, None) * 5000
    return (np.concatenate([near, far])[:, : SHAPE[0], : SHAPE[1]] + clouds).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scene lies and the runs go."""
    return tmp_path_factory.mktemp("options")


@pytest.fixture(scope="module")
def scene(folder: Path) -> Path:
    """The crop as a GeoTIFF."""
    return write_geotiff(folder / "crop.tif", _pixels(), names=BANDS, scale=1e-4)


@pytest.fixture(scope="module")
def other(folder: Path) -> Path:
    """The model that ships, fed brighter pixels: it finds more cloud; trained in the dark."""
    ref = registry.resolve(MODEL)
    model = folder / "other"
    model.mkdir()
    shutil.copy(ref.path, model / ref.path.name)
    dark = BandStatistics(mean=0.01, std=0.01, quantiles=(0, 0, 0, 0.01, 0.01, 0.02, 0.02))
    change = {"mean": (-0.05,) * 6, "name": "other", "statistics": (dark,) * 6}
    registry.save_card(ref.card.model_copy(update=change), model)
    return model


def _options(other: Path) -> dict[str, object]:
    return {
        "model": [MODEL, other], "tta": "flips", "uncertainty": ("margin", "entropy"),
        "core": 64, "halo": 32, "blend": 8, "probabilities": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def mapped(folder: Path, scene: Path, other: Path) -> RunResult:
    """A run on two workers."""
    return segment(scene, out=folder / "two", workers=2, **_options(other))  # type: ignore[arg-type]


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        pixels: np.ndarray = file.read(1)
        return pixels


def _bytes(out: Path) -> dict[str, bytes]:
    chunks = sorted((out / "probabilities.zarr" / "probability" / "c").rglob("*"))
    kept = {str(c.relative_to(out)): c.read_bytes() for c in chunks if c.is_file()}
    assert len(kept) == 3 * 3
    return {**kept, **{name: (out / name).read_bytes() for name in PRODUCTS}}


def test_every_raster_is_that_of_one_forward_of_the_whole_scene(
    mapped: RunResult, other: Path
) -> None:
    """No pixel of any product differs; alone or unturned the model says something else."""
    pad, (rows, cols) = 64, SHAPE
    image = (_pixels() * np.float32(1e-4)).astype(np.float32)
    sides = ((0, 0), (pad, pad + -rows % 4), (pad, pad + -cols % 4))
    padded = np.ascontiguousarray(np.pad(image, sides, mode="reflect"))
    both = tuple(registry.resolve(model) for model in (MODEL, other))
    maps = []
    for recipe in (Recipe(both, "flips"), Recipe(both), Recipe(both[:1], "flips")):
        half = recipe.load().predict(padded).astype(np.float16)
        half = np.ascontiguousarray(half[:, pad : pad + rows, pad : pad + cols])
        label, percent = classify(half)
        entropy, margin = (measure_uncertainty(half, n) for n in ("entropy", "margin"))  # type: ignore[arg-type]
        maps.append((label, percent, entropy, margin, quantise(half)))
    paths = (mapped.landcover, mapped.confidence, *mapped.uncertainty.values())
    assert [path.name for path in paths] == list(PRODUCTS)
    for path, want in zip(paths, maps[0][:4], strict=True):
        np.testing.assert_array_equal(_read(path), want)
    store = ProbabilityStore(mapped.directory / "probabilities.zarr")
    np.testing.assert_array_equal(store.read_window(Window(0, 0, rows, cols)), maps[0][4])
    assert store.verify()
    assert [kind.name for kind in store.classes] == [c.name for c in both[0].card.classes]
    for less in maps[1:]:
        assert (less[1] != maps[0][1]).any()
    assert mapped.record["seam"]["differ"] == 0


def test_the_run_tells_what_it_was(mapped: RunResult) -> None:
    """Members, mode and rasters in the record; average overviews; all of it in the report."""
    record = mapped.record
    assert record["forwards"] == 8
    assert [m["name"] for m in record["identity"]["model"]["members"]] == [MODEL, "other"]
    assert tuple(record["products"]) == PRODUCTS
    for name, product in record["products"].items():
        assert registry.file_sha256(mapped.directory / name) == product["sha256"]
    for name in ("entropy", "margin"):
        with rasterio.open(mapped.directory / f"{name}.tif") as file:
            assert file.nodata == 255
            assert file.tags()["UNITS"] == "percent"
            assert name in str(file.descriptions[0]) or "next" in str(file.descriptions[0])
    assert 0 < record["memory"]["peak_bytes"] <= record["memory"]["planned_bytes"]
    (report,) = record["domain"]
    assert report["model"] == "other"
    assert report["warnings"] == record["warnings"]
    html = (mapped.directory / "report.html").read_text()
    for text in ("Entropy", "Margin", "Scene and training data", "other was trained on", "flips"):
        assert text in html


def test_plan_was_a_bound_and_tells_of_the_forwards(
    mapped: RunResult, scene: Path, other: Path
) -> None:
    """Of what lies on the disk; the cost of eight forwards beside that of one."""
    from tilemap.cli.segment import describe

    prepared = api.plan(scene, workers=2, **_options(other))  # type: ignore[arg-type]
    stores = sum(f.stat().st_size for f in (mapped.directory / "stores").rglob("*") if f.is_file())
    kept = mapped.directory / "probabilities.zarr"
    stores += sum(f.stat().st_size for f in kept.rglob("*") if f.is_file())
    assert stores <= prepared.plan.store_bytes
    (cost,) = [line for line in describe(prepared) if line.startswith("cost ")]
    assert cost.startswith("cost     8 forwards for each patch (2 models x 4 flips): ")
    assert prepared.times_one > 2  # eight, but for a machine that does something else meanwhile
    assert any("lie outside what other was trained on" in line for line in describe(prepared))


def test_one_worker_the_other_way_round_gives_the_same_bytes(
    mapped: RunResult, folder: Path, scene: Path, other: Path
) -> None:
    """From the last tile to the first."""
    prepared = api.plan(scene, workers=1, keep_stores=False, **_options(other))  # type: ignore[arg-type]
    order = list(prepared.plan.grid.tiles())[::-1]
    result = execute(prepared, folder / "one", order=order)
    assert _bytes(result.directory) == _bytes(mapped.directory)


def test_a_run_that_lost_a_tile_continues_to_the_same_bytes(
    mapped: RunResult, folder: Path, scene: Path, other: Path
) -> None:
    """Only that tile and the cores around it are made again."""
    out = folder / "again"
    shutil.copytree(mapped.directory, out)
    options = _options(other)
    grid = api.plan(scene, **options).plan.grid  # type: ignore[arg-type]
    store = PredictionStore(out / "stores" / "predictions.zarr", grid)
    store.marks.set(next(iter(grid.tiles())), Mark.MISSING)
    (out / "run.json").unlink()
    result = segment(scene, out=out, workers=1, **options)  # type: ignore[arg-type]
    assert result.record["tasks"]["done"] == 1 + 4
    assert _bytes(out) == _bytes(mapped.directory)


@pytest.mark.parametrize("lost", ["a flipped bit", "a chunk", "all of it"])
def test_probabilities_that_are_lost_are_made_again(
    mapped: RunResult, folder: Path, scene: Path, other: Path, lost: str
) -> None:
    """The same command finds it, stitches that alone anew, and ends in the same bytes."""
    out = folder / lost.replace(" ", "-")
    shutil.copytree(mapped.directory, out)
    chunk = out / "probabilities.zarr" / "probability" / "c" / "0" / "1" / "2"
    if lost == "a flipped bit":
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 8
        chunk.write_bytes(bytes(content))
    elif lost == "a chunk":
        chunk.unlink()
    else:
        shutil.rmtree(out / "probabilities.zarr")
    result = segment(scene, out=out, workers=1, **_options(other))  # type: ignore[arg-type]
    assert result.record["tasks"]["done"] == (9 if lost == "all of it" else 1)
    assert _bytes(out) == _bytes(mapped.directory)
    again = segment(scene, out=out, workers=1, **_options(other))  # type: ignore[arg-type]
    assert again.resumed == 18  # nothing to do


def test_probabilities_are_part_of_what_a_run_is(
    mapped: RunResult, scene: Path, other: Path
) -> None:
    """A run with them is not continued without; the difference is named."""
    options = {**_options(other), "probabilities": False}
    with pytest.raises(OutputError, match=r"probabilities was logarithmic, now \(absent\)"):
        segment(scene, out=mapped.directory, workers=1, **options)  # type: ignore[arg-type]
    plans = [api.plan(scene, **o).plan.store_bytes for o in (options, _options(other))]  # type: ignore[arg-type]
    assert plans[1] > plans[0] + 2 * SHAPE[0] * SHAPE[1]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_no_engine_reports_to_anybody(scene: Path, tmp_path: Path, engine: str) -> None:
    """No process leaves an id for statistics, which engines write before they call."""
    pytest.importorskip(engine)
    home = tmp_path / "home"
    home.mkdir()
    silent = {"ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME"}
    environment = {k: v for k, v in os.environ.items() if k not in silent} | {"HOME": str(home)}
    command = [
        sys.executable, "-m", "tilemap.cli.main", "segment", scene, "--model", MODEL,
        "--engine", engine, "--workers", "1", "--out", tmp_path / "out",
    ]  # fmt: skip
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=300)
    left = [str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()]
    assert not [name for name in left if not name.startswith(".local/share/tilemap")]
