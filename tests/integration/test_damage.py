"""Nothing damaged is believed: flip or cut any file, run the same command, get the same bytes.

``TILEMAP_FLIPS`` says how many files of each directory are damaged, one after another (default 8).
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from distributed import Client

from tilemap import api
from tilemap.changing.execute import ChangeResult, execute_series
from tilemap.changing.prepare import prepare_series
from tilemap.errors import OutputError, TilemapError
from tilemap.models.card import BandStatistics, ClassInfo, ModelCard
from tilemap.models.registry import file_sha256, save_card
from tilemap.progress import Silent
from tilemap.run import RunResult, execute
from tilemap.stores.probabilities import ProbabilityStore
from tilemap.testing import write_geotiff

onnx = pytest.importorskip("onnx")
FLIPS = int(os.environ.get("TILEMAP_FLIPS", "8"))
BANDS = ("red", "green", "nir")
DATES = ("2020-06-01", "2021-06-01")
SHAPE = (75, 101)
CHANGING = ("report.html", "run.json", "item.json")
"""Files that hold the time of the run."""


class _Stop(Silent):
    """Ctrl-C after some tasks."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, receipt: Any, pixels: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@dataclass
class Place:
    """Scenes, a model and a cluster in this process; ``folder`` is the root of all."""

    folder: Path
    client: Client

    def segment(
        self, out: Path, date: int = 0, progress: Any = None, scene: Path | None = None,
        model: str = "toy", core: int = 48, probabilities: bool = True,
    ) -> RunResult:  # fmt: skip
        """Run ``tilemap segment``."""
        scene = scene or self.folder / f"{DATES[date]}.tif"
        prepared = api.plan(
            scene, model=str(self.folder / model), out=out, core=core, halo=4,
            blend=4, workers=1, uncertainty=["entropy"], probabilities=probabilities,
        )  # fmt: skip
        return execute(prepared, out, progress=progress, client=self.client)

    def change(
        self, out: Path, progress: Any = None, inputs: Sequence[Path] | None = None
    ) -> ChangeResult:
        """Run ``tilemap change``, on the two runs by default."""
        inputs = inputs or [self.folder / f"run{date}" for date in range(len(DATES))]
        settings = api.change_settings(
            [str(one) for one in inputs], None, {"core": 48, "workers": 1, "mmu_ha": 0.05}
        )
        prepared = prepare_series(settings, out)
        return execute_series(prepared, out, progress=progress, client=self.client)


def make_toy(folder: Path, surveyed: bool = False) -> None:
    """A model of single pixels; one that is ``surveyed`` knows what its training data was like."""
    folder.mkdir()
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    float_, sides = onnx.TensorProto.FLOAT, ["h", "w"]
    weight = (np.eye(3, dtype=np.float32) * 50).reshape(3, 3, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"], kernel_shape=[1, 1])],
        "toy",
        [helper.make_tensor_value_info("x", float_, ["n", 3, *sides])],
        [helper.make_tensor_value_info("y", float_, ["n", 3, *sides])],
        [to_tensor(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    kinds = (("water", "#2b6cb0"), ("forest", "#2f855a"), ("town", "#c53030"))
    seen = BandStatistics(mean=0.2, std=0.1, quantiles=(0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4))
    card = ModelCard(
        statistics=(seen,) * 3 if surveyed else None,
        name="toy", title="Toy", description="One pixel.", license="CC0-1.0", bands=BANDS,
        stride=1, context=0, weights="model.onnx", sha256=file_sha256(folder / "model.onnx"),
        classes=tuple(ClassInfo(value=i, name=n, color=c) for i, (n, c) in enumerate(kinds, 1)),
    )  # fmt: skip
    save_card(card, folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Everything that the runs need, and the finished and the interrupted ones."""
    folder = tmp_path_factory.mktemp("damage")
    make_toy(folder / "toy")
    make_toy(folder / "surveyed", surveyed=True)
    draw = np.random.default_rng(7)
    smooth = (
        draw.random((3, 8, 11)).repeat(10, axis=1).repeat(10, axis=2)[:, : SHAPE[0], : SHAPE[1]]
    )
    for date in range(len(DATES)):
        changed = smooth.copy()
        changed[:, 20:40, 30:60] = np.roll(changed[:, 20:40, 30:60], date, axis=0)
        pixels = (changed * 3000 + draw.random((3, *SHAPE)) * 300 + 500).astype(np.uint16)
        write_geotiff(folder / f"{DATES[date]}.tif", pixels, names=BANDS, scale=1e-4)
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as client:
        made = Place(folder, client)
        for date in range(len(DATES)):
            made.segment(folder / f"run{date}", date)
        made.change(folder / "changed")
        for raster, least in (("run0/landcover.tif", 3), ("changed/change.tif", 5)):
            with rasterio.open(folder / raster) as file:
                assert len(np.unique(file.read(1))) >= least  # so that other bytes would show
        with pytest.raises(KeyboardInterrupt):
            made.segment(folder / "run-begun", progress=_Stop(8))
        with pytest.raises(KeyboardInterrupt):
            made.change(folder / "changed-begun", progress=_Stop(20))
        yield made


def _content(out: Path) -> dict[str, bytes]:
    """All that a run leaves for people, without what holds the time of the run."""
    files = {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.is_file() and path.name not in CHANGING
    }
    files |= {name: b"" for name in CHANGING if (out / name).is_file()}
    if (store := out / "probabilities.zarr").is_dir():
        kept = ProbabilityStore(store)
        files["geobox"] = repr(kept.geobox).encode()
        files["probabilities"] = kept.read_window(kept.grid.scene_window).tobytes()
    return files


def _kind(path: Path) -> str:
    return re.sub(r"\d+", "0", path.as_posix())


def damage(tree: Path, seed: int, in_place: bool = False, names: str = "*") -> str:
    """Flip a bit of a file, or cut it; every kind of file has the same chance.

    Args:
        in_place: damage what other names of the file lead to as well.
        names: of the files to choose from.
    """
    draw = random.Random(seed)
    kinds: dict[str, list[Path]] = {}
    for path in sorted(tree.rglob(names)):
        if path.is_file() and path.stat().st_size:
            kinds.setdefault(_kind(path.relative_to(tree)), []).append(path)
    path = draw.choice(kinds[draw.choice(sorted(kinds))])
    content = bytearray(path.read_bytes())
    where = draw.randrange(len(content))
    if draw.random() < 0.25:
        del content[where:]
        done = f"cut to {where} bytes"
    else:
        content[where] ^= 1 << draw.randrange(8)
        done = f"a bit flipped in byte {where}"
    if not in_place:
        path.unlink()  # of a hard link, only this one
    path.write_bytes(content)
    return f"{path.relative_to(tree)}: {done}"


def _again(command: Callable[[], Any], out: Path, want: dict[str, bytes]) -> str | None:
    """Say what is wrong after the same command, if anything is."""
    try:
        status = command().status
    except TilemapError as error:
        return f"refused: {error}"
    found = _content(out)
    other = sorted(n for n in want.keys() | found.keys() if want.get(n) != found.get(n))
    return f"{status}, but other bytes: {other}" if other or status != "ok" else None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FLIPS))
@pytest.mark.parametrize("begun", ["run0", "run-begun", "changed", "changed-begun"])
def test_whatever_is_damaged_is_made_again(
    place: Place, tmp_path: Path, begun: str, seed: int
) -> None:
    """One damaged file anywhere in a directory: the same command ends with the same bytes."""
    run: Callable[[Path], Any] = place.segment if "run" in begun else place.change
    want = _content(place.folder / ("run0" if "run" in begun else "changed"))
    out = tmp_path / "out"
    shutil.copytree(place.folder / begun, out)
    done = damage(out, seed)
    wrong = _again(lambda: run(out), out, want)
    assert wrong is None, f"{done}: {wrong}"


@pytest.mark.parametrize("damaged", ["run.json", "run.json gone", "run.json cut"])
def test_a_run_without_stores_whose_record_is_damaged_is_made_again(
    place: Place, tmp_path: Path, damaged: str
) -> None:
    """As a nightly run leaves it: products and probabilities, no stores."""
    out = tmp_path / "out"
    shutil.copytree(place.folder / "run0", out)
    shutil.rmtree(out / "stores")
    record = out / "run.json"
    content = record.read_bytes()
    if damaged == "run.json":
        _flip(record, b'"date"')
    elif damaged == "run.json cut":
        record.write_bytes(content[: len(content) // 2])
    else:
        record.unlink()
        with pytest.raises(OutputError, match="must be empty or hold a run"):
            place.segment(out)  # nothing says that these files are of a run
        return
    assert place.segment(out).status == "ok"
    assert _content(out) == _content(place.folder / "run0")


def _flip(path: Path, text: bytes) -> None:
    """Flip a low bit in the first digit of what comes after a text."""
    content = bytearray(path.read_bytes())
    start = content.index(text) + len(text)
    where = next(n for n in range(start, len(content)) if chr(content[n]).isdigit())
    content[where] ^= 1
    path.write_bytes(content)


def test_a_run_that_moved_by_a_flipped_bit_is_no_date(place: Place, tmp_path: Path) -> None:
    """``change`` says how to mend it; ``segment`` mends it; then the change map is the same."""
    want = _content(place.folder / "changed")
    runs = [tmp_path / "run0", place.folder / "run1"]
    shutil.copytree(place.folder / "run0", runs[0])
    _flip(runs[0] / "probabilities.zarr" / "zarr.json", b'"spatial:transform"')
    with pytest.raises(TilemapError, match=r"damaged.*the same `tilemap segment`.*mends it"):
        place.change(tmp_path / "changed", inputs=runs)
    assert not (tmp_path / "changed").exists()
    assert place.segment(runs[0]).status == "ok"
    assert _content(runs[0]) == _content(place.folder / "run0")
    place.change(tmp_path / "changed", inputs=runs)
    assert _content(tmp_path / "changed") == want


def test_a_run_of_another_day_by_a_flipped_bit_is_no_date(place: Place, tmp_path: Path) -> None:
    """The day of the scene is only in ``run.json``, which is checked as well."""
    runs = [tmp_path / "run0", place.folder / "run1"]
    shutil.copytree(place.folder / "run0", runs[0])
    _flip(runs[0] / "run.json", b'"date"')
    with pytest.raises(TilemapError, match="is damaged; the same `tilemap segment`"):
        place.change(tmp_path / "changed", inputs=runs)
    place.segment(runs[0])
    place.change(tmp_path / "changed", inputs=runs)
    assert _content(tmp_path / "changed") == _content(place.folder / "changed")


def _flip_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_labels_that_their_run_did_not_write_are_told(place: Place, tmp_path: Path) -> None:
    """They may have been corrected, so they count; the run makes them again."""
    runs = [tmp_path / "run0", tmp_path / "run1"]
    for date, run in enumerate(runs):
        place.segment(run, date, probabilities=False)
    place.change(tmp_path / "want", inputs=runs)
    before = (runs[0] / "landcover.tif").read_bytes()
    _flip_middle(runs[0] / "landcover.tif")
    told = place.change(tmp_path / "told", inputs=runs).record["warnings"]
    assert any("landcover.tif is not what its run wrote" in warning for warning in told)
    place.segment(runs[0], probabilities=False)
    assert (runs[0] / "landcover.tif").read_bytes() == before
    mended = place.change(tmp_path / "changed", inputs=runs)
    assert not any("not what its run" in warning for warning in mended.record["warnings"])
    assert _content(tmp_path / "changed") == _content(tmp_path / "want")


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_damaged_probabilities_are_no_date(place: Place, tmp_path: Path, harm: str) -> None:
    """They count neither as not observed nor as labels; the run says how to mend them."""
    runs = [tmp_path / "run0", place.folder / "run1"]
    shutil.copytree(place.folder / "run0", runs[0])
    store = runs[0] / "probabilities.zarr"
    if harm == "flip":
        _flip_middle(max(store.rglob("probability/c/*/*/*"), key=lambda path: path.stat().st_size))
    else:
        shutil.rmtree(store)
    with pytest.raises(TilemapError, match=r"the same `tilemap segment` on that directory mends"):
        place.change(tmp_path / "changed", inputs=runs)
    place.segment(runs[0])
    place.change(tmp_path / "changed", inputs=runs)
    assert _content(tmp_path / "changed") == _content(place.folder / "changed")


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"[]"])
def test_stores_say_whose_they_are_if_the_identity_does_not(
    place: Place, tmp_path: Path, content: bytes
) -> None:
    """The same command goes on where it was; another one is refused."""
    out = tmp_path / "out"
    shutil.copytree(place.folder / "run-begun", out)
    identity = out / "stores" / "identity.json"
    sealed = content == b'{"format": 1}'
    identity.write_bytes(content if not sealed else identity.read_bytes().replace(b"48", b"49"))
    with pytest.raises(OutputError, match="belongs to another run"):
        place.segment(out, core=40)
    found = place.segment(out)
    assert found.resumed > 0
    assert _content(out) == _content(place.folder / "run0")


@pytest.mark.parametrize("name", ["map.zarr", "predictions.zarr"])
def test_a_store_that_somebody_took_away_is_made_again(
    place: Place, tmp_path: Path, name: str
) -> None:
    """As one that is damaged: its tiles are done again."""
    out = tmp_path / "out"
    shutil.copytree(place.folder / "run-begun", out)
    shutil.rmtree(out / "stores" / name)
    assert place.segment(out).status == "ok"
    assert _content(out) == _content(place.folder / "run0")


def test_files_of_somebody_else_are_left_alone(place: Place, tmp_path: Path) -> None:
    """A ``run.json`` alone makes no run, whatever is in it."""
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "landcover.tif").write_text("mine")
    with pytest.raises(OutputError, match="must be empty or hold a run"):
        place.segment(tmp_path)
    assert (tmp_path / "landcover.tif").read_text() == "mine"


# --- what only shows the products --------------------------------------------------------------


def _with_a_bad_block(place: Place, folder: Path) -> Path:
    """The first scene, with a block of its last band that cannot be decoded."""
    path = folder / f"{DATES[0]}.tif"
    with rasterio.open(place.folder / path.name) as file:
        layout = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
        with rasterio.open(path, "w", **{**file.profile, **layout, "interleave": "band"}) as copy:
            copy.write(file.read())
            copy.descriptions, copy.scales = file.descriptions, file.scales
    with rasterio.open(path) as file:
        start, size = (
            int(file.get_tag_item(f"BLOCK_{what}_2_1", "TIFF", bidx=3))
            for what in ("OFFSET", "SIZE")
        )
    with path.open("r+b") as raw:
        raw.seek(start)
        raw.write(b"\xff" * size)
    return path


@pytest.mark.parametrize("model", ["toy", "surveyed"])
def test_a_bad_block_costs_its_tiles_and_no_more(place: Place, tmp_path: Path, model: str) -> None:
    """Preview and report are there, all other tiles are mapped, and the survey passes it over."""
    scene = _with_a_bad_block(place, tmp_path)
    out = tmp_path / "out"
    found = place.segment(out, scene=scene, model=model)
    assert (found.status, found.exit_code) == ("partial", 3)
    lost = {tuple(q["tile"]) for q in found.record["quarantined"]}
    assert (1, 1) in lost
    assert (0, 0) not in lost
    assert (out / "quicklook.png").is_file()
    page = (out / "report.html").read_text()
    assert "tile (1, 1), segment" in page
    with (
        rasterio.open(out / "landcover.tif") as got,
        rasterio.open(place.folder / "run0" / "landcover.tif") as want,
    ):
        np.testing.assert_array_equal(got.read(1)[:40, :40], want.read(1)[:40, :40])


@pytest.mark.parametrize("name", ["quicklook.png", "report.html"])
def test_a_run_ends_well_without_its_preview(place: Place, tmp_path: Path, name: str) -> None:
    """What cannot be made is a warning of the record; products, exit code and record are there."""
    out = tmp_path / "out"
    shutil.copytree(place.folder / "run-begun", out)
    (out / name).mkdir()
    found = place.segment(out)
    assert (found.status, found.exit_code) == ("ok", 0)
    assert any("could not be made" in text for text in found.record["warnings"])
    assert (out / "landcover.tif").is_file()
    assert place.segment(out).exit_code == 0


@pytest.mark.parametrize("name", ["item.json", "report.html"])
def test_a_series_ends_well_without_its_item(place: Place, tmp_path: Path, name: str) -> None:
    """The same of ``change``."""
    out = tmp_path / "out"
    shutil.copytree(place.folder / "changed-begun", out)
    (out / name).mkdir()
    found = place.change(out)
    assert (found.status, found.exit_code) == ("ok", 0)
    assert any("could not be made" in text for text in found.record["warnings"])
    want = _content(place.folder / "changed")
    got = _content(out)
    assert {n: got.get(n) for n in want if n != name} == {n: want[n] for n in want if n != name}


@pytest.mark.parametrize("after", [1, 5, 30])
def test_a_first_change_that_is_stopped_goes_on(place: Place, tmp_path: Path, after: int) -> None:
    """Ctrl-C leaves a directory that the same command takes for its own."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        place.change(out, progress=_Stop(after))
    assert place.change(out).status == "ok"
    assert _content(out) == _content(place.folder / "changed")


def test_sidecars_that_a_gis_rewrote_are_written_again(place: Place, tmp_path: Path) -> None:
    """The raster proves the product: no tile is done again, and no name of a class is lost."""
    out = tmp_path / "out"
    shutil.copytree(place.folder / "run0", out)
    (out / "landcover.tif.aux.xml").write_text("<PAMDataset/>")
    (out / "landcover.qml").unlink()
    before = (out / "landcover.tif").stat().st_mtime_ns
    found = place.segment(out)
    assert found.resumed == found.record["tasks"]["total"]
    assert _content(out) == _content(place.folder / "run0")
    assert (out / "landcover.tif").stat().st_mtime_ns == before
