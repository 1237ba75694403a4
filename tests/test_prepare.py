"""What can be known before a run: whose it is, and which grid an earlier one chose."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
from odc.geo.crs import CRS

from tilemap import prepare as prepare_module
from tilemap.cluster import ClusterSettings
from tilemap.cluster.table import ClusterTable
from tilemap.directory import RunDirectory, differences, write_json
from tilemap.errors import ConfigError, ModelError, SceneError, UnavailableError, UsageError
from tilemap.measure import MB, Cost, Trial
from tilemap.models import registry
from tilemap.models.card import BandStatistics, ModelCard
from tilemap.models.registry import ModelRef
from tilemap.prepare import Prepared, SegmentSettings, prepare
from tilemap.run_plan import GridSettings
from tilemap.scene import SceneRequest
from tilemap.testing import random_scene, toy_card, write_geotiff
from tilemap.worker import Backend

COST = Cost("cpu", 300 * MB, 500.0, 1e-6)
CARD = toy_card(context=3, stride=8)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene that has what the toy takes."""
    image = random_scene((300, 410))
    return write_geotiff(tmp_path / "scene.tif", image, names=CARD.bands, scale=1e-4)


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A toy for a model, whose card and cost a test may change."""
    now: dict[str, Any] = {"card": CARD, "cost": COST}

    def resolve(_: object) -> ModelRef:
        card: ModelCard = now["card"]
        return ModelRef(card, tmp_path / "toy.none", card.sha256, tmp_path / "model.json")

    monkeypatch.setattr(registry, "resolve", resolve)
    monkeypatch.setattr(prepare_module, "measure", lambda _: now["cost"])
    return now


def _prepare(scene: Path, out: Path | None = None, **settings: Any) -> Prepared:
    return prepare(SceneRequest((str(scene),)), ("toy",), SegmentSettings(**settings), out)


def test_the_same_is_the_same(scene: Path) -> None:
    """Nothing in an identity depends on when or how often it is asked, or on the workers."""
    one = _prepare(scene)
    two = _prepare(scene, cluster=ClusterSettings(workers=3), keep_stores=False)
    assert one.digest == two.digest
    assert json.loads(json.dumps(one.identity)) == one.identity


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"mean": (0.1, 0.1, 0.1)}, "model.mean"),
        ({"std": (2.0, 2.0, 2.0)}, "model.std"),
        ({"activation": "logits"}, "model.activation"),
        ({"temperature": 2.0}, "model.temperature"),
        ({"bands": ("nir", "green", "red")}, "model.bands[0]"),
        ({"sha256": "1" * 64}, "model.sha256"),
        ({"context": 40}, "grid.halo"),
    ],
)
def test_another_card_is_another_run(
    scene: Path, toy: dict[str, Any], change: dict[str, Any], where: str
) -> None:
    """Whatever on it changes the map, the difference is told; a title does not."""
    before = _prepare(scene)
    toy["card"] = CARD.model_copy(update={"title": "Better told"})
    assert _prepare(scene).digest == before.digest
    toy["card"] = CARD.model_copy(update=change)
    now = _prepare(scene)
    assert now.digest != before.digest
    assert any(line.startswith(where) for line in differences(before.identity, now.identity))


def test_another_input_is_another_run(scene: Path) -> None:
    """A pixel that changed, a scale, a resolution."""
    before = _prepare(scene)
    request = SceneRequest((str(scene),), scale=2e-4)
    assert prepare(request, ("toy",), SegmentSettings()).digest != before.digest
    write_geotiff(scene, random_scene((300, 410), seed=1), names=CARD.bands, scale=1e-4)
    assert _prepare(scene).digest != before.digest
    assert _prepare(scene, backend=Backend(precision="bfloat16")).digest != before.digest


def _lines(before: Prepared, now: Prepared) -> list[str]:
    return differences(before.identity, now.identity)


def test_the_order_of_the_bands_is_another_run(scene: Path) -> None:
    """The same files and names, but other planes for them; the difference is told by the band."""
    before, now = (
        prepare(SceneRequest((str(scene),), band_names=names), ("toy",), SegmentSettings())
        for names in (CARD.bands, tuple(reversed(CARD.bands)))
    )
    assert now.digest != before.digest
    assert "planes.red[0].plane was 1, now 3" in _lines(before, now)


def test_the_order_of_files_that_cover_each_other_is_another_run(tmp_path: Path) -> None:
    """The first that has a valid pixel wins."""
    paths = [
        write_geotiff(tmp_path / f"{n}.tif", random_scene((96, 96), seed=n), names=CARD.bands,
                      scale=1e-4)
        for n in (1, 2)
    ]  # fmt: skip
    before, now = (
        prepare(SceneRequest(tuple(map(str, order))), ("toy",), SegmentSettings())
        for order in (paths, paths[::-1])
    )
    assert now.digest != before.digest


def test_a_scene_that_moves_is_the_same_run(scene: Path, tmp_path: Path) -> None:
    """Another folder, another name, another time, under another day of modification."""
    before = _prepare(scene)
    other = tmp_path / "archive" / "renamed.tif"
    other.parent.mkdir()
    shutil.copyfile(scene, other)
    assert _prepare(other).digest == before.digest


def test_a_grid_counts_by_what_it_is(scene: Path, tmp_path: Path) -> None:
    """``like`` in another place is the same run; with another grid under its path it is not."""
    grids = [tmp_path / name for name in ("one.tif", "two.tif")]
    for path in grids:
        write_geotiff(path, random_scene((200, 310)))

    def run(path: Path) -> Prepared:
        return prepare(SceneRequest((str(scene),), like=str(path)), ("toy",), SegmentSettings())

    before = run(grids[0])
    assert run(grids[1]).digest == before.digest
    write_geotiff(grids[0], random_scene((210, 310)))
    assert "scene.shape[0] was 200, now 210" in _lines(before, run(grids[0]))


def test_a_mask_beside_the_scene_is_another_run(scene: Path) -> None:
    """A file of its own; what hides a pixel decides it."""
    before = _prepare(scene)
    digests = [before.digest]
    for shift in (0, 1):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(scene, "r+") as dataset:
            dataset.write_mask(np.eye(300, 410, shift) > 0)
        assert Path(f"{scene}.msk").exists()
        digests.append(_prepare(scene).digest)
    assert len(set(digests)) == 3


def test_statistics_that_a_gis_leaves_beside_the_scene_do_not_count(scene: Path) -> None:
    """They decide no pixel; the nodata that such a file may declare does."""
    before, beside = _prepare(scene), Path(f"{scene}.aux.xml")
    text = '<PAMDataset><PAMRasterBand band="1">{}</PAMRasterBand></PAMDataset>'
    beside.write_text(text.format('<Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata>'))
    assert _prepare(scene).digest == before.digest
    beside.write_text(text.format("<NoDataValue>7</NoDataValue>"))
    assert "planes.red[0].nodata was None, now 7.0" in _lines(before, _prepare(scene))


def test_what_is_asked_of_the_model_makes_another_run(
    scene: Path, toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other augmentation, another measure, one more member or their order: each is told."""
    other, path = CARD.model_copy(update={"sha256": "1" * 64, "name": "other"}), Path("toy.onnx")
    cards = {"toy": CARD, "other": other}
    monkeypatch.setattr(
        registry, "resolve", lambda n: ModelRef(cards[n], path, cards[n].sha256, scene)
    )
    request = SceneRequest((str(scene),))

    def run(models: tuple[str, ...] = ("toy",), **settings: Any) -> Prepared:
        return prepare(request, models, SegmentSettings(**settings))

    before = run()
    assert before.model.forwards == 1
    for now, where in (
        (run(tta="flips"), "model.tta was none, now flips"),
        (run(backend=Backend(engine="openvino")), "backend.engine was"),
        (run(uncertainty=("margin",)), "uncertainty was [], now ['margin']"),
        (run(("toy", "other")), "model.sha256 was"),
    ):
        assert now.digest != before.digest
        assert any(line.startswith(where) for line in differences(before.identity, now.identity))
    both = run(("toy", "other"), tta="flips")
    assert both.digest != run(("other", "toy"), tta="flips").digest
    assert run(backend=Backend(engine="onnxruntime")).digest == before.digest  # what auto is
    with pytest.raises(UsageError, match="engine onnxruntime or openvino, got torch"):
        run(backend=Backend(engine="torch"))
    assert [m["name"] for m in both.identity["model"]["members"]] == ["toy-box", "other"]
    assert both.model.forwards == 8
    assert both.plan.tasks == before.plan.tasks
    cards["other"] = other.model_copy(update={"temperature": 2.0})
    assert run(("toy", "other"), tta="flips").digest != both.digest
    cards["other"] = other.model_copy(update={"bands": ("red", "green", "blue")})
    with pytest.raises(ModelError, match="same bands"):
        run(("toy", "other"))


def test_several_forwards_are_compared_with_one(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured of the whole, and of the first model alone; one model is measured once."""
    asked: list[int] = []

    def cost(trial: Trial) -> Cost:
        asked.append(trial.model.forwards)
        return dataclasses.replace(COST, seconds_per_pixel=1e-6 * (trial.model.forwards + 0.1))

    monkeypatch.setattr(prepare_module, "measure", cost)
    assert _prepare(scene).times_one == 1
    assert asked == [1]
    prepared = prepare(SceneRequest((str(scene),)), ("toy",) * 2, SegmentSettings(tta="flips"))
    assert asked == [1, 8, 1]
    assert prepared.times_one == pytest.approx(8.1 / 1.1)


def test_a_scene_unlike_the_training_is_warned_of(scene: Path, toy: dict[str, Any]) -> None:
    """In the plan, for each model whose card tells; it makes no other run."""
    before = _prepare(scene)
    assert before.warnings == before.source.warnings == ()
    assert before.domain == ()
    known = BandStatistics(mean=0.01, std=0.01, quantiles=(0, 0, 0, 0.01, 0.01, 0.02, 0.02))
    change = {"statistics": (known,) * 3, "gsd_m": (1.0, 2.0), "name": "narrow"}
    toy["card"] = CARD.model_copy(update=change)
    now = _prepare(scene)
    bands, pixels = now.warnings
    assert "lie outside what narrow was trained on" in bands
    assert pixels.startswith("pixels are 10 m, narrow was trained on 1 to 2 m")
    assert now.identity["model"] | {"name": ""} == before.identity["model"] | {"name": ""}
    (report,) = now.domain
    assert report.gsd_m == pytest.approx(10, rel=0.01)
    assert len(prepare(SceneRequest((str(scene),)), ("toy",) * 2, SegmentSettings()).domain) == 2


def _leave(out: Path, prepared: Prepared) -> None:
    directory = RunDirectory(out)
    directory.stores.mkdir(parents=True)
    write_json(directory.identity_file, prepared.identity)


def test_a_run_that_continues_keeps_its_core(
    scene: Path, tmp_path: Path, toy: dict[str, Any]
) -> None:
    """With today's memory limit it would be another; only in that directory."""
    out = tmp_path / "out"
    _leave(out, _prepare(scene, grid=GridSettings(core=64)))
    assert _prepare(scene, out).plan.grid.core == 64
    assert _prepare(scene, tmp_path / "other").plan.grid.core != 64
    assert _prepare(scene, out, grid=GridSettings(core=128)).plan.grid.core == 128
    toy["card"] = CARD.model_copy(update={"sha256": "1" * 64})
    assert _prepare(scene, out).plan.grid.core != 64


@pytest.mark.parametrize("shape", [(300, 410), (1500, 1300)])
def test_no_stopwatch_has_a_say_in_the_cut(
    tmp_path: Path, toy: dict[str, Any], shape: tuple[int, int]
) -> None:
    """A machine a thousand times slower, or with more workers, cuts the same command the same."""
    path = write_geotiff(tmp_path / "s.tif", random_scene(shape), names=CARD.bands, scale=1e-4)
    before = _prepare(path, cluster=ClusterSettings(workers=1))
    for seconds in (1e-9, 1e-3):
        toy["cost"] = dataclasses.replace(COST, seconds_per_pixel=seconds)
        now = _prepare(path, cluster=ClusterSettings(workers=2))
        assert now.plan.grid == before.plan.grid
        assert now.digest == before.digest
        assert now.plan.seconds != before.plan.seconds


def test_another_halo_for_a_model_of_one_size_is_another_run(
    scene: Path, tmp_path: Path, toy: dict[str, Any]
) -> None:
    """Its core follows from the halo; the earlier one is not forced upon it."""
    toy["card"] = CARD.model_copy(update={"patch": 128})
    before = _prepare(scene)
    _leave(tmp_path / "out", before)
    now = _prepare(scene, tmp_path / "out", grid=GridSettings(halo=32))
    assert now.plan.grid.core == 64
    assert "grid.core was 96, now 64" in differences(before.identity, now.identity)


@pytest.mark.parametrize(
    "record", [[1], {}, {"identity": {}}, {"identity": {"model": 3}}, {"identity": "mine"}]
)
def test_records_of_other_programs_do_no_harm(scene: Path, tmp_path: Path, record: Any) -> None:
    """They are no runs of ours; the directory is refused when it is to be used."""
    out = tmp_path / "out"
    out.mkdir()
    write_json(out / "run.json", record)
    assert _prepare(scene, out).digest == _prepare(scene).digest


def test_a_small_memory_limit_makes_small_patches(scene: Path) -> None:
    """Down to the smallest that works, which the error tells."""
    limit = COST.worker_bytes(96)
    small = _prepare(scene, cluster=ClusterSettings(workers=1, memory_limit=limit))
    assert small.plan.grid.patch <= 96
    assert small.plan.worker_bytes <= limit
    with pytest.raises(ConfigError, match="`memory_limit`"):
        _prepare(scene, cluster=ClusterSettings(workers=1, memory_limit=100 * MB))


def test_what_does_not_fit_is_said(scene: Path, tmp_path: Path, toy: dict[str, Any]) -> None:
    """A missing band names both lists; integers need a scale."""
    toy["card"] = CARD.model_copy(update={"bands": ("red", "swir16", "nir")})
    with pytest.raises(SceneError, match=r"(?s)swir16.*red, green, nir") as caught:
        _prepare(scene)
    assert len(str(caught.value).splitlines()) <= 2
    toy["card"] = CARD
    plain = write_geotiff(tmp_path / "plain.tif", random_scene((50, 60)), names=CARD.bands)
    with pytest.raises(SceneError, match="give the scale"):
        _prepare(plain)


def test_a_crs_that_no_product_can_have_is_refused_before_the_run(tmp_path: Path) -> None:
    """Not after all tiles are done."""
    image = random_scene((32, 40))
    path = write_geotiff(tmp_path / "a.tif", image, crs=None, names=CARD.bands)
    ganymede = CRS("IAU_2015:50316").to_wkt()
    beside = "<PAMDataset><SRS>{}</SRS></PAMDataset>"
    path.with_name("a.tif.aux.xml").write_text(beside.format(escape(ganymede)))
    with pytest.raises(SceneError, match="must be one that a GeoTIFF can hold"):
        _prepare(path)


def test_not_a_number_as_nodata_has_a_digest(tmp_path: Path) -> None:
    """And the run is the same as itself when it is read back."""
    image = random_scene((60, 50), dtype=np.float32)
    path = write_geotiff(tmp_path / "n.tif", image, names=CARD.bands, nodata=float("nan"))
    prepared = _prepare(path)
    _leave(tmp_path / "out", prepared)
    RunDirectory(tmp_path / "out").check(_prepare(path).identity, fresh=False)


def test_models_are_asked_for_first(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is opened for a model that is not there."""

    def none(_: object) -> ModelRef:
        raise ModelError("no model 'toy'")

    monkeypatch.setattr(registry, "resolve", none)
    with pytest.raises(ModelError, match="no model"):
        _prepare(scene.with_name("gone.tif"))


def test_a_prepared_run_is_frozen(scene: Path) -> None:
    """Nobody changes it between plan and run."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        _prepare(scene).plan = None  # type: ignore[misc, assignment]


@pytest.mark.parametrize(
    ("asked", "table", "device"),
    [
        ("auto", {"kind": "address", "scheduler": "tls://a:1", "device": "cuda"}, "cuda"),
        ("cpu", {"kind": "address", "scheduler": "tls://a:1", "device": "cuda"}, "cpu"),
        ("cuda", {"kind": "address", "scheduler": "tls://a:1"}, "cuda"),
        ("auto", {"kind": "address", "scheduler": "tls://a:1"}, "cpu"),
    ],
)
def test_a_cluster_of_gpus_is_planned_for_without_one(
    scene: Path,
    toy: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    table: dict[str, Any],
    device: str,
) -> None:
    """Its table says what it is for; a run that leaves its device open goes there unchanged."""

    def measure(trial: Any) -> Any:
        if trial.device.startswith("cuda"):
            raise UnavailableError("no CUDA here")
        return toy["cost"]

    monkeypatch.setattr(prepare_module, "measure", measure)
    cluster = ClusterTable(**table).settings()
    found = _prepare(scene, backend=Backend(asked), cluster=cluster)
    assert found.plan.device == found.identity["backend"]["device"] == device
    here = ClusterTable(device="cuda").settings()
    with pytest.raises(UnavailableError, match="no CUDA here"):
        _prepare(scene, cluster=here)
