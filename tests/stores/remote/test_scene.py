"""Scenes on another host: the same numbers as from the file, for few bytes and requests."""

from __future__ import annotations

import gc
import json
import pickle
import threading
from contextvars import Context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tilemap.errors import InputChangedError, SceneError, SceneMismatchError, StoreError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.blocks import RemoteReader
from tilemap.stores.remote.dataset import Container
from tilemap.testing import random_scene, write_geotiff

from .server import Fault, RangeServer


@pytest.fixture
def served(server: RangeServer, cog: Path) -> RangeServer:
    """A host that has the COG."""
    server.files["a/scene.tif"] = cog.read_bytes()
    return server


def opened(server: RangeServer, *sources: str, **options: Any) -> SceneSource:
    """A scene of the server, which may be asked unless told otherwise."""
    options.setdefault("allow_hosts", (server.host,))
    return open_scene(SceneRequest(sources or (server.url("a/scene.tif"),), **options))


def test_a_remote_scene_is_the_local_one(served: RangeServer, cog: Path):
    """Grid, bands, pixels of any window, in any order."""
    here = open_scene(SceneRequest((str(cog),)))
    there = opened(served)
    assert there.scene.geobox == here.scene.geobox
    assert there.scene.bands == here.scene.bands
    windows = [Window(0, 0, 1024, 1100), Window(300, 100, 301, 900), Window(1000, 1090, 1024, 1100)]
    with here.open() as one, there.open() as two:
        for window in windows:
            for a, b in zip(one.read(window), two.read(window), strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_window_fetches_what_it_needs(served: RangeServer, cog: Path):
    """One tile of 256 pixels of four bands costs a small part of the file, in a few requests."""
    source = opened(served)
    before, size = served.bytes, cog.stat().st_size
    assert before < 0.1 * size
    with rasterio.open(cog) as local:  # what its blocks take in the file
        at = [local.get_tag_item("BLOCK_SIZE_1_1", "TIFF", bidx=b) for b in range(1, 5)]
        pixelwise = local.interleaving.name == "pixel"
    needed = int(at[0]) if pixelwise else sum(int(n) for n in at)
    served.log.clear()
    with source.open() as reader:
        reader.read(Window(256, 256, 512, 512))
    fetched, asked = served.bytes, len(served.log)
    assert abs(fetched - needed) < 2**16  # a block of the header may have held some of it
    assert fetched < 0.2 * size
    assert asked <= 5
    assert all(a.range for a in served.log)


def test_a_row_of_blocks_is_one_request(served: RangeServer, cog: Path):
    """Blocks that lie side by side in the file are fetched together."""
    source = opened(served)
    with source.open() as reader:
        reader.read(Window(0, 0, 1, 1))
        served.log.clear()
        reader.read(Window(512, 0, 700, 1100))
    assert len(served.log) <= 4


def test_many_threads_and_processes_share_a_source(served: RangeServer, cog: Path):
    """A source travels pickled; each thread opens for itself; connections stay few."""
    source = pickle.loads(pickle.dumps(opened(served)))
    with rasterio.open(cog) as local:
        expected = local.read()
    wrong: list[int] = []

    def read(number: int) -> None:
        window = Window(64 * number, 0, 64 * number + 64, 1100)
        with source.open() as reader:
            image, _ = reader.read(window)
        if not np.array_equal(image, expected[:, window.top : window.bottom]):
            wrong.append(number)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert served.busiest <= 8


def test_each_read_under_another_context(served: RangeServer, cog: Path):
    """Tasks of Dask bring a context each: what rasterio holds in one must outlive it."""
    source = opened(served)
    with rasterio.open(cog) as local:
        expected = local.read()
    reader = source.open()
    for top in range(0, 1024, 256):
        image, _ = Context().run(reader.read, Window(top, 0, top + 256, 1100))
        np.testing.assert_array_equal(image, expected[:, top : top + 256])
        gc.collect()
    Context().run(reader.close)
    Context().run(reader.read, Window(0, 0, 8, 8))
    del reader  # closed by nobody
    gc.collect()


def test_a_failure_while_reading_is_told_and_leaves_no_trace(served: RangeServer, cog: Path):
    """GDAL would speak of a damaged file; what failed is said, and the next read is right."""
    source = opened(served)
    window = Window(0, 0, 512, 512)
    with source.open() as reader:
        reader.read(Window(1000, 1000, 1001, 1001))
        served.always["a/scene.tif"] = Fault(404)
        with pytest.raises(SceneError, match="no such file: http"):
            reader.read(window)
        del served.always["a/scene.tif"]
        image, _ = reader.read(window)
    with rasterio.open(cog) as local:
        np.testing.assert_array_equal(image, local.read(window=((0, 512), (0, 512))))


def test_a_scene_that_changes_between_plan_and_run(served: RangeServer, cog: Path):
    """Its workers refuse it; its fingerprint is another one."""
    source = opened(served)
    before = source.inputs()
    data = bytearray(cog.read_bytes())
    data[-1000] ^= 1
    served.files["a/scene.tif"] = bytes(data)
    with source.open() as reader, pytest.raises(StoreError, match="has changed since"):
        reader.read(Window(0, 0, 8, 8))
    assert source.inputs().records() != before.records()
    with pytest.raises(InputChangedError, match=r"scene\.tif must stay as it is during the run"):
        before.confirm()


@pytest.mark.parametrize("small", [False, True])
def test_fingerprints_have_one_shape_and_no_secret(
    served: RangeServer, cog: Path, one_band: Path, small: bool
):
    """The same bytes have the same digest here and there; the version stands for the time."""
    path = one_band if small else cog
    served.files["a/scene.tif"] = path.read_bytes()
    inputs = opened(served, served.url("a/scene.tif?sig=hunter2")).inputs()
    (there,), (here,) = inputs.records(), open_scene(SceneRequest((str(path),))).inputs().records()
    assert there["size"] == here["size"]
    assert small == (there["sha256"] == here["sha256"])  # of a larger one the two ends are read
    assert there.keys() - here.keys() == {"version", "samples"}
    assert not here.keys() - there.keys()
    assert inputs.files[0].name == "scene.tif"
    assert "hunter2" not in json.dumps(there)
    assert "hunter2" not in repr(inputs)


def test_what_is_told_of_a_signed_address(served: RangeServer):
    """Name of the scene, files and errors without what signs it."""
    source = opened(served, served.url("a/scene.tif?sig=hunter2"))
    assert source.scene.name == "scene"
    assert "hunter2" not in repr(source)
    served.always["a/scene.tif"] = Fault(403)
    with source.open() as reader, pytest.raises(SceneError, match="refuses") as caught:
        reader.read(Window(0, 0, 8, 8))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("http://{host}/a/scene.tif", "list {host} in `allow_hosts`"),
        ("s3://bucket-one/scene.tif", "list s3://bucket-one in `allow_hosts`"),
        ("http://169.254.169.254/latest/meta-data.tif", "list 169.254.169.254 in `allow_hosts`"),
        ("file:///etc/passwd.tif", "address must begin with"),
        ("ftp://{host}/scene.tif", "address must begin with"),
        ("/vsicurl/http://{host}/a/scene.tif", "local file"),
        ("http://user:pw@{host}/a/scene.tif", "must not hold a user"),
    ],
)
def test_what_is_refused(served: RangeServer, source: str, text: str):
    """Without a listed host nothing is asked of anybody."""
    with pytest.raises(SceneError, match=text.format(host=served.host)):
        opened(served, source.format(host=served.host), allow_hosts=())
    assert served.log == []


def test_grids_and_earlier_scenes_are_refused_too(served: RangeServer, cog: Path):
    """--like and --before are read under the same rule."""
    for options in ({"like": served.url("a/scene.tif")}, {"before": (served.url("a/scene.tif"),)}):
        with pytest.raises(SceneError, match="allow_hosts"):
            opened(served, str(cog), allow_hosts=(), **options)
        opened(served, str(cog), **options)


def test_a_vrt_does_not_lead_onto_the_network(served: RangeServer, tmp_path: Path):
    """Neither one on a host, nor one here that names a host."""
    served.files["a.vrt"] = b"<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>"
    with pytest.raises(SceneError, match="STAC item"):
        opened(served, served.url("a.vrt"))
    served.files["b.tif"] = served.files["a.vrt"]
    with pytest.raises(SceneError, match="not a raster of an allowed format"):
        opened(served, served.url("b.tif"))
    vrt = tmp_path / "c.vrt"
    vrt.write_text(
        "<VRTDataset><VRTRasterBand><SimpleSource><SourceFilename>"
        f"{served.url('a/scene.tif')}"
        "</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(SceneError, match="only read local files"):
        opened(served, str(vrt))


def test_a_file_does_not_send_gdal_elsewhere(served: RangeServer, tmp_path: Path):
    """A TIFF may name a file for its overviews, which GDAL would open wherever it is."""
    path = write_geotiff(tmp_path / "a.tif", random_scene())
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{served.url('a/scene.tif')}")
    served.files["b.tif"] = path.read_bytes()
    for source in (str(path), served.url("b.tif")):
        with pytest.raises(SceneError, match="must not name a file for its overviews"):
            opened(served, source)
    assert {asked.path for asked in served.log} == {"/b.tif"}


def test_gdal_sees_one_file(served: RangeServer):
    """No sidecar, no neighbour, no folder, nothing to write."""
    reader = RemoteReader.find(Address.parse(served.url("a/scene.tif")), AllowList((served.host,)))
    container = Container(reader)
    for name in ("remote/scene.tif.aux.xml", "remote/other.tif", "/etc/passwd"):
        assert not container.isfile(name)
        with pytest.raises(FileNotFoundError):
            container.open(name, "rb")
    with pytest.raises(FileNotFoundError):
        container.open(container.name, "wb")
    assert container.ls("remote") == []
    with container.open(container.name, "rb") as file:
        file.seek(-4, 2)
        assert len(file.read()) == 4
        assert file.tell() == container.size(container.name)
    opened(served)
    assert {asked.path for asked in served.log} == {"/a/scene.tif"}


def test_jpeg_2000(server: RangeServer, data: Path):
    """Another driver through the same reader."""
    path = next((data / "change" / "sinop_modis_ndvi").glob("*.jp2"))
    server.files["x.jp2"] = path.read_bytes()
    source = opened(server, server.url("x.jp2"))
    with source.open() as reader, rasterio.open(path) as local:
        image, _ = reader.read(Window(0, 0, *source.scene.shape))
        valid = local.read() != local.nodata
        np.testing.assert_array_equal(image[valid], local.read()[valid])


def test_bands_from_several_hosts_and_grids(server: RangeServer, data: Path):
    """10 m and 20 m files of one scene, one here and one there, as if both were here."""
    fine = data / "scenes" / "s2_l1c_va_eastern_shore_10m.tif"
    coarse = data / "scenes" / "s2_l1c_va_eastern_shore_20m.tif"
    server.files["coarse.tif"] = coarse.read_bytes()
    window = Window(500, 700, 600, 900)
    images = []
    for second in (str(coarse), server.url("coarse.tif")):
        with opened(server, str(fine), second).open() as reader:
            images.append(reader.read(window))
    np.testing.assert_array_equal(images[0][0], images[1][0])
    np.testing.assert_array_equal(images[0][1], images[1][1])


def test_files_that_are_cut_short(served: RangeServer, cog: Path):
    """A file whose blocks end behind its end is told when it is planned."""
    served.files["a/scene.tif"] = cog.read_bytes()[:200_000]
    with pytest.raises(SceneError, match="truncated"):
        opened(served)


ITEM = {
    "type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
    "properties": {"datetime": "2023-06-01T00:00:00Z"},
}  # fmt: skip


def item(**assets: str) -> bytes:
    """A STAC item of near infrared planes, address by key."""
    bands = {"eo:bands": [{"common_name": "nir"}]}
    return json.dumps(
        {**ITEM, "assets": {k: {"href": href, **bands} for k, href in assets.items()}}
    ).encode()


@pytest.fixture
def one_band(tmp_path: Path) -> Path:
    """A scene of one band, 60 x 80 pixels."""
    return write_geotiff(tmp_path / "nir.tif", random_scene((60, 80), 1), names=("nir",))


@pytest.mark.parametrize("href", ["./nir.tif", "http://{host}/a/nir.tif", "/a/nir.tif"])
@pytest.mark.parametrize("name", ["a/item.json", "a/items/x"])
def test_items_on_another_host(server: RangeServer, one_band: Path, href: str, name: str):
    """A static item, or the answer of an API; its assets beside it or by their address."""
    if "items" in name and href.startswith("./"):
        href = "../nir.tif"
    server.files[name] = item(nir=href.format(host=server.host))
    server.files["a/nir.tif"] = one_band.read_bytes()
    source = opened(server, server.url(name))
    assert source.scene.date is not None
    assert source.scene.date.year == 2023
    with source.open() as reader:
        np.testing.assert_array_equal(
            reader.read(Window(0, 0, 60, 80))[0], random_scene((60, 80), 1)
        )


def test_an_item_here_with_assets_there(server: RangeServer, one_band: Path, tmp_path: Path):
    """Assets of hosts that are not listed are named, with the host, and nothing is asked."""
    server.files["nir.tif"] = one_band.read_bytes()
    path = tmp_path / "item.json"
    path.write_bytes(item(nir=server.url("nir.tif")))
    with pytest.raises(SceneError, match=f"nir on {server.host} .*allow_hosts"):
        opened(server, str(path), allow_hosts=())
    assert server.log == []
    assert opened(server, str(path)).scene.band_names == ("nir",)


@pytest.mark.parametrize("href", ["file://{path}", "{path}"])
def test_an_item_there_names_no_file_here(server: RangeServer, one_band: Path, href: str):
    """What came through the network may not choose which files of this disk are read."""
    server.files["item.json"] = item(nir=href.format(path=one_band))
    with pytest.raises(SceneError, match=r"no asset|no such file: http"):
        opened(server, server.url("item.json"))


@pytest.mark.parametrize("text", [b"[]", b"{", b"<html>", b'{"type": "Feature"}'])
def test_what_is_no_item(server: RangeServer, text: bytes):
    """A page of an API that is no item is one error that names it."""
    server.files["items/x"] = text
    with pytest.raises(SceneError, match=r"not a STAC item.*items/x"):
        opened(server, server.url("items/x"))


def test_mosaics_name_their_files(server: RangeServer, one_band: Path, tmp_path: Path):
    """Errors about two files name both addresses."""
    other = write_geotiff(
        tmp_path / "o.tif", random_scene((60, 80), 1), names=("nir",), crs="EPSG:32633"
    )
    server.files |= {"one.tif": one_band.read_bytes(), "two.tif": other.read_bytes()}
    with pytest.raises(SceneMismatchError, match=r"one\.tif.*two\.tif"):
        opened(server, server.url("one.tif"), server.url("two.tif"))
