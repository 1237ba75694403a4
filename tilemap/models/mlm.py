"""The card on disk: a STAC Item of the Machine Learning Model extension.

What the extension has a place for stands there and only there; the rest of the card stands in
properties that begin with ``tilemap:``. So both directions are exact.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tilemap import files
from tilemap.errors import ModelError
from tilemap.models.card import CARD_VERSION, READABLE, ModelCard

EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
_OWN = (
    "title",
    "version",
    "source",
    "units",
    "stride",
    "architecture",
    "context",
    "halo",
    "temperature",
    "metrics",
    "training_data",
    "trained_on",
    "statistics",
    "gsd_m",
    "derived_from",
    "card_version",
)
"""Fields of the card without a place of their own in the extension."""
_SHA256 = "1220"
"""Multihash prefix of a SHA-256 digest of 32 bytes."""


def card_to_item(card: ModelCard) -> dict[str, Any]:
    """The card as a STAC Item, ready for ``json.dump``.

    Args:
        card: any card.

    Returns:
        A GeoJSON feature without geometry: a model is of no place and of all times.
    """
    fields = card.model_dump(mode="json")
    properties: dict[str, Any] = {
        "description": card.description,
        "license": card.license,
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "mlm:name": card.name,
        "mlm:architecture": str(card.architecture.get("name", "unknown")),
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX" if card.weights.endswith(".onnx") else "pytorch",
        "mlm:input": [_input(card)],
        "mlm:output": [_output(card)],
        **{f"tilemap:{name}": fields[name] for name in _OWN},
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": card.name,
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {
            "weights": {
                "href": f"./{card.weights}",
                "type": "application/octet-stream",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "onnx" if card.weights.endswith(".onnx") else "safetensors",
                "file:checksum": _SHA256 + card.sha256,
            }
        },
    }


def _input(card: ModelCard) -> dict[str, Any]:
    side = card.patch or -1
    planes = len(card.bands)
    if card.layout == "NCHW":
        shape, order = [-1, planes, side, side], ["batch", "bands", "height", "width"]
    else:
        shape, order = [-1, side, side, planes], ["batch", "height", "width", "bands"]
    scaling = None
    if card.mean is not None or card.std is not None:
        mean = card.mean or [None] * planes
        std = card.std or [None] * planes
        scaling = [
            {"type": "z-score", "mean": one, "stddev": other}
            for one, other in zip(mean, std, strict=True)
        ]
    return {
        "name": "patch",
        "bands": list(card.bands),
        "input": {"shape": shape, "dim_order": order, "data_type": "float32"},
        "value_scaling": scaling,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(card: ModelCard) -> dict[str, Any]:
    side, planes = card.patch or -1, len(card.classes)
    nchw = card.layout == "NCHW"
    return {
        "name": card.activation,
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, planes, side, side] if nchw else [-1, side, side, planes],
            "dim_order": (
                ["batch", "class", "height", "width"]
                if nchw
                else ["batch", "height", "width", "class"]
            ),
            "data_type": "float32",
        },
        "post_processing_function": None,
        "classification:classes": [
            {"value": c.value, "name": c.name, "color_hint": c.color[1:]} for c in card.classes
        ],
    }


def card_from_item(item: dict[str, Any]) -> ModelCard:
    """The card that ``card_to_item`` wrote.

    Args:
        item: a STAC Item with ``mlm:`` and ``tilemap:`` properties, as parsed from JSON.

    Returns:
        The card.

    Raises:
        ModelError: in one line, if a field is missing, unknown or out of range, or the card is
            of a version this program does not know.
    """
    try:
        fields = _fields(item)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"a model card must be a STAC item with mlm properties: {_what(error)}"
        ) from None
    return card_from_fields(fields)


def card_from_fields(fields: dict[str, Any]) -> ModelCard:
    """A card from its plain fields.

    Args:
        fields: by name, as ``ModelCard`` has them.

    Raises:
        ModelError: as ``card_from_item``.
    """
    version = fields.get("card_version", CARD_VERSION)
    if version not in READABLE:
        raise ModelError(
            f"this tilemap reads model cards up to version {CARD_VERSION}, got {version!r}; "
            "a newer tilemap wrote it"
        )
    try:
        return ModelCard.model_validate({**fields, "card_version": CARD_VERSION})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"no such field; a card has {', '.join(ModelCard.model_fields)}"
        raise ModelError(f"model card: {where + ': ' if where else ''}{message}") from None


def _fields(item: dict[str, Any]) -> dict[str, Any]:
    properties = item["properties"]
    own = {
        key.removeprefix("tilemap:"): value
        for key, value in properties.items()
        if key.startswith("tilemap:")
    }
    placed = set(ModelCard.model_fields) - set(_OWN)
    if twice := sorted(placed & set(own)):
        raise ValueError(f"tilemap:{twice[0]} has a place of its own in the extension")
    (source,), (result,) = properties["mlm:input"], properties["mlm:output"]
    order = source["input"]["dim_order"]
    channel = 1 if order.index("bands") == 1 else 3
    side = source["input"]["shape"][2]
    weights = item["assets"]["weights"]
    checksum = weights["file:checksum"]
    return {
        **own,
        "name": properties["mlm:name"],
        "description": properties["description"],
        "license": properties["license"],
        "bands": source["bands"],
        "mean": _scaling(source["value_scaling"], "mean"),
        "std": _scaling(source["value_scaling"], "stddev"),
        "layout": "NCHW" if channel == 1 else "NHWC",
        "patch": None if side == -1 else side,
        "activation": result["name"],
        "classes": [
            {"value": c["value"], "name": c["name"], "color": f"#{c['color_hint']}"}
            for c in result["classification:classes"]
        ],
        "weights": weights["href"].removeprefix("./"),
        "sha256": checksum.removeprefix(_SHA256),
    }


def _scaling(scaling: list[dict[str, Any]] | None, key: str) -> list[float] | None:
    if scaling is None or any(entry[key] is None for entry in scaling):
        return None
    if any(entry["type"] != "z-score" for entry in scaling):
        raise ValueError("value_scaling must be z-score")
    return [entry[key] for entry in scaling]


def _what(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)


def read_card(path: Path) -> ModelCard:
    """The card in a file, as a STAC Item or as its plain fields.

    Raises:
        ModelError: in one line that names the file.
    """
    fields = read_json(path)
    try:
        return card_from_item(fields) if "properties" in fields else card_from_fields(fields)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    value = files.read_json(path, ModelError)
    if not isinstance(value, dict):
        raise ModelError(f"{path}: a model card must be a JSON object")
    return value


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write an object for people to read; the file is whole or not there.

    Raises:
        OSError: if it cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
