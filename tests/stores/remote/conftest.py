"""A local host, a small real COG, and limits that let tests fail quickly."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window as RasterioWindow

from tilemap.stores.remote.limits import Limits
from tilemap.stores.remote.pool import pool

from .server import RangeServer

QUICK = Limits(wait_s=0.01, longest_wait_s=0.05, silence_s=2.0, connect_s=2.0)


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    """No test reads what another one has fetched."""
    pool().cache.clear()


@pytest.fixture
def server() -> Iterator[RangeServer]:
    """A host without files."""
    with RangeServer() as running:
        yield running


@pytest.fixture(scope="session")
def cog(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1024 x 1100 pixels of the Virginia scene, four bands, as a COG with blocks of 256."""
    path = tmp_path_factory.mktemp("cog") / "virginia_10m.tif"
    with rasterio.open(data / "scenes" / "s2_l1c_va_eastern_shore_10m.tif") as scene:
        part = RasterioWindow(200, 300, 1100, 1024)
        pixels = scene.read(window=part)
        affine = Affine(10, 0, scene.transform.c + 2000, 0, -10, scene.transform.f - 3000)
        profile = {
            "driver": "COG", "dtype": "uint16", "count": 4, "height": 1024, "width": 1100,
            "crs": scene.crs, "transform": affine, "compress": "deflate", "blocksize": 256,
        }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
        for band, name in enumerate(("blue", "green", "red", "nir"), 1):
            out.set_band_description(band, name)
    assert np.ptp(pixels) > 1000
    return path


@dataclass(frozen=True)
class Cloud:
    """A bucket and another client to look into it with."""

    host: str
    bucket: str
    client: Any

    @property
    def allow(self) -> tuple[str, ...]:
        """What ``--allow-host`` is given."""
        return f"s3://{self.bucket}", self.host

    def url(self, key: str = "") -> str:
        """Address of an object."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> None:
        """Make an object."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        """Body of an object."""
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def listing(self) -> list[str]:
        """All there are, in order."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", ()))


@pytest.fixture(scope="session")
def _cloud() -> Iterator[str]:
    """An S3 server on loopback."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("obstore")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def cloud(_cloud: str, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An empty bucket, and an environment that leads to it."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{_cloud}", "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key-of-nobody", "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://{_cloud}", region_name="us-east-1")
    bucket = f"bucket-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    return Cloud(_cloud, bucket, client)
