"""Small networks of every kind, and the optional packages some of them come from."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import torch

Architecture = dict[str, Any]

ALL: dict[str, Architecture] = {
    "unet": {"name": "unet", "width": 4},
    "deeplabv3plus": {"name": "deeplabv3plus", "width": 4, "image_pooling": True},
    "fcn": {"name": "fcn", "encoder": "resnet50", "width": 4},
    "pspnet": {"name": "pspnet", "width": 4},
    "unet-lite": {"name": "unet", "encoder": "efficientnet-lite0", "width": 16},
    "pspnet-lite": {"name": "pspnet", "encoder": "efficientnet-lite0", "width": 16},
    "plain": {"name": "plain_unet", "channels": "4 6 8 8 8"},
    "plain-lean": {"name": "plain_unet", "channels": "5 6 8 8 8", "norm": "after", "lean": True},
    "siamese": {"name": "siamese_unet", "width": 4},
    "siamese-both": {"name": "siamese_unet", "width": 4, "join": "both"},
    "segformer": {"name": "segformer", "size": "b1", "width": 4, "decoder": 16},
    "mask2former": {
        "name": "mask2former",
        "width": 8,
        "hidden": 32,
        "queries": 7,
        "layers": 2,
    },
    "smp": {"name": "smp:Linknet", "encoder": "mobilenet_v2"},
    "smp-timm": {"name": "smp:UnetPlusPlus", "encoder": "tu-mobilenetv3_small_050"},
}
"""One small network of each kind."""

_LIBRARIES: list[torch.library.Library] = []


def dates(architecture: Architecture) -> int:
    """How many dates a network takes the bands of."""
    return 2 if architecture["name"] == "siamese_unet" else 1


def need(architecture: Architecture) -> Architecture:
    """The architecture, if the package it needs is here; else the test is skipped."""
    name = architecture["name"]
    if name in ("segformer", "mask2former"):
        pytest.importorskip("transformers")
    if name.startswith("smp:"):
        need_torchvision()
        pytest.importorskip("segmentation_models_pytorch")
    return architecture


def need_torchvision() -> ModuleType:
    """torchvision, even if it was built for another torch: nothing here calls what then lacks.

    Its import only wants two operators to have a name; it registers shapes for them.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)  # names live as long as it does
        return importlib.import_module("torchvision")
