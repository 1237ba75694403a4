"""Networks of segmentation_models_pytorch: their names, and what they do not take."""

from __future__ import annotations

import pytest

from tilemap.errors import ModelError
from tilemap.models.networks import build

from .conftest import need


@pytest.mark.parametrize(
    ("name", "encoder", "message"),
    [
        ("smp:Nope", "resnet18", "smp: must be followed by one of DPT, "),
        ("smp:encoders", "resnet18", "got 'encoders'"),
        ("smp:Unet", "resnet19", "or tu-NAME, got 'resnet19'"),
        ("smp:Unet", "tu-nope", "does not take the encoder tu-nope: Unknown model"),
        ("smp:DPT", "resnet18", "does not take the encoder resnet18"),
    ],
)
def test_what_there_is_not_is_refused(name: str, encoder: str, message: str) -> None:
    """In one line that says what there is."""
    architecture = need({"name": name, "encoder": encoder})
    with pytest.raises(ModelError) as caught:
        build(architecture, 3, 2)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
