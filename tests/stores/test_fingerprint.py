"""What a file is known by: its content, wherever it is and whatever it is called."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tilemap.errors import InputChangedError, SceneError
from tilemap.stores import fingerprint
from tilemap.stores.fingerprint import Inputs, files_of
from tilemap.testing import random_scene, write_geotiff

MIDDLE = 100_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """300 kB of noise."""
    path = tmp_path / "a.tif"
    path.write_bytes(np.random.default_rng(0).bytes(3 * MIDDLE))
    return path


def _flip(path: Path, at: int = MIDDLE) -> None:
    """Another byte, written in place; size and time of modification stay."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as raw:
        raw.seek(at)
        byte = raw.read(1)[0] ^ 1
        raw.seek(at)
        raw.write(bytes([byte]))
    os.utime(path, ns=times)


def _records(*paths: Path) -> list[object]:
    return [*Inputs.of(str(path) for path in paths).records()]


def test_a_file_is_known_by_its_content_alone(file: Path, tmp_path: Path) -> None:
    """A copy elsewhere, under another name, of another day, is the same."""
    other = tmp_path / "elsewhere" / "b.tif"
    other.parent.mkdir()
    shutil.copyfile(file, other)
    os.utime(other, (1, 1))
    one, two = _records(file, other)
    assert one == two


@pytest.mark.parametrize("at", [0, MIDDLE, 3 * MIDDLE - 1])
def test_any_byte_counts(file: Path, at: int) -> None:
    """At either end and between, though size and time are put back."""
    before = _records(file)
    _flip(file, at)
    assert _records(file) != before


def test_of_large_files_samples_and_the_time_count(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends are read, and what lies evenly between."""
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", MIDDLE)
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 1000)
    before = _records(file)
    for at in (0, 3 * MIDDLE - 1):
        _flip(file, at)
        assert _records(file) != before
        _flip(file, at)
        assert _records(file) == before
    os.utime(file, (1, 1))
    assert _records(file) != before


def test_what_stays_is_not_read_again(file: Path) -> None:
    """It looks as it did."""
    inputs = Inputs.of([str(file)])
    assert inputs.confirm() is inputs


def test_a_file_written_in_place_is_noticed(file: Path) -> None:
    """Size and time of modification may be put back; the error names the file."""
    inputs = Inputs.of([str(file)])
    _flip(file)
    with pytest.raises(InputChangedError, match=r"a\.tif must stay as it is .* it has changed"):
        inputs.confirm()


def test_a_file_written_in_place_with_the_same_is_noticed(file: Path) -> None:
    """For a while it was cut off, and somebody may have read it then."""
    inputs = Inputs.of([str(file)])
    content = file.read_bytes()
    file.write_bytes(content[:10])
    file.write_bytes(content)
    os.utime(file, (1, 1))
    with pytest.raises(InputChangedError, match="was written to"):
        inputs.confirm()


def test_a_file_that_goes_is_noticed(file: Path) -> None:
    """Whatever would be read in its place."""
    inputs = Inputs.of([str(file)])
    file.unlink()
    with pytest.raises(InputChangedError, match=r"a\.tif must stay .* it is gone"):
        inputs.confirm()
    with pytest.raises(SceneError, match="no such file"):
        Inputs.of([str(file)])


def test_the_same_file_on_another_machine_will_do(file: Path) -> None:
    """Another place on another disk, with other times, and the same content; only once read."""
    inputs = Inputs.of([str(file)])
    content = file.read_bytes()
    file.unlink()
    (file.parent / "first").write_bytes(b"takes the place that became free")
    file.write_bytes(content)
    here = inputs.confirm()
    assert here is not inputs
    assert here.records() == inputs.records()
    assert here.confirm() is here


def _vrt(path: Path, source: str, relative: int, band: int = 1) -> Path:
    path.write_text(
        '<VRTDataset rasterXSize="110" rasterYSize="75"><VRTRasterBand dataType="UInt16" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_vrt_is_what_it_reads(tmp_path: Path) -> None:
    """Wherever its source is and however it is named; another source or band is another VRT."""
    scene = random_scene((75, 110))
    one, two = (tmp_path / name for name in ("one", "two"))
    for folder in (one, two):
        folder.mkdir()
    inner = write_geotiff(one / "a.tif", scene)
    near = _records(*map(Path, files_of(str(_vrt(one / "v.vrt", "a.tif", 1)))))
    moved = shutil.copy(inner, two / "b.tif")
    assert near == _records(*map(Path, files_of(str(_vrt(two / "w.vrt", str(moved), 0)))))
    assert near != _records(*map(Path, files_of(str(_vrt(two / "x.vrt", "b.tif", 1, band=2)))))
    write_geotiff(two / "b.tif", scene + 1)
    assert near != _records(*map(Path, files_of(str(two / "w.vrt"))))


def test_files_that_belong_to_a_file(tmp_path: Path) -> None:
    """The attributes of a shapefile, the mask of a raster, also of one inside a VRT."""
    for name in ("a.shp", "a.dbf", "a.prj", "b.tif", "b.tif.msk", "b.tif.ovr", "c.shx"):
        (tmp_path / name).write_bytes(b"x")

    def names(path: Path) -> list[str]:
        return [Path(one).name for one in files_of(str(path))]

    assert names(tmp_path / "a.shp") == ["a.shp", "a.dbf", "a.prj"]
    assert names(tmp_path / "b.tif") == ["b.tif", "b.tif.msk"]
    assert names(_vrt(tmp_path / "v.vrt", "b.tif", 1)) == ["v.vrt", "b.tif", "b.tif.msk"]
