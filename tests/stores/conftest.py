"""Real products to list in a catalog, and STAC's schemas to hold its files against, offline."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from tilemap.api import change, demo_scene, segment
from tilemap.stores.stac_item import EXTENSIONS
from tilemap.testing import write_geotiff

SCHEMAS = Path(__file__).parent / "schemas"
STAC = "https://schemas.stacspec.org/v1.1.0"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
Validate = Callable[[dict[str, Any]], list[str]]


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ``segment`` over a corner of the scene that ships, as of 18 May 2020.

    The scene lies beside it, ``S2A_20200518.tif``.
    """
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("mapped")
    with rasterio.open(demo_scene()[0]) as fine, rasterio.open(demo_scene()[1]) as coarse:
        near = fine.read(window=((300, 420), (400, 550)))
        far = coarse.read(window=((150, 210), (200, 275))).repeat(2, axis=1).repeat(2, axis=2)
        west, north = fine.xy(300, 400, offset="ul")
        at = Affine(10, 0, west, 0, -10, north)
    scene = write_geotiff(
        folder / "S2A_20200518.tif", np.concatenate([near, far]), names=BANDS, scale=1e-4,
        transform=at,
    )  # fmt: skip
    run = segment(
        scene, model="iplunet-cloud-6b", out=folder / "run", core=96, halo=32, blend=8, workers=1,
        probabilities=True, uncertainty=["entropy"],
    )  # fmt: skip
    assert run.status == "ok"
    return run.directory


@pytest.fixture(scope="session")
def compared(mapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ``change`` over that run and itself a year later."""
    folder = tmp_path_factory.mktemp("compared")
    later = folder / "later"
    shutil.copytree(mapped, later)
    days = ["2020-05-18", "2021-05-18"]
    done = change([mapped, later], out=folder / "change", dates=days, workers=1)
    assert done.status == "ok"
    return folder / "change"


def _schema_files() -> dict[str, Path]:
    """Where each schema lies on this disk, by its address."""
    ours = Path(str(resources.files("pystac.validation.jsonschemas")))
    core = ours / "stac-spec" / "v1.1.0"
    specifications = Path(str(resources.files("jsonschema_specifications"))) / "schemas"
    parts = {path.stem for path in core.glob("*.json")} - {"item", "catalog", "collection"}
    return {
        **{
            f"{STAC}/{kind}-spec/json-schema/{kind}.json": core / f"{kind}.json"
            for kind in ("item", "catalog", "collection")
        },
        **{f"{STAC}/item-spec/json-schema/{part}.json": core / f"{part}.json" for part in parts},
        **{
            f"https://geojson.org/schema/{name}.json": ours / "geojson" / f"{name}.json"
            for name in ("Feature", "Geometry")
        },
        **{url: SCHEMAS / f"{'-'.join(url.split('/')[-3:-1])}.json" for url in EXTENSIONS.values()},
        "http://json-schema.org/draft-07/schema": specifications / "draft7" / "metaschema.json",
    }


@pytest.fixture
def validate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Validate]:
    """Faults of an item, a collection or a catalog by its schemas and those of its extensions.

    Both by stac-validator and by the plain schemas under the draft they are written in; a schema
    that is not on this disk is a fault, and so is any request.
    """
    stac_validator = pytest.importorskip("stac_validator.validate")
    utilities = pytest.importorskip("stac_validator.utilities")
    jsonschema, referencing = pytest.importorskip("jsonschema"), pytest.importorskip("referencing")
    files = _schema_files()
    assert all(path.is_file() for path in files.values())
    contents = {url: json.loads(path.read_text()) for url, path in files.items()}
    registry = referencing.Registry().with_resources(
        (url, referencing.Resource.from_contents(schema)) for url, schema in contents.items()
    )

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a request although every schema lies on this disk")

    monkeypatch.setattr(utilities.requests, "get", refuse)
    utilities.set_schema_cache_size(len(files))

    def faults(value: dict[str, Any]) -> list[str]:
        kind = {"Feature": "item", "Catalog": "catalog", "Collection": "collection"}[value["type"]]
        urls = [f"{STAC}/{kind}-spec/json-schema/{kind}.json", *value.get("stac_extensions", [])]
        found = []
        for url in urls:
            validator = jsonschema.Draft7Validator(contents[url], registry=registry)
            found += [f"{url}: {error.message[:200]}" for error in validator.iter_errors(value)]
        theirs = stac_validator.StacValidate(schema_map={u: str(p) for u, p in files.items()})
        valid = theirs.validate_dict(copy.deepcopy(value))
        said = [f"stac-validator: {message}" for message in theirs.message]
        assert valid or said
        return found + ([] if valid else said)

    yield faults
    utilities.set_schema_cache_size(utilities.DEFAULT_SCHEMA_CACHE_SIZE)
