"""The whole pipeline on scenes, stores and products that are not on this disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr

from tilemap import api
from tilemap.api import demo_scene
from tilemap.cli.main import main
from tilemap.directory import RunDirectory
from tilemap.errors import OutputError, StoreError, UsageError
from tilemap.stores.remote.address import AllowList
from tilemap.stores.remote.claim import claim
from tilemap.stores.remote.fetch import fetch_folder
from tilemap.stores.remote.place import RemotePlace
from tilemap.testing import write_geotiff

from .conftest import Cloud
from .server import Fault, RangeServer

pytestmark = pytest.mark.slow

pytest.importorskip("onnxruntime")
MODEL = "iplunet-cloud-6b"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
OPTIONS: dict[str, Any] = {"model": MODEL, "core": 64, "workers": 2}
PRODUCTS = ("landcover.tif", "confidence.tif")


def _run(*arguments: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def crop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piece of the scene that ships, six bands, 139 x 171 pixels: 2 x 3 tiles."""
    with rasterio.open(demo_scene()[0]) as fine, rasterio.open(demo_scene()[1]) as coarse:
        near = fine.read(window=((300, 440), (400, 572)))
        far = coarse.read(window=((150, 220), (200, 286))).repeat(2, axis=1).repeat(2, axis=2)
    pixels = np.concatenate([near, far])[:, :139, :171]
    folder = tmp_path_factory.mktemp("crop")
    return write_geotiff(folder / "crop.tif", pixels, names=BANDS, scale=1e-4)


@pytest.fixture(scope="module")
def local(crop: Path) -> Path:
    """The crop mapped on this disk alone."""
    out = crop.parent / "local"
    api.segment(crop, out=out, probabilities=True, **OPTIONS)
    return out


def same_products(one: Path, two: Path) -> None:
    """Byte for byte."""
    for name in PRODUCTS:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_remote_scene_becomes_the_same_map(
    server: RangeServer, crop: Path, local: Path, tmp_path: Path
):
    """Byte for byte, with failures on the way; requests are few, connections fewer."""
    server.files["crop.tif"] = crop.read_bytes()
    server.faults.extend([Fault(503), Fault(503), None, Fault(cut=9)] * 3)
    options = {**OPTIONS, "allow_hosts": [server.host], "out": tmp_path / "out"}
    result = api.segment(server.url("crop.tif?sig=hunter2"), **options)
    assert result.status == "ok"
    same_products(tmp_path / "out", local)
    assert server.busiest <= 3 * 8  # the driver and two workers
    assert len(server.log) < 60
    assert all(asked.range for asked in server.log)
    told = [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".json", ".html")]
    assert told
    assert all("hunter2" not in path.read_text() for path in told)
    inputs = json.loads((tmp_path / "out" / "run.json").read_text())["inputs"]
    assert [one["name"] for one in inputs] == ["crop.tif"]
    again = api.segment(server.url("crop.tif?sig=hunter3"), **options)
    assert again.resumed == again.record["tasks"]["total"]  # signed anew it is the same scene


def test_the_command_asks_no_host_that_is_not_listed(
    server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """One line that names host and option, exit code of bad data, nothing made, nothing asked."""
    out = tmp_path / "out"
    command = ["segment", server.url("crop.tif"), "-m", MODEL, "-o", str(out)]
    assert _run(*command) == 65
    told = capsys.readouterr().err
    assert f"list {server.host} in --allow-host" in told
    assert len(told.splitlines()) == 1
    assert _run(*command, "--allow-host", "https://*") == 2
    assert _run(*command, "--stores", "s3://bucket-one/a") == 2
    assert "list s3://bucket-one in --allow-host" in capsys.readouterr().err
    assert server.log == []
    assert not out.exists()
    assert _run("plan", server.url("no.tif"), "-m", MODEL, "--allow-host", server.host) == 65
    assert "no such file" in capsys.readouterr().err


def test_dates_of_a_series_may_be_remote(server: RangeServer, crop: Path, tmp_path: Path):
    """The scenes of ``change`` are read under the same rule."""
    server.files |= {f"crop_{day}.tif": crop.read_bytes() for day in ("20200501", "20210501")}
    urls = [server.url(name) for name in server.files]
    command = ["change", *urls, "-m", MODEL, "-o", str(tmp_path / "out"), "--workers", "2"]
    assert _run(*command) == 65
    assert server.log == []
    assert _run(*command, "--allow-host", server.host) == 0
    assert (tmp_path / "out" / "change.tif").exists()


def test_stores_and_products_on_s3(cloud: Cloud, crop: Path, local: Path, tmp_path: Path):
    """The same bytes; every store in the bucket; products sent once; probabilities come here."""
    out = tmp_path / "out"
    cloud.put("runs/other/x", b"1")
    cloud.put("scenes/crop.tif", crop.read_bytes())
    options = {
        **OPTIONS, "allow_hosts": list(cloud.allow), "stores": cloud.url("runs"), "out": out,
        "publish": cloud.url("maps/one"), "probabilities": True,
    }  # fmt: skip
    scene = cloud.url("scenes/crop.tif")
    result = api.segment(scene, **options)
    assert result.status == "ok"
    same_products(out, local)
    assert sorted(p.name for p in (out / "stores").iterdir()) == ["identity.json", "place.json"]
    place = json.loads((out / "stores" / "place.json").read_text())["place"]
    runs = [key for key in cloud.listing() if key.startswith("runs/run-")]
    names = {"tiles.zarr", "predictions.zarr", "map.zarr", "probabilities.zarr"}
    assert {key.split("/")[2] for key in runs} == names
    assert all(cloud.url(key).startswith(place) for key in runs)
    one, two = (zarr.open_array(p / "probabilities.zarr" / "probability") for p in (out, local))
    np.testing.assert_array_equal(one[...], two[...])
    sent = {p.name for p in out.iterdir() if p.is_file()}
    assert {key.removeprefix("maps/one/") for key in cloud.listing() if key[:4] == "maps"} == sent
    assert cloud.get("maps/one/landcover.tif") == (out / "landcover.tif").read_bytes()
    assert "hunter2" not in (out / "run.json").read_text()

    cloud.client.delete_object(Bucket=cloud.bucket, Key="maps/one/landcover.qml")
    notes: list[str] = []
    again = api.segment(scene, progress=_Notes(notes), **options)  # type: ignore[arg-type]
    assert again.resumed == again.record["tasks"]["total"]
    assert notes[-1].endswith("1 of them sent now")
    assert "maps/one/landcover.qml" in cloud.listing()
    api.segment(scene, keep_stores=False, **options)
    assert [key for key in cloud.listing() if key.startswith("runs")] == ["runs/other/x"]
    assert not (out / "stores").exists()


class _Notes:
    """Progress that keeps what is noted."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(text)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_killed_and_continued(cloud: Cloud, crop: Path, local: Path, tmp_path: Path):
    """SIGKILL of driver and workers in the middle: what is marked is not done again."""
    out = tmp_path / "out"
    hosts = [word for host in cloud.allow for word in ("--allow-host", host)]
    command = [
        sys.executable, "-m", "tilemap.cli.main", "segment", str(crop), "-m", MODEL, "--core", "32",
        "--workers", "1", "--out", str(out), "--stores", cloud.url("runs"), *hosts,
    ]  # fmt: skip
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < until:
        if sum("predictions.zarr/done/c/" in key for key in cloud.listing()) >= 4:
            break
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait(30) == -signal.SIGKILL, "it ended before it could be killed"
    marked = sum("/done/c/" in key for key in cloud.listing())
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert 4 <= record["tasks"]["resumed"] <= marked
    assert record["tasks"]["resumed"] < record["tasks"]["total"]
    whole = tmp_path / "whole"
    api.segment(crop, **{**OPTIONS, "core": 32, "workers": 1, "out": whole})
    same_products(out, whole)


def test_stores_lie_where_the_run_began(cloud: Cloud, crop: Path, local: Path, tmp_path: Path):
    """A run that is continued keeps its place; a bucket that is not there leaves nothing behind."""
    half = tmp_path / "half"
    shutil.copytree(local, half)
    (half / "run.json").unlink()
    (half / "landcover.tif").unlink()
    remote = {"allow_hosts": list(cloud.allow), "stores": cloud.url("runs")}
    with pytest.raises(OutputError, match=r"lie in .*half/stores, not in s3://"):
        api.segment(crop, out=half, probabilities=True, **remote, **OPTIONS)
    out = tmp_path / "out"
    away = {"allow_hosts": ["s3://nowhere-at-all", cloud.host], "stores": "s3://nowhere-at-all/a"}
    with pytest.raises((StoreError, OutputError), match="nowhere-at-all") as caught:
        api.segment(crop, out=out, **away, **OPTIONS)
    assert "hunter2" not in str(caught.value)
    assert not out.exists() or [p.name for p in out.rglob("*")] == ["stores", "place.json"]
    with pytest.raises(UsageError, match="allow_hosts"):
        api.segment(crop, out=out, stores=cloud.url("runs"), **OPTIONS)


def test_a_directory_removes_its_own_folder_alone(cloud: Cloud, tmp_path: Path):
    """--fresh removes what this run made, wherever that lies, and nothing else."""
    allow = AllowList.of(cloud.allow)
    directory = RunDirectory(tmp_path, allow)
    directory.stores.mkdir()
    wanted = RemotePlace.parse(cloud.url("runs"), allow)
    (claim(directory.stores, wanted, "d" * 64) / "map.zarr" / "x").write(b"1")
    (wanted / "mine").write(b"1")
    with pytest.raises(OutputError, match="allow_hosts"):
        RunDirectory(tmp_path).remove_stores()
    assert len(cloud.listing()) == 2
    directory.clear()
    assert cloud.listing() == ["runs/mine"]
    assert not directory.stores.exists()


def test_folders_are_fetched_whole(cloud: Cloud, tmp_path: Path):
    """Replaced in one step; a key that would lead out of the folder is an error."""
    place = RemotePlace.parse(cloud.url("a"), cloud.allow)
    for key in ("a/x", "a/b/c", "ab"):
        cloud.put(key, key.encode())
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").touch()
    assert fetch_folder(place, tmp_path / "f") == 2
    found = {p.relative_to(tmp_path / "f").as_posix() for p in (tmp_path / "f").rglob("*")}
    assert found == {"x", "b", "b/c"}
    assert (tmp_path / "f" / "b" / "c").read_bytes() == b"a/b/c"
