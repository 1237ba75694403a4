"""From the architecture on a card to a network: the one door to all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tilemap.errors import ModelError
from tilemap.models.networks import foreign, transformer
from tilemap.models.networks.deeplab import DeepLabV3Plus
from tilemap.models.networks.encoders import ENCODERS
from tilemap.models.networks.fcn import FCN
from tilemap.models.networks.plain import PlainUNet
from tilemap.models.networks.pspnet import PSPNet
from tilemap.models.networks.siamese import SiameseUNet
from tilemap.models.networks.unet import UNet

_PLAIN: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "deeplabv3plus": DeepLabV3Plus,
    "fcn": FCN,
    "pspnet": PSPNet,
}
_TRANSFORMERS: dict[str, Callable[..., nn.Module]] = {
    "segformer": transformer.segformer,
    "mask2former": transformer.mask2former,
}
_PAIRS: dict[str, Callable[..., nn.Module]] = {"siamese_unet": SiameseUNet}
_BARE: dict[str, Callable[..., nn.Module]] = {"plain_unet": PlainUNet}
_OPTIONS: dict[str, dict[str, type]] = {
    "unet": {"encoder": str, "width": int},
    "deeplabv3plus": {"encoder": str, "width": int, "image_pooling": bool},
    "fcn": {"encoder": str, "width": int},
    "pspnet": {"encoder": str, "width": int},
    "plain_unet": {"channels": str, "norm": str, "lean": bool},
    "siamese_unet": {"encoder": str, "width": int, "join": str},
    "segformer": {"size": str, "width": int, "decoder": int},
    "mask2former": {"size": str, "width": int, "hidden": int, "queries": int, "layers": int},
}
_SMP = "smp:"

PLAIN = tuple(_PLAIN)
"""Networks in plain torch, each on any of ``ENCODERS``."""
STRIDE = {
    "unet": 32,
    "deeplabv3plus": 16,
    "fcn": 32,
    "pspnet": 8,
    "plain_unet": 16,
    "siamese_unet": 32,
    "segformer": 32,
    "mask2former": 32,
}
"""Sides of a patch are multiples of this, by network; see ``stride_of`` for others."""


def stride_of(architecture: Mapping[str, Any]) -> int:
    """Sides of a patch are multiples of this.

    Args:
        architecture: see ``build``; only its name counts.

    Returns:
        ``STRIDE[name]``; 32 for "smp:NAME", whose networks halve the patch at most five times; 1
        for a name that is none.
    """
    name = str(architecture.get("name"))
    return 32 if name.startswith(_SMP) else STRIDE.get(name, 1)


def bounded_context(architecture: Mapping[str, Any]) -> bool:
    """Whether what a pixel gets depends on a neighbourhood of bounded size only.

    Only then can a halo be wide enough for seams to vanish. Means over the patch and attention
    across it have no bound; of networks that are not ours nothing is known.

    Args:
        architecture: see ``build``.

    Raises:
        ModelError: if a name or an option is unknown.
    """
    name, options = _checked(architecture)
    if name == "deeplabv3plus":
        return not options.get("image_pooling", False)
    return name in ("unet", "fcn", "plain_unet", "siamese_unet")


def build(architecture: Mapping[str, Any], bands: int, classes: int) -> nn.Module:
    """The network a card describes, freshly initialised and in training mode.

    Args:
        architecture: ``name`` and the network's options.
            "unet", "deeplabv3plus", "fcn", "pspnet": ``encoder`` (a key of ``ENCODERS``, default
            "resnet18"), ``width`` (default 64); "deeplabv3plus" also ``image_pooling`` (default
            False). "siamese_unet": the first two and ``join``, see ``SiameseUNet``. "plain_unet":
            ``channels``, ``norm``, ``lean``, see ``PlainUNet``. "segformer" and "mask2former": see
            ``transformer``. "smp:NAME", a class of segmentation_models_pytorch: ``encoder``, one
            of its encoders (default "resnet34").
        bands: planes of the input, 1 or more; of both dates together for "siamese_unet".
        classes: planes of the output, 1 or more.

    Returns:
        A module from (batch, band, y, x) to logits (batch, class, y, x); y and x are multiples
        of ``stride_of(architecture)``.

    Raises:
        ModelError: if a name, an option or a value is unknown.
        UnavailableError: if the network needs an optional package.
    """
    name, options = _checked(architecture)
    if bands < 1 or classes < 1:
        raise ModelError(f"bands and classes must be 1 or more, got {bands} and {classes}")
    if name.startswith(_SMP):
        return foreign.smp_network(name.removeprefix(_SMP), bands, classes, **options)
    if name in _BARE:
        return _BARE[name](bands=bands, classes=classes, **options)
    if name in _TRANSFORMERS:
        return _TRANSFORMERS[name](bands=bands, classes=classes, **options)
    options = {"encoder": "resnet18", "width": 64, **options}
    if options["encoder"] not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise ModelError(f"encoder must be one of {known}, got {options['encoder']!r}")
    if not 4 <= options["width"] <= 1024:
        raise ModelError(f"width must lie between 4 and 1024, got {options['width']}")
    return {**_PLAIN, **_PAIRS}[name](bands=bands, classes=classes, **options)


def _checked(architecture: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options, each of a kind that this name has."""
    given = dict(architecture)
    name = given.pop("name", None)
    if isinstance(name, str) and name.startswith(_SMP):
        options: dict[str, type] = {"encoder": str}
    elif isinstance(name, str) and name in _OPTIONS:
        options = _OPTIONS[name]
    else:
        known = ", ".join(_OPTIONS)
        raise ModelError(f"architecture name must be one of {known}, {_SMP}NAME, got {name!r}")
    for key, value in given.items():
        if key not in options:
            raise ModelError(f"{name} has the options {', '.join(options)}, got {key!r}")
        if type(value) is not options[key]:
            raise ModelError(f"{name} {key} must be a {options[key].__name__}, got {value!r}")
    return name, given


def seeded(architecture: Mapping[str, Any], bands: int, classes: int, seed: int = 0) -> nn.Module:
    """The same random network for the same seed, ready to run.

    Its normalisation statistics are drawn too, so that nothing in it is a no-op; its logits are
    spread enough for every class to appear.

    Args:
        architecture: see ``build``.
        bands: see ``build``.
        classes: see ``build``.
        seed: any integer.

    Returns:
        The network in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        # What is not drawn below keeps the values that its own package draws.
        torch.default_generator.manual_seed(seed)
        network = build(architecture, bands, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.uniform_(-0.1, 0.1, generator=generator)
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.1, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.eval()
