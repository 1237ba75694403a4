"""The card refuses what cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tilemap.models.card import ClassInfo, ModelCard

from .conftest import make_card


def card(**fields: object) -> ModelCard:
    """Three bands, two classes."""
    good = make_card(Path(__file__), 3, 2, weights="model.onnx")
    return ModelCard(**{**good.model_dump(), **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"std": (1.0, 0.0, 1.0)}, "std must be above 0 in every band"),
        ({"mean": (1.0,)}, "mean must have one number per band (3), got 1"),
        ({"patch": 100}, "patch=100 must be a multiple of stride=32"),
        ({"weights": "../model.onnx"}, "weights must be a plain file name"),
        ({"classes": (ClassInfo(value=1, name="a", color="#000000"),)}, "at least 2"),
        ({"classes": (ClassInfo(value=1, name="a", color="#000000"),) * 2}, "must differ, got"),
        (
            {
                "classes": (
                    ClassInfo(value=1, name="Water", color="#000000"),
                    ClassInfo(value=2, name="water ", color="#000000"),
                )
            },
            "names must differ by more than case, got Water, water",
        ),
        ({"temperature": 0}, "greater than 0"),
        ({"halo": "wide"}, "halo"),
    ],
)
def test_what_cannot_hold_is_refused(fields: dict[str, object], message: str) -> None:
    """Naming what must."""
    with pytest.raises(ValidationError) as caught:
        card(**fields)
    assert message in str(caught.value)


def test_default_halo_is_the_best_known_in_strides() -> None:
    """Measured, else the context, else 64; rounded up."""
    assert card().default_halo == 64
    assert card(context=24).default_halo == 32
    assert card(context=24, halo=0).default_halo == 0
    assert card(context=300, halo=108, stride=16).default_halo == 112


def test_colours_are_numbers_too() -> None:
    """Red, green, blue."""
    assert ClassInfo(value=0, name="a", color="#0a80ff").rgb == (10, 128, 255)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a\nb", "a\r\nb", "b\x01", "a\x00", "tree\ud800", "a\u2028b", "\x85", "x" * 5000],
)
def test_a_name_that_no_legend_can_hold_is_refused(name: str) -> None:
    """Before a run, not at its end: files give such a name back in other words, or not at all."""
    with pytest.raises(ValidationError, match="name of a class must have 1 to 200 characters"):
        ClassInfo(value=0, name=name, color="#000000")


@pytest.mark.parametrize("name", ["a ", "T\u00e4\u00e4", "\u6728", "a=b;c", "<b>&amp;", "x" * 200])
def test_other_names_are_free(name: str) -> None:
    """Blanks at the end, other scripts, and what XML and tags must escape."""
    assert ClassInfo(value=0, name=name, color="#000000").name == name
