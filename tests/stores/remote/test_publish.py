"""Products on S3: in an order that shows nothing half, verified, sent once."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import pytest

from tilemap.errors import OutputError, UnavailableError
from tilemap.stores.remote.place import RemotePlace
from tilemap.stores.remote.publish import (
    PART,
    delete_prefix,
    get_bytes,
    list_prefix,
    publishing_order,
    put_bytes,
    put_folder,
)

from .conftest import Cloud
from .server import Fault, RangeServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A product of several files, one of them large, and one that is not finished."""
    source = random.Random(3)
    for name, size in {
        "landcover.tif": 2 * PART + 12345, "landcover.tif.aux.xml": 900, "landcover.qml": 700,
        "item.json": 50, "run.json": 60, "sub/table.csv": 10, "x.tif.partial": 5,
    }.items():  # fmt: skip
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(size))
    return tmp_path / "out"


def test_a_folder_is_sent_whole_and_in_order(cloud: Cloud, folder: Path):
    """Every finished file, byte for byte, with its digest and type; large ones in parts."""
    receipts = put_folder(folder, cloud.url("maps/one"), allow_hosts=cloud.allow)
    names = [receipt.name for receipt in receipts]
    assert names == ["landcover.qml", "landcover.tif.aux.xml", "sub/table.csv", "landcover.tif",
                     "item.json", "run.json"]  # fmt: skip
    assert cloud.listing() == sorted(f"maps/one/{name}" for name in names)
    for receipt in receipts:
        data = (folder / receipt.name).read_bytes()
        head = cloud.client.head_object(Bucket=cloud.bucket, Key=f"maps/one/{receipt.name}")
        assert cloud.get(f"maps/one/{receipt.name}") == data
        assert head["Metadata"]["sha256"] == receipt.sha256 == hashlib.sha256(data).hexdigest()
        assert (receipt.bytes, receipt.sent) == (len(data), True)
    assert head["ContentType"] == "application/json"
    large = cloud.client.head_object(Bucket=cloud.bucket, Key="maps/one/landcover.tif")
    assert large["ETag"].strip('"').endswith("-3")  # parts


def test_what_is_there_is_not_sent_again(cloud: Cloud, folder: Path):
    """Only what changed goes out."""
    put_folder(folder, cloud.url("maps/one"), allow_hosts=cloud.allow)
    (folder / "run.json").write_bytes(b"x" * 60)  # as long as before
    again = put_folder(folder, cloud.url("maps/one"), allow_hosts=cloud.allow)
    assert [r.name for r in again if r.sent] == ["run.json"]
    assert cloud.get("maps/one/run.json") == b"x" * 60


def test_some_files_of_a_folder(cloud: Cloud, folder: Path):
    """Those that are named; one that is missing is an error before anything follows it."""
    put_folder(folder, cloud.url("a"), ["landcover.qml"], cloud.allow)
    assert cloud.listing() == ["a/landcover.qml"]
    with pytest.raises(OutputError, match=r"cannot read .*missing\.csv"):
        put_folder(folder, cloud.url("b"), ["missing.csv", "item.json"], cloud.allow)
    assert set(cloud.listing()) == {"a/landcover.qml"}
    with pytest.raises(OutputError, match="must be a folder"):
        put_folder(folder / "nothing", cloud.url("b"), None, cloud.allow)


def test_order_of_any_names():
    """The same whatever the order they come in; rasters behind sidecars, JSON behind rasters."""
    names = ["b.tif", "a.json", "z.qml", "a.tif", "deep/c.JSON", "deep/c.TIF"]
    expected = ["z.qml", "a.tif", "b.tif", "deep/c.TIF", "a.json", "deep/c.JSON"]
    for seed in range(5):
        random.Random(seed).shuffle(names)
        assert publishing_order(names) == expected


def test_small_files(cloud: Cloud):
    """Written, replaced, read back, left alone where they are the same."""
    url = cloud.url("catalog/catalog.json")
    assert get_bytes(url, cloud.allow) is None
    assert put_bytes(url, b"{}", cloud.allow).sent
    assert not put_bytes(url, b"{}", cloud.allow).sent
    assert put_bytes(url, b"[]", cloud.allow).sent
    assert get_bytes(url, cloud.allow) == b"[]"


def test_prefixes_are_folders(cloud: Cloud):
    """What merely begins with the same letters is neither listed nor removed."""
    for key in ("maps/one/a", "maps/one/b/c", "maps/one-more/a", "maps/on"):
        cloud.put(key, b"12345")
    assert list_prefix(cloud.url("maps/one"), cloud.allow) == {"a": 5, "b/c": 5}
    assert set(list_prefix(cloud.url(), cloud.allow)) == set(cloud.listing())
    assert delete_prefix(cloud.url("maps/one/"), cloud.allow) == 2
    assert cloud.listing() == ["maps/on", "maps/one-more/a"]
    with pytest.raises(OutputError, match="whole bucket"):
        delete_prefix(cloud.url(), cloud.allow)
    assert len(cloud.listing()) == 2


def test_more_than_a_page(cloud: Cloud):
    """Listings and removals of more keys than one answer holds."""
    for number in range(1005):
        cloud.put(f"many/{number}", b"")
    assert len(list_prefix(cloud.url("many"), cloud.allow)) == 1005
    assert delete_prefix(cloud.url("many"), cloud.allow) == 1005
    assert cloud.listing() == []


@pytest.mark.parametrize("url", ["https://example.org/a", "file:///tmp/a", "s3://B", "/tmp/a"])
def test_places_that_are_none(url: str):
    """Products go to S3."""
    with pytest.raises(OutputError, match="s3://"):
        RemotePlace.parse(url, ("example.org",))


def test_places_that_are_not_listed(cloud: Cloud, folder: Path):
    """Nothing is sent to a bucket, or through an endpoint, that was not named."""
    for allow in ((), cloud.allow[:1], cloud.allow[1:]):
        with pytest.raises(OutputError, match="allow_hosts"):
            put_folder(folder, cloud.url("a"), None, allow)
    assert cloud.listing() == []


def test_a_bucket_that_is_not_there(cloud: Cloud, folder: Path):
    """One line, no secret, no address of the endpoint."""
    with pytest.raises(OutputError, match="cannot write s3://nowhere-at-all/a") as caught:
        put_folder(folder, "s3://nowhere-at-all/a", None, ("s3://nowhere-at-all", cloud.host))
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def failing(cloud: Cloud, server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An endpoint that fails as told."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.host}")
    modified = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    server.always["bucket-one/a/item.json"] = Fault(headers={**modified, META: DIGEST})
    return Cloud(server.host, "bucket-one", None)


META, DIGEST = "x-amz-meta-sha256", hashlib.sha256(b"{}").hexdigest()


def test_what_passes_is_survived(failing: Cloud, server: RangeServer):
    """A busy host is asked again, to look and to write."""
    server.faults.extend([Fault(503), None, Fault(503), Fault(500)])
    assert put_bytes(failing.url("a/item.json"), b"{}", failing.allow).sent
    assert [asked.method for asked in server.log] == ["HEAD"] * 2 + ["PUT"] * 3 + ["HEAD"]
    assert server.files["bucket-one/a/item.json"] == b"{}"


def test_refusals_are_told(failing: Cloud, server: RangeServer):
    """Who may not write learns where credentials come from; nothing secret is told."""
    server.always["bucket-one/a/item.json"] = Fault(403)
    with pytest.raises(
        OutputError, match=r"look at s3://bucket-one/a/item\.json: .*AWS_"
    ) as caught:
        put_bytes(failing.url("a/item.json"), b"{}", failing.allow)
    assert "hunter2" not in str(caught.value)


def test_what_comes_out_otherwise(failing: Cloud, server: RangeServer):
    """An object that is not what was sent is an error."""
    server.always["bucket-one/a/item.json"] = Fault(
        headers={"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", META: "0" * 64}
    )
    with pytest.raises(OutputError, match="is not what was sent"):
        put_bytes(failing.url("a/item.json"), b"{}", failing.allow)


def test_without_obstore(cloud: Cloud, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UnavailableError, match=r"tilemap\[s3\]"):
        put_folder(folder, cloud.url("a"), None, cloud.allow)
