"""The card on disk: STAC, exact both ways, and one line for whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import CRS

from tilemap.errors import ModelError
from tilemap.models.card import BandStatistics, ClassInfo, ModelCard
from tilemap.models.mlm import card_from_item, card_to_item, read_card, write_json
from tilemap.models.registry import SHIPPED, list_models
from tilemap.models.trained_on import Part, TrainedArea, TrainedScene, encode_blocks

numbers = st.floats(-1e6, 1e6, allow_nan=False)
words = st.text(max_size=20)
colors = st.from_regex(r"\A#[0-9a-fA-F]{6}\Z")
letters = st.characters(exclude_categories=("C", "Zl", "Zp"))
class_names = st.text(letters, min_size=1, max_size=20).filter(str.strip)
statistics = st.builds(
    BandStatistics,
    mean=numbers,
    std=st.floats(0, 1e6),
    quantiles=st.lists(numbers, min_size=7, max_size=7).map(sorted).map(tuple),
)


@st.composite
def grounds(draw: st.DrawFn) -> TrainedScene:
    """Any scene of a training."""
    parts = draw(arrays(np.uint8, (3, 4), elements=st.sampled_from([int(p) for p in Part])))
    fields: dict[str, Any] = {
        "crs": draw(st.sampled_from(["EPSG:32631", CRS(3035).to_wkt(), None])),
        "transform": (draw(st.floats(0.1, 100)), 0, draw(numbers), 0, -10, draw(numbers)),
        "shape": (70, 127),
        "block": 32,
        "labels": draw(st.none() | st.from_regex(r"\A[0-9a-f]{64}\Z")),
    }
    if draw(st.booleans()):
        wkt = f"POLYGON ((0 0, {draw(st.floats(1, 9))!r} 0, 1 1, 0 0))"
        areas = (TrainedArea(part="validation", wkt=wkt),)
        return TrainedScene(**fields, areas=areas)
    found = TrainedScene(**fields, blocks=encode_blocks(parts))
    assert np.array_equal(found.parts(), parts)
    return found


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    """Any card."""
    bands = tuple(draw(st.lists(words, min_size=1, max_size=5)))
    count = len(bands)
    means = st.none() | st.lists(numbers, min_size=count, max_size=count).map(tuple)
    positive = st.floats(1e-6, 1e6)
    stds = st.none() | st.lists(positive, min_size=count, max_size=count).map(tuple)
    stride = draw(st.sampled_from([1, 4, 16, 32]))
    values = draw(st.lists(st.integers(0, 254), min_size=2, max_size=6, unique=True))
    return ModelCard(
        name=draw(st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,10}\Z")),
        title=draw(words),
        version=draw(words),
        description=draw(words),
        license=draw(words),
        source=draw(words),
        bands=bands,
        units=draw(st.sampled_from(["reflectance", "stored"])),
        mean=draw(means),
        std=draw(stds),
        layout=draw(st.sampled_from(["NCHW", "NHWC"])),
        patch=draw(st.none() | st.integers(1, 20).map(lambda n: n * stride)),
        stride=stride,
        activation=draw(st.sampled_from(["softmax", "sigmoid", "logits"])),
        classes=tuple(
            ClassInfo(value=v, name=f"{v} {draw(class_names)}", color=draw(colors)) for v in values
        ),
        architecture=draw(st.dictionaries(words, words | st.booleans() | st.integers())),
        context=draw(st.none() | st.integers(0, 500)),
        halo=draw(st.none() | st.integers(0, 500)),
        temperature=draw(positive),
        metrics=draw(st.dictionaries(words, numbers | st.integers() | words)),
        training_data=tuple(draw(st.lists(words, max_size=3))),
        trained_on=tuple(draw(st.lists(grounds(), max_size=2))),
        statistics=draw(st.none() | st.tuples(*[statistics] * count)),
        gsd_m=draw(st.none() | st.lists(positive, min_size=2, max_size=2).map(sorted).map(tuple)),
        derived_from=draw(st.none() | words),
        weights=draw(st.sampled_from(["model.onnx", "model.safetensors"])),
        sha256=draw(st.from_regex(r"\A[0-9a-f]{64}\Z")),
    )


GROUND = {
    "crs": None, "transform": [1, 0, 0, 0, 1, 0], "shape": [70, 127], "block": 32, "blocks": "12t",
}  # fmt: skip


@given(cards())
def test_round_trip_is_exact(card: ModelCard) -> None:
    """Through JSON text and back, every field."""
    item = json.loads(json.dumps(card_to_item(card)))
    assert card_from_item(item) == card


def item() -> dict[str, Any]:
    """A good one."""
    return json.loads((SHIPPED / "ukis-csmask-6b-5class" / "model.json").read_text())


def test_item_says_what_others_look_for() -> None:
    """The fields of STAC and of its extension, where other programs look."""
    properties = item()["properties"]
    assert item()["type"] == "Feature"
    assert properties["mlm:name"] == "ukis-csmask-6b-5class"
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    (source,) = properties["mlm:input"]
    assert source["bands"] == ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert source["input"]["shape"] == [-1, 256, 256, 6]
    assert source["value_scaling"][0] == {"type": "z-score", "mean": 0.19312, "stddev": 0.16431}
    (result,) = properties["mlm:output"]
    assert result["classification:classes"][1]["name"] == "water"
    assert item()["assets"]["weights"]["file:checksum"].startswith("1220abd33028")


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.card.name)
def test_shipped_cards_are_stac(entry: Any) -> None:
    """A STAC library reads them, weights and all."""
    pystac = pytest.importorskip("pystac")
    path = SHIPPED / entry.card.name / "model.json"
    assert read_card(path) == entry.card
    read = pystac.Item.from_dict(json.loads(path.read_text()))
    assert read.id == entry.card.name
    assert read.assets["weights"].href == f"./{entry.card.weights}"
    assert set(read.assets["weights"].roles) == {"mlm:model", "mlm:weights"}


def change(where: str, value: Any) -> dict[str, Any]:
    """A good item with one thing changed; None takes it away."""
    changed = item()
    *path, last = where.split("/")
    place: Any = changed
    for key in path:
        place = place[int(key) if isinstance(place, list) else key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("properties/tilemap:trained_on", [GROUND | {"blocks": "3t"}], "blocks must be 3 x 4"),
        ("properties/tilemap:trained_on", [GROUND | {"blocks": "12q"}], "got no such text"),
        ("properties/tilemap:trained_on", [GROUND | {"crs": "EPSG:1"}], "an EPSG code or WKT"),
        ("properties/tilemap:trained_on", [GROUND | {"transform": [0] * 6}], "have an inverse"),
        ("properties", None, "must be a STAC item with mlm properties: 'properties' is missing"),
        ("properties/mlm:input", None, "'mlm:input' is missing"),
        ("properties/mlm:input", [], "not enough values"),
        ("properties/mlm:input/0/value_scaling", [{"type": "min-max"}] * 6, "is missing"),
        ("properties/mlm:input/0/bands", ["red"], "mean must have one number per band (1), got 6"),
        ("properties/mlm:output/0/name", "tanh", "activation: Input should be 'softmax'"),
        ("properties/tilemap:card_version", 3, "model cards up to version 2, got 3"),
        ("properties/tilemap:colour", "red", "colour: no such field; a card has name, title"),
        ("properties/tilemap:bands", ["red"], "tilemap:bands has a place of its own"),
        ("properties/tilemap:stride", 0, "stride: Input should be greater"),
        ("properties/tilemap:stride", 48, "patch=256 must be a multiple of stride=48"),
        ("properties/tilemap:title", None, "title: Field required"),
        ("assets/weights/href", "../../etc/passwd", "weights must be a plain file name"),
        ("assets/weights/file:checksum", "1220", "sha256: String should match"),
        ("assets/weights", "model.onnx", "must be a STAC item"),
    ],
)
def test_wrong_cards_get_one_line(where: str, value: Any, message: str) -> None:
    """That names the field and what must hold."""
    with pytest.raises(ModelError) as caught:
        card_from_item(change(where, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scaling_of_another_kind_is_refused() -> None:
    """We standardise and do nothing else."""
    scaling = [{"type": "min-max", "mean": 0.0, "stddev": 1.0}] * 6
    with pytest.raises(ModelError, match="value_scaling must be z-score"):
        card_from_item(change("properties/mlm:input/0/value_scaling", scaling))


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[1]", "must be a JSON object"), ("{}", "name: ")]
)
def test_files_that_are_no_card_are_named(tmp_path: Path, text: str, message: str) -> None:
    """Path first."""
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        read_card(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_missing_card_file_is_named(tmp_path: Path) -> None:
    """With what the system says."""
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read_card(tmp_path / "none.json")


def test_plain_fields_are_a_card_too(tmp_path: Path) -> None:
    """As a person writes them."""
    card = list_models()[0].card
    path = tmp_path / "card.json"
    write_json(card.model_dump(mode="json"), path)
    assert read_card(path) == card
    assert list(tmp_path.iterdir()) == [path]


def test_a_card_of_the_first_version_is_read() -> None:
    """What a card did not say before, it leaves open."""
    old = item()
    old["properties"]["tilemap:card_version"] = 1
    for name in ("statistics", "gsd_m", "derived_from"):
        old["properties"].pop(f"tilemap:{name}", None)
    card = card_from_item(old)
    assert (card.statistics, card.gsd_m, card.derived_from) == (None, None, None)
    assert card.card_version == 2
