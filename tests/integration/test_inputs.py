"""Inputs that are corrected, moved, exchanged, partial, or change while a run reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from distributed import Client

from tests.integration.toy import BANDS, cluster, make_toy
from tilemap import api, worker
from tilemap.changing.execute import ChangeResult, execute_series
from tilemap.changing.prepare import prepare_series
from tilemap.errors import InputChangedError, OutputError, StoreError, UsageError
from tilemap.files import read_sealed, write_sealed
from tilemap.progress import Silent
from tilemap.run import RunResult, execute
from tilemap.testing import write_geotiff

SHAPE = (64, 256)
CUT = {"core": 64, "halo": 0, "blend": 0}
"""Four tiles in a row."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 1, 2 or 3 where the first, second or third band is the largest."""
    return make_toy(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker in this process."""
    with cluster() as opened:
        yield opened


class Toy:
    """Runs of the toy in one folder."""

    def __init__(self, folder: Path, model: Path, client: Client) -> None:
        self.folder, self.model, self.client = folder, model, client

    def scene(
        self, name: str, largest: int, named: bool = True, shape: tuple[int, int] = SHAPE
    ) -> Path:
        """A scene of which one band is the largest everywhere."""
        image = np.full((3, *shape), 500, np.uint16)
        image[largest] = 3000
        names = BANDS if named else ()
        return write_geotiff(self.folder / name, image, names=names, scale=1e-4)

    def mask(self, name: str, hidden: bool, shape: tuple[int, int] = SHAPE) -> Path:
        """A mask that hides all of its ground, or nothing."""
        return write_geotiff(self.folder / name, np.full((1, *shape), int(hidden), np.uint8))

    def segment(
        self, scene: Path, out: str, progress: Any = None, fresh: bool = False, **options: Any
    ) -> RunResult:
        """Map a scene."""
        where, allow = self.folder / out, options.pop("allow_other_versions", False)
        prepared = api.plan(scene, model=self.model, out=where, **{**CUT, **options})
        return execute(
            prepared, where, fresh, progress, client=self.client, allow_other_versions=allow
        )

    def dates(self, *largest: int) -> list[Path]:
        """A finished run for each date, five years apart."""
        found = []
        for number, band in enumerate(largest):
            year = 2010 + 5 * number
            scene = self.scene(f"s{year}0701.tif", band)
            found.append(self.segment(scene, f"y{year}", probabilities=True).directory)
        return found

    def change(
        self, inputs: list[Path], out: str = "change", progress: Any = None, **options: Any
    ) -> ChangeResult:
        """Compare dates."""
        where, allow = self.folder / out, options.pop("allow_other_versions", False)
        model = options.pop("model", None)
        settings = api.change_settings(inputs, model, {"mmu_ha": 0, "core": 64, **options})
        return execute_series(
            prepare_series(settings, where), where, False, progress, self.client, allow
        )


@pytest.fixture
def toy(tmp_path: Path, model: Path, client: Client) -> Toy:
    """Runs of the toy in a folder of the test."""
    return Toy(tmp_path, model, client)


class Meddler(Silent):
    """Does something as soon as so many tasks are done."""

    def __init__(self, after: int, do: Callable[[], Any]) -> None:
        self._left, self._do = after, do

    def advance(self, *_: Any) -> None:
        """Called after each task."""
        self._left -= 1
        if self._left == 0:
            self._do()


def _classes(path: Path) -> list[int]:
    with rasterio.open(path) as file:
        return [int(value) for value in np.unique(file.read(1))]


def _interrupt() -> None:
    raise KeyboardInterrupt


def _overwrite(path: Path, other: Path) -> None:
    """Other content in place, with the size and the time of before."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    shutil.copyfile(other, path)
    os.utime(path, ns=times)


# --- the order of bands ------------------------------------------------------------------------


def test_another_order_of_bands_is_another_run(toy: Toy) -> None:
    """Finished or interrupted: refused with the planes that differ, and not mixed."""
    scene = toy.scene("scene.tif", 0, named=False)
    assert _classes(toy.segment(scene, "out", bands=BANDS).landcover) == [1]
    with pytest.raises(OutputError, match=r"planes\.nir\[0\]\.plane was 3, now 1"):
        toy.segment(scene, "out", bands=BANDS[::-1])
    with pytest.raises(KeyboardInterrupt):
        toy.segment(scene, "half", Meddler(1, _interrupt), bands=BANDS)
    with pytest.raises(OutputError, match="belongs to another run"):
        toy.segment(scene, "half", bands=BANDS[::-1])
    again = toy.segment(scene, "half", fresh=True, bands=BANDS[::-1])
    assert _classes(again.landcover) == [3]


def test_a_scene_that_moved_is_finished_already(toy: Toy) -> None:
    """Under another name in another folder, with another time."""
    scene = toy.scene("scene.tif", 1)
    first = toy.segment(scene, "out")
    (toy.folder / "archive").mkdir()
    moved = shutil.copyfile(scene, toy.folder / "archive" / "a.tif")
    scene.unlink()
    again = toy.segment(moved, "out")
    assert again.resumed == again.record["tasks"]["total"]
    assert again.record == first.record


def test_a_source_of_a_vrt_counts_by_content(toy: Toy) -> None:
    """What a VRT reads is exchanged under its name, with its size and time: another run."""
    inner, vrt = toy.scene("inner.tif", 0), toy.folder / "scene.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{n}"><Description>{name}</Description>'
        "<Scale>0.0001</Scale><SimpleSource>"
        '<SourceFilename relativeToVRT="1">inner.tif</SourceFilename>'
        f"<SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
        for n, name in enumerate(BANDS, 1)
    )
    vrt.write_text(
        f'<VRTDataset rasterXSize="256" rasterYSize="64"><SRS>EPSG:32618</SRS>'
        f"<GeoTransform>400000, 10, 0, 4100000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    assert _classes(toy.segment(vrt, "out").landcover) == [1]
    _overwrite(inner, toy.scene("other.tif", 2))
    with pytest.raises(OutputError, match=r"inputs\[1\]\.sha256 was"):
        toy.segment(vrt, "out")


# --- masks and grids of a series ---------------------------------------------------------------


def test_a_corrected_mask_is_used(toy: Toy) -> None:
    """The same command, the same path, the same size and time; a moved mask is the same."""
    runs = toy.dates(0, 1)
    clear, wrong = toy.mask("clear.tif", False), toy.mask("mask.tif", True)
    options: dict[str, Any] = {"masks": [clear, wrong], "mask_rule": "values:1"}
    assert _classes(toy.change(runs, **options).change) == [0]
    _overwrite(wrong, clear)
    done = toy.change(runs, **options)
    assert _classes(done.change) == [2]
    assert done.resumed == 4  # the tiles of the other date
    assert len(list((done.directory / "stores" / "dates").iterdir())) == 2
    moved = shutil.copyfile(wrong, toy.folder / "moved.tif")
    again = toy.change(runs, masks=[moved, clear], mask_rule="values:1")
    assert again.record == done.record


def test_corrected_labels_are_used(toy: Toy) -> None:
    """A date without probabilities whose class map was corrected by hand."""
    runs = [toy.segment(toy.scene(f"s{y}0701.tif", 0), f"y{y}").directory for y in (2010, 2015)]
    assert _classes(toy.change(runs, method="pcc").change) == [1]
    with rasterio.open(runs[1] / "landcover.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.write(np.full(SHAPE, 3, np.uint8), 1)
    corrected = toy.change(runs, method="pcc")
    assert _classes(corrected.change) == [3]
    assert any("is not what its run wrote" in warning for warning in corrected.record["warnings"])


def test_a_grid_that_is_asked_for_is_not_ignored(toy: Toy) -> None:
    """A finished series keeps its grid unless another one is named, which is another run."""
    runs = toy.dates(0, 1)
    first = toy.change(runs)
    with pytest.raises(OutputError, match="geobox"):
        toy.change(runs, resolution=30.0)
    like = toy.mask("like.tif", False, (32, 64))
    with pytest.raises(OutputError, match="geobox"):
        toy.change(runs, like=str(like))
    assert toy.change(runs, resolution=10.0).record == first.record
    coarse = toy.change(runs, "coarse", resolution=30.0)
    assert toy.change(runs, "coarse").record == coarse.record  # nothing is asked for
    with pytest.raises(OutputError, match="geobox"):
        toy.change(runs, "coarse", resolution=10.0)


@pytest.mark.parametrize("resolution", [None, 20.0])
def test_a_masked_series_grows_by_a_smaller_date(toy: Toy, resolution: float | None) -> None:
    """The grid stays; what the new date does not cover was not observed then."""
    runs = toy.dates(0, 1)
    masks = [toy.mask(f"m{n}.tif", False) for n in range(3)]
    how: dict[str, Any] = {"mask_rule": "values:1", "resolution": resolution}
    before = toy.change(runs, masks=masks[:2], **how)
    small = toy.scene("s20250701.tif", 1, shape=(64, 128))
    runs.append(toy.segment(small, "y2025", probabilities=True).directory)
    after = toy.change(runs, masks=masks, **how)
    assert after.record["identity"]["geobox"] == before.record["identity"]["geobox"]
    with rasterio.open(after.directory / "n_valid.tif") as file:
        seen = file.read(1)
    assert (seen[:, : seen.shape[1] // 2] == 3).all()
    assert (seen[:, seen.shape[1] // 2 :] == 2).all()


# --- versions and precisions -------------------------------------------------------------------


def _begin_elsewhere(directory: Path) -> None:
    """As if an earlier version of GDAL had begun what is here."""
    path = directory / "stores" / "identity.json"
    begun = read_sealed(path)
    begun["computed_by"]["gdal"] = "2"
    write_sealed(path, begun)


def test_versions_are_not_mixed(toy: Toy) -> None:
    """An unfinished run says which began it, and goes on if that is allowed; it says so too."""
    scene = toy.scene("scene.tif", 0)
    with pytest.raises(KeyboardInterrupt):
        toy.segment(scene, "out", Meddler(1, _interrupt))
    _begin_elsewhere(toy.folder / "out")
    with pytest.raises(OutputError, match="begun by other versions: gdal was 2, now 3") as caught:
        toy.segment(scene, "out")
    assert len(str(caught.value).splitlines()) == 2
    done = toy.segment(scene, "out", allow_other_versions=True)
    assert done.resumed > 0
    assert "begun by other versions: gdal was 2, now 3" in done.record["warnings"]
    assert toy.segment(scene, "out").record == done.record  # a finished run stays finished
    assert not toy.segment(scene, "out", fresh=True).record["warnings"]


def test_a_finished_series_grows_under_other_versions(toy: Toy) -> None:
    """An unfinished one does not."""
    runs = toy.dates(0, 1, 2)
    toy.change(runs[:2])
    _begin_elsewhere(toy.folder / "change")
    with pytest.raises(KeyboardInterrupt):
        toy.change(runs, progress=Meddler(1, _interrupt))
    _begin_elsewhere(toy.folder / "change")
    with pytest.raises(OutputError, match="begun by other versions"):
        toy.change(runs)
    assert toy.change(runs, allow_other_versions=True).status == "ok"


@pytest.mark.parametrize("several", [1, 2])
def test_an_onnx_file_is_not_run_in_bfloat16(toy: Toy, several: int) -> None:
    """Not alone, not in an ensemble; nothing is left."""
    scene = toy.scene("scene.tif", 0)
    with pytest.raises(UsageError, match="runs toy in float32, got bfloat16"):
        api.segment(
            scene, model=[toy.model] * several, out=toy.folder / "out", precision="bfloat16"
        )
    with pytest.raises(UsageError, match="runs toy in float32, got bfloat16"):
        toy.change([scene, scene], model=toy.model, precision="bfloat16", dates=["2010", "2020"])
    assert not (toy.folder / "out").exists()
    assert not (toy.folder / "change").exists()


# --- inputs that change during a run -----------------------------------------------------------


@pytest.mark.parametrize("after", [1, 3, 8])
def test_a_scene_overwritten_during_a_run(toy: Toy, after: int) -> None:
    """In place, size and time put back, at any moment, the last task included: an error."""
    scene, other = toy.scene("scene.tif", 0), toy.scene("other.tif", 2)
    kept = shutil.copyfile(scene, toy.folder / "kept.tif")
    meddler = Meddler(after, lambda: _overwrite(scene, other))
    with pytest.raises(InputChangedError, match=r"scene\.tif must stay as it is") as caught:
        toy.segment(scene, "out", meddler)
    assert caught.value.exit_code == 75
    assert len(str(caught.value).splitlines()) <= 2
    assert not (toy.folder / "out" / "landcover.tif").exists()
    with pytest.raises(OutputError, match=r"inputs\[0\]\.sha256 was"):
        toy.segment(scene, "out")
    shutil.copyfile(kept, scene)  # back again: what was mapped is of this one alone
    assert _classes(toy.segment(scene, "out").landcover) == [1]
    shutil.copyfile(other, scene)
    assert _classes(toy.segment(scene, "out", fresh=True).landcover) == [3]


def test_a_scene_removed_during_a_run(toy: Toy) -> None:
    """Though the worker still has it open."""
    scene = toy.scene("scene.tif", 0)
    with pytest.raises(InputChangedError, match=r"scene\.tif must stay as it is .* it is gone"):
        toy.segment(scene, "out", Meddler(8, scene.unlink))


def test_a_touch_of_the_mode_is_no_change(toy: Toy) -> None:
    """The file is read once more, and found to be the same."""
    scene = toy.scene("scene.tif", 0)
    assert toy.segment(scene, "out", Meddler(2, lambda: scene.chmod(0o600))).status == "ok"


def test_a_worker_that_sees_another_file_does_not_begin(toy: Toy) -> None:
    """As on another machine: planned with one file, run where another one has its path."""
    scene, other = toy.scene("scene.tif", 0), toy.scene("other.tif", 2)
    prepared = api.plan(scene, model=toy.model, **CUT)
    other.replace(scene)
    with pytest.raises(InputChangedError, match=r"scene\.tif must stay .* it has changed"):
        execute(prepared, toy.folder / "out", client=toy.client)
    assert not (toy.folder / "out").exists()
    left = toy.client.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.worker_plugins])
    assert not [name for name in left if "tilemap" in name]  # else workers that join would leave
    assert _classes(toy.segment(scene, "out").landcover) == [3]


@pytest.mark.parametrize("after", [1, 14])
def test_a_mask_overwritten_during_a_series(toy: Toy, after: int) -> None:
    """While dates are gathered, and long after: an error; then the same command is right."""
    runs = toy.dates(0, 1)
    mask, other = toy.mask("mask.tif", True), toy.mask("other.tif", False)
    options: dict[str, Any] = {"masks": [mask, other], "mask_rule": "values:1"}
    with pytest.raises(InputChangedError, match=r"mask\.tif must stay as it is during the run"):
        toy.change(runs, progress=Meddler(after, lambda: _overwrite(mask, other)), **options)
    assert not (toy.folder / "change" / "change.tif").exists()
    assert _classes(toy.change(runs, **options).change) == [2]


def test_a_date_made_again_during_a_series(toy: Toy) -> None:
    """Its directory holds another run now; nothing of either is published."""
    runs = toy.dates(0, 1)
    other = toy.segment(toy.scene("t20150701.tif", 2), "z2015", probabilities=True).directory

    def exchange() -> None:
        shutil.rmtree(runs[1])
        shutil.copytree(other, runs[1])

    with pytest.raises(InputChangedError, match="y2015 must stay as it is during the run"):
        toy.change(runs, progress=Meddler(14, exchange))
    assert not (toy.folder / "change" / "change.tif").exists()


# --- partial dates -----------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Scenes whose last tile cannot be read just now, by a part of their names."""
    names: list[str] = []
    real = worker.read_patch

    def read_patch(reader: Any, window: Any) -> Any:
        if window.left >= 192 and any(name in reader.scene.name for name in names):
            raise StoreError("Input/output error")
        return real(reader, window)

    monkeypatch.setattr(worker, "read_patch", read_patch)
    return names


def test_a_series_of_a_partial_date_is_partial(toy: Toy, broken: list[str]) -> None:
    """It names the date; mended it is made again by the same command, and may be extended."""
    broken.append("2015")
    runs = toy.dates(0, 1)
    first = toy.change(runs)
    assert (first.status, first.exit_code) == ("partial", 3)
    assert first.record["partial_dates"] == ["2015-07-01"]
    assert any("y2015 is partial" in text for text in first.record["warnings"])
    assert first.record["found"]["not_observed"] == 0.25
    assert toy.change(runs).status == "partial"  # the date lacks its tile as before
    broken.clear()
    assert toy.segment(toy.folder / "s20150701.tif", "y2015", probabilities=True).status == "ok"
    again = toy.change(runs)
    assert (again.status, again.record["found"]["not_observed"]) == ("ok", 0)
    assert again.record["digest"] != first.record["digest"]
    assert again.record["partial_dates"] == []


def test_a_partial_date_that_is_mended_before_the_series_grows(toy: Toy, broken: list[str]) -> None:
    """Nothing of the partial date is left in the series of three."""
    broken.append("2010")
    runs = toy.dates(0, 1, 1)
    toy.change(runs[:2])
    broken.clear()
    toy.segment(toy.folder / "s20100701.tif", "y2010", probabilities=True)
    grown = toy.change(runs)
    assert grown.status == "ok"
    assert _classes(grown.directory / "n_valid.tif") == [3]


def test_scenes_given_to_a_series_may_be_partial(toy: Toy, broken: list[str]) -> None:
    """They are mapped in the series' own directory: partial, then whole."""
    wide = (64, 2400)  # more than a tile
    scenes = [toy.scene(f"s{year}0701.tif", 0, shape=wide) for year in (2010, 2015)]
    broken.append("2015")
    options: dict[str, Any] = {"model": toy.model}
    first = toy.change(scenes, **options)
    assert (first.status, first.record["partial_dates"]) == ("partial", ["2015-07-01"])
    lacking = first.record["found"]["not_observed"]
    assert lacking > 0
    broken.clear()
    again = toy.change(scenes, **options)
    assert (again.status, again.record["found"]["not_observed"]) == ("ok", 0)
    assert toy.change(scenes, **options).record == again.record


def test_a_tile_that_could_not_be_gathered_is_compared_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passing fault of a date's store: partial; then the same command observes everything."""
    from tilemap.stages.gather import GatherReader

    runs, real, failing = toy.dates(0, 1), GatherReader.read, [True]

    def read(self: GatherReader, window: Any) -> Any:
        if failing[0] and window.left >= 192:
            raise StoreError("Input/output error")
        return real(self, window)

    monkeypatch.setattr(GatherReader, "read", read)
    first = toy.change(runs)
    assert (first.status, first.record["found"]["not_observed"]) == ("partial", 0.25)
    failing.clear()
    failing.append(False)
    again = toy.change(runs)
    assert (again.status, again.record["found"]["not_observed"]) == ("ok", 0)
