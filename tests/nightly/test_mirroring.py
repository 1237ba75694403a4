"""A bucket as the second place of products and catalog: the same files, and sent once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.stores.remote.conftest import Cloud, _cloud, cloud
from tilemap.nightly.config import parse_config
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.passing import run_pass
from tilemap.nightly.request import PassRequest
from tilemap.stores.remote import publish

from .conftest import Nights

__all__ = ["_cloud", "cloud"]


def there(cloud: Cloud) -> dict[str, bytes]:
    """What the bucket holds, by name below the prefix."""
    return {key.removeprefix("maps/"): cloud.get(key) for key in cloud.listing()}


def here(nights: Nights) -> dict[str, bytes]:
    """What lies in the products' folder."""
    root = nights.products
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def config(nights: Nights, cloud: Cloud) -> Any:
    """Passes that publish into the bucket too; what is replaced goes at once."""
    return nights.config(
        publish={"to": f"s3://{cloud.bucket}/maps"},
        remote={"allow_hosts": list(cloud.allow)},
        retention={"grace": "0s"},
    )


def test_the_bucket_holds_what_the_folder_holds(nights: Nights, cloud: Cloud, config: Any) -> None:
    """After each night, byte by byte: new scenes, a changed one, one that left."""
    first = nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    assert nights.night(config).exit_code == 0
    assert there(cloud) == here(nights)
    assert len(there(cloud)) > 20
    first.write_text("other pixels")
    os.utime(first, (1_600_000_100, 1_600_000_100))
    assert nights.night(config).exit_code == 0
    assert there(cloud) == here(nights)


def test_nothing_is_sent_twice(
    nights: Nights, cloud: Cloud, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night that brings nothing leaves every object as it is."""
    nights.bring("a_20190101.tif")
    nights.night(config)
    pages = cloud.client.list_objects_v2(Bucket=cloud.bucket)["Contents"]
    before = {one["Key"]: one["LastModified"] for one in pages}
    sent: list[str] = []
    real = publish.put_folder
    monkeypatch.setattr(publish, "put_folder", lambda *a, **k: (sent.append(a[1]), real(*a, **k)))
    nights.night(config)
    assert sent == []
    pages = cloud.client.list_objects_v2(Bucket=cloud.bucket)["Contents"]
    assert {one["Key"]: one["LastModified"] for one in pages} == before


def test_stopped_in_the_middle(
    nights: Nights, cloud: Cloud, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog there names nothing that is not there; the next pass sends the rest."""
    nights.bring("a_20190101.tif")
    nights.night(config)
    nights.bring("b_20200101.tif")
    nights.bring("c_20210101.tif")
    real = publish.put_folder
    calls: list[str] = []

    def second_fails(folder: Path, url: str, **options: Any) -> Any:
        calls.append(url)
        if len(calls) == 2:
            raise publish.OutputError("cannot send: connection reset")
        return real(folder, url, **options)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "put_folder", second_fails)
        outcome = nights.night(config)
    assert (outcome.status, outcome.exit_code) == ("failed", 73)
    assert set(nights.items()) == {"a_20190101", "b_20200101", "c_20210101"}
    objects = there(cloud)
    collection = json.loads(objects["coast/collection.json"])
    named = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    assert len(named) == 1
    assert all(f"coast/{href.removeprefix('./')}" in objects for href in named)
    assert nights.night(config).exit_code == 0
    assert there(cloud) == here(nights)


def test_bucket_that_is_not_allowed(nights: Nights, cloud: Cloud, config: Any) -> None:
    """Refused in words; the products are delivered here all the same."""
    nights.bring("a_20190101.tif")
    other = config.model_copy(update={"remote": type(config.remote)()})
    outcome = nights.night(other)
    assert (outcome.status, outcome.exit_code) == ("failed", 73)
    assert cloud.bucket in str(outcome.error)
    assert set(nights.items()) == {"a_20190101"}
    assert there(cloud) == {}


@pytest.mark.slow
def test_stores_on_s3(tmp_path: Path, cloud: Cloud, real_run: Path) -> None:
    """Real passes whose stores lie in the bucket: the same map; they go with their run."""
    folder = tmp_path / "in" / "scene_20200101"
    folder.mkdir(parents=True)
    for path in real_run.parent.glob("*.tif"):
        shutil.copy(path, folder)
    table: dict[str, Any] = {
        "nightly": {"root": "out", "stores": cloud.url("stores"), "settle": 0},
        "model": "iplunet-cloud-6b",
        "cluster": {"workers": 1},
        "remote": {"allow_hosts": list(cloud.allow)},
        "areas": [{"name": "coast", "scenes": ["in"], "series": False}],
    }

    def night(keep: bool) -> PassOutcome:
        config = parse_config({**table, "retention": {"stores": keep}}, tmp_path)
        return run_pass(PassRequest(config, "nightly.toml"))

    assert night(keep=True).exit_code == 0
    product = next((tmp_path / "out" / "products" / "coast").glob("*/*/landcover.tif"))
    assert product.read_bytes() == (real_run / "landcover.tif").read_bytes()
    chunks = [key for key in cloud.listing() if "predictions.zarr/label" in key]
    assert len(chunks) > 1
    assert not list((tmp_path / "out" / "work").rglob("predictions.zarr"))
    for path in folder.iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    outcome = night(keep=False)
    assert [(d.status, d.why) for d in outcome.done] == [("ok", "inputs changed")]
    assert cloud.listing() == []
