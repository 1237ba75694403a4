"""Scenes and directories that are truncated, removed or replaced while a run works with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from distributed import Client

from tests.integration.test_inputs import Meddler, Toy, _classes
from tests.integration.toy import cluster, make_toy
from tilemap.errors import InputChangedError, OutputError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class 1, 2 or 3 where the first, second or third band is the largest."""
    return make_toy(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker in this process."""
    with cluster() as opened:
        yield opened


@pytest.fixture
def toy(tmp_path: Path, model: Path, client: Client) -> Toy:
    """Runs of the toy in a folder of the test."""
    return Toy(tmp_path, model, client)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _remove(path: Path) -> None:
    if path.is_dir():
        # Renamed first: workers that still write into it would make the removal fail.
        gone = path.rename(path.with_name(f"{path.name}-{uuid.uuid4().hex}"))
        shutil.rmtree(gone, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _folder(path: Path) -> None:
    _remove(path)
    path.mkdir()


def _file(path: Path) -> None:
    while not path.is_file():  # a worker that writes meanwhile may make the folder again
        _remove(path)
        with contextlib.suppress(IsADirectoryError):
            path.write_text("")


@pytest.mark.parametrize("after", [1, 4, 6])
@pytest.mark.parametrize("do", [_truncate, _empty, _remove, _folder])
def test_a_scene_that_goes_away(toy: Toy, do: Callable[[Path], None], after: int) -> None:
    """While tiles are segmented or stitched: refused, nothing is published; it works again."""
    scene = toy.scene("scene.tif", 0)
    kept = scene.read_bytes()
    with pytest.raises(InputChangedError, match=r"scene\.tif must stay as it is during the run"):
        toy.segment(scene, "out", Meddler(after, lambda: do(scene)))
    assert not list((toy.folder / "out").glob("*.tif"))
    shutil.rmtree(scene) if scene.is_dir() else scene.unlink(missing_ok=True)
    scene.write_bytes(kept)
    assert _classes(toy.segment(scene, "out").landcover) == [1]


@pytest.mark.parametrize("after", [1, 4, 8])
@pytest.mark.parametrize("do", [_remove, _file])
def test_an_output_that_goes_away(toy: Toy, do: Callable[[Path], None], after: int) -> None:
    """A run that loses its directory says so; a file in its place stays."""
    scene, out = toy.scene("scene.tif", 0), toy.folder / "out"
    with pytest.raises(OutputError, match=r"out must stay where it is during the run"):
        toy.segment(scene, "out", Meddler(after, lambda: do(out)))
    if do is _file:
        assert out.read_text() == ""
        out.unlink()
    assert _classes(toy.segment(scene, "out").landcover) == [1]


@pytest.mark.parametrize("after", [1, 6])
@pytest.mark.parametrize("do", [_remove, _file])
def test_an_output_of_change_that_goes_away(
    toy: Toy, do: Callable[[Path], None], after: int
) -> None:
    """The same holds for a series."""
    dates, out = toy.dates(0, 1), toy.folder / "change"
    with pytest.raises(OutputError, match=r"change must stay where it is during the run"):
        toy.change(dates, progress=Meddler(after, lambda: do(out)))
    if do is _file:
        assert out.read_text() == ""
        out.unlink()
    assert toy.change(dates).status == "ok"


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, Path.touch])
@pytest.mark.parametrize(
    "name",
    ["run.json", "stores/identity.json", "stores/map.zarr", "stores/map.zarr/zarr.json",
     "probabilities.zarr", "probabilities.zarr/zarr.json"],
)  # fmt: skip
def test_something_else_in_the_place_of_state(
    toy: Toy, name: str, put: Callable[[Path], None]
) -> None:
    """A folder, a pipe or an empty file there is replaced or refused, never waited for."""
    scene = toy.scene("scene.tif", 0)
    out = toy.segment(scene, "out", probabilities=True, keep_stores=True).directory
    (out / "landcover.tif").unlink()  # else there is nothing to do
    _remove(out / name)
    put(out / name)
    if name in ("run.json", "stores/identity.json") and put is Path.mkdir:
        with pytest.raises(OutputError, match=rf"{name} must be a file, it is a folder"):
            toy.segment(scene, "out", probabilities=True, keep_stores=True)
        return
    again = toy.segment(scene, "out", probabilities=True, keep_stores=True)
    assert _classes(again.landcover) == [1]
    assert (out / name).is_dir() == name.endswith(".zarr")


def test_a_scene_of_which_nothing_was_observed(toy: Toy) -> None:
    """The run ends well, since nothing failed, and says that there is nothing in its map."""
    seen = toy.scene("seen.tif", 0)
    hidden = toy.folder / "hidden.tif"
    with rasterio.open(seen) as file:
        profile, names = file.profile | {"nodata": 0}, file.descriptions
        scales, offsets = file.scales, file.offsets
    with rasterio.open(hidden, "w", **profile) as file:
        file.descriptions, file.scales, file.offsets = names, scales, offsets
        file.write(np.zeros((file.count, *file.shape), file.dtypes[0]))
    assert not toy.segment(seen, "seen").record["warnings"]
    done = toy.segment(hidden, "hidden")
    assert done.status == "ok"
    assert [text for text in done.record["warnings"] if text.startswith("nothing was observed")]
