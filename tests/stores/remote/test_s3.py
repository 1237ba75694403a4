"""Scenes on S3: the same reader over obstore, under the same rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tilemap.errors import SceneError, StoreError, UnavailableError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.blocks import RemoteReader, fetch_whole

from .conftest import QUICK, Cloud
from .server import Fault, RangeServer


def opened(cloud: Cloud, key: str = "a/scene.tif") -> SceneSource:
    """A scene of the bucket."""
    return open_scene(SceneRequest((cloud.url(key),), allow_hosts=cloud.allow))


def found(cloud: Cloud, key: str) -> RemoteReader:
    """An object of the bucket."""
    return RemoteReader.find(Address.parse(cloud.url(key)), AllowList.of(cloud.allow), QUICK)


def test_a_scene_on_s3_is_the_local_one(cloud: Cloud, cog: Path):
    """Grid, bands, pixels; a fingerprint with the object's ETag."""
    cloud.put("a/scene.tif", cog.read_bytes())
    source, here = opened(cloud), open_scene(SceneRequest((str(cog),)))
    assert source.scene.geobox == here.scene.geobox
    assert source.scene.bands == here.scene.bands
    window = Window(100, 200, 600, 700)
    with source.open() as one, here.open() as two:
        np.testing.assert_array_equal(one.read(window)[0], two.read(window)[0])
    inputs = source.inputs()
    (there,), (local,) = inputs.records(), here.inputs().records()
    assert inputs.files[0].name == "scene.tif"
    assert there["size"] == local["size"]
    head = cloud.client.head_object(Bucket=cloud.bucket, Key="a/scene.tif")
    assert there["version"] == head["ETag"]


def test_an_item_on_s3(cloud: Cloud, cog: Path):
    """Its assets lie beside it, or in the bucket by their address."""
    cloud.put("a/scene.tif", cog.read_bytes())
    feature = {
        "type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
        "properties": {"datetime": "2023-06-01T00:00:00Z"},
    }  # fmt: skip
    for href in ("./scene.tif", cloud.url("a/scene.tif")):
        assets = {"data": {"href": href}}
        cloud.put("a/item.json", json.dumps({**feature, "assets": assets}).encode())
        assert opened(cloud, "a/item.json").scene.band_names == ("blue", "green", "red", "nir")


def test_an_object_that_changes_is_an_error(cloud: Cloud):
    """Refused by the server, or told by what it answers."""
    cloud.put("a.bin", bytes(200_000))
    reader = found(cloud, "a.bin")
    cloud.put("a.bin", b"\1" * 200_000)
    with pytest.raises(StoreError, match="has changed since the run was planned"):
        reader.read_many([(100_000, 100_010)])


def test_what_is_refused(cloud: Cloud, monkeypatch: pytest.MonkeyPatch):
    """Bucket and endpoint must both be listed; an unencrypted endpoint must be meant."""
    cloud.put("a.tif", b"x")
    address = Address.parse(cloud.url("a.tif"))
    with pytest.raises(SceneError, match=f"list s3://{cloud.bucket} in `allow_hosts`"):
        RemoteReader.find(address, AllowList.of([cloud.host]), QUICK)
    with pytest.raises(SceneError, match=f"list {cloud.host} in `allow_hosts`"):
        RemoteReader.find(address, AllowList.of([f"s3://{cloud.bucket}"]), QUICK)
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(SceneError, match="set AWS_ALLOW_HTTP=true"):
        found(cloud, "a.tif")


def test_what_is_not_there(cloud: Cloud):
    """A missing object, an empty one, one that is too large to be an item, a text."""
    cloud.put("empty.tif", b"")
    cloud.put("text.tif", b"hello, this is no raster")
    with pytest.raises(SceneError, match=f"no such file: s3://{cloud.bucket}/a.tif"):
        found(cloud, "a.tif")
    with pytest.raises((SceneError, StoreError)):
        found(cloud, "empty.tif")
    with pytest.raises(SceneError, match="not a raster"):
        opened(cloud, "text.tif")
    with pytest.raises(SceneError, match="must lead to"):
        opened(cloud, "text.zip")
    with pytest.raises(SceneError, match="at most 10 bytes"):
        fetch_whole(Address.parse(cloud.url("text.tif")), AllowList.of(cloud.allow), 10, QUICK)


def test_without_obstore(cloud: Cloud, monkeypatch: pytest.MonkeyPatch):
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UnavailableError, match=r'pip install "tilemap\[s3\]"'):
        found(cloud, "a.tif")


@pytest.fixture
def failing(cloud: Cloud, server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An endpoint that fails as told: the host of the HTTP tests, which knows no signatures."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.host}/")
    return Cloud(server.host, "bucket-one", None)


def test_what_passes_is_survived(failing: Cloud, server: RangeServer):
    """Busy, broken, short: asked again, and counted by us alone."""
    data = bytes(range(256)) * 800
    server.files["bucket-one/a.bin"] = data
    server.faults.extend([Fault(503), Fault(429), Fault(cut=50)])
    assert found(failing, "a.bin").read(0, 10) == data[:10]
    assert len(server.log) == 4
    assert all("X-Amz-Signature" in asked.path for asked in server.log)


def test_public_buckets(failing: Cloud, server: RangeServer, monkeypatch: pytest.MonkeyPatch):
    """Nothing is signed, and no credentials are needed."""
    server.files["bucket-one/a.bin"] = bytes(100)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SceneError, match="credentials come from"):  # half of a pair
        found(failing, "a.bin")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert found(failing, "a.bin").size == 100
    assert [asked.path for asked in server.log] == ["/bucket-one/a.bin"]


def test_signatures_are_renewed(failing: Cloud, server: RangeServer):
    """Before they run out."""
    server.files["bucket-one/a.bin"] = bytes(200_000)
    reader = found(failing, "a.bin")
    reader._ranges._until = 0.0  # type: ignore[attr-defined]
    first = reader._ranges._http  # type: ignore[attr-defined]
    reader.read_many([(100_000, 100_010)])
    assert reader._ranges._http is not first  # type: ignore[attr-defined]


def test_attempts_are_counted(failing: Cloud, server: RangeServer):
    """As often as the limits say, and no secret in what is told."""
    server.always["bucket-one/a.bin"] = Fault(503)
    with pytest.raises(StoreError, match="5 times") as caught:
        found(failing, "a.bin")
    assert len(server.log) == QUICK.attempts
    assert "hunter2" not in str(caught.value)


def test_an_endpoint_does_not_lead_elsewhere(failing: Cloud, server: RangeServer):
    """A redirect to a host that is not listed is not followed."""
    with RangeServer() as other:
        other.files["a.bin"] = bytes(100_000)
        server.always["bucket-one/a.bin"] = Fault(302, {"Location": other.url("a.bin")})
        with pytest.raises(SceneError, match=f"redirects to {other.host}, which is not"):
            found(failing, "a.bin")
        assert other.log == []


def test_refusals_of_the_server(failing: Cloud, server: RangeServer):
    """Access denied says where credentials come from, at once."""
    server.always["bucket-one/a.bin"] = Fault(403)
    with pytest.raises(SceneError, match="AWS_ACCESS_KEY_ID") as caught:
        found(failing, "a.bin")
    assert "hunter2" not in str(caught.value)
    assert len(server.log) == 1


def test_the_pixels_of_rasterio(cloud: Cloud, cog: Path):
    """An independent look at the object: what is read is what lies there."""
    cloud.put("a/scene.tif", cog.read_bytes())
    with rasterio.io.MemoryFile(cloud.get("a/scene.tif")) as file, file.open() as dataset:
        expected = dataset.read(window=((0, 300), (0, 300)))
    with opened(cloud).open() as reader:
        np.testing.assert_array_equal(reader.read(Window(0, 0, 300, 300))[0], expected)
