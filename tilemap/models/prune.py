"""Structured pruning: whole inner channels removed, so that the network is smaller and faster.

Only channels that one convolution makes and one other reads are removed: inside a residual block,
inside a step of the decoder, inside an inverted block. What blocks hand on to each other keeps its
width, so shortcuts and joins still fit, and the card's architecture still says how the parts are
put together; the inner widths are those of the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tilemap.errors import ModelError, UsageError

PRUNABLE = ("unet", "deeplabv3plus", "fcn", "pspnet", "plain_unet")
"""Names of the architectures whose inner channels are known."""
CRITERIA = ("scale", "l1")
"""What tells how much a channel counts: see ``importance``. Of the demo model the first changes a
third fewer labels at 30 % and a fourth as many at 50 %."""
MULTIPLE = 8
"""Widths stay multiples of this: the vector units of a CPU compute the rest anyway."""


@dataclass(frozen=True)
class Inner:
    """Channels that stay inside a part of the network; names of modules.

    Args:
        conv: makes them.
        norm: normalises them.
        reader: reads them, and nothing else does.
        depthwise: works on each of them by itself, on the way.
        depthwise_norm: normalises that, where it is normalised.
    """

    conv: str
    norm: str
    reader: str
    depthwise: str | None = None
    depthwise_norm: str | None = None

    def within(self, name: str) -> Inner:
        """The same, by the names the modules have seen from outside of the module ``name``."""
        parts = dataclasses.asdict(self)
        return Inner(**{key: part and f"{name}.{part}".lstrip(".") for key, part in parts.items()})


def inner_channels(network: nn.Module) -> list[Inner]:
    """Everything in one of our networks that may be pruned, in the order of its modules."""
    return [
        inner.within(name)
        for name, module in network.named_modules()
        for inner in _inner_of(module)
    ]


def _inner_of(module: nn.Module) -> Iterator[Inner]:
    """Of one module and not of its children, by what the module is made of."""
    parts = dict(module.named_children())
    kinds = {key: type(part) for key, part in parts.items()}
    if kinds.get("conv1") is kinds.get("conv2") is nn.Conv2d:  # BasicBlock, Bottleneck
        yield Inner("conv1", "bn1", "conv2")
        if "conv3" in parts:
            yield Inner("conv2", "bn2", "conv3")
    elif kinds.get("conv1") is kinds.get("conv2") is nn.Sequential:  # a step of a decoder
        yield Inner("conv1.0", "conv1.1", "conv2.0")
    elif _is_double(parts):  # a level of a plain U-Net
        yield Inner("0.0", "0.1", "1.0")
    elif "_expand_conv" in parts:  # InvertedBlock
        yield Inner("_expand_conv", "_bn0", "_project_conv", "_depthwise_conv", "_bn1")
    elif "pyramid" in parts and "fine" in parts:  # two separable convolutions of DeepLabV3+
        yield Inner("fuse.0.1", "fuse.0.2", "fuse.1.1", "fuse.1.0")


def _is_double(parts: Mapping[str, nn.Module]) -> bool:
    """Two convolutions, each with its normalisation right behind."""
    if list(parts) != ["0", "1"] or {type(part) for part in parts.values()} != {nn.Sequential}:
        return False
    kinds = [[type(one) for one in part.children()][:2] for part in parts.values()]
    return kinds == [[nn.Conv2d, nn.BatchNorm2d]] * 2


def importance(network: nn.Module, inner: Inner, criterion: str) -> Tensor:
    """How much each of some inner channels counts.

    Args:
        network: not folded, so that its normalisation is there.
        inner: from ``inner_channels``.
        criterion: "l1", the L1 norm of the channel's filter times the scale and over the deviation
            of its normalisation, which is the norm of the filter it is at work (Li et al. 2017,
            "Pruning filters for efficient convnets"); "scale", the magnitude of that scale alone
            (Liu et al. 2017, "Learning efficient convolutional networks through network slimming").

    Returns:
        One number per channel, 0 or more.
    """
    norm = _norm(network, inner.norm)
    scale = norm.weight.detach().abs()
    if criterion == "scale":
        return scale
    weight = _conv(network, inner.conv).weight.detach()
    assert norm.running_var is not None
    return weight.abs().sum(dim=(1, 2, 3)) * scale / (norm.running_var + norm.eps).sqrt()


def prune_channels(
    network: nn.Module, share: float, criterion: str = "scale", multiple: int = MULTIPLE
) -> dict[str, int]:
    """Remove the least important inner channels of every part, in place.

    Args:
        network: one of ours, not folded; stays in the mode it is in.
        share: at most this share of each part's channels is removed, above 0 and below 1.
        criterion: one of ``CRITERIA``.
        multiple: widths stay multiples of this.

    Returns:
        New width of each part that lost channels, by the name of the convolution that makes them.

    Raises:
        UsageError: if an argument has no such value.
        ModelError: if there is nothing to remove.
    """
    if not 0 < share < 1:
        raise UsageError(f"share must lie between 0 and 1, got {share}")
    if criterion not in CRITERIA:
        raise UsageError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
    widths: dict[str, int] = {}
    for inner in inner_channels(network):
        before = _conv(network, inner.conv).out_channels
        # Rounded first: 1 - 0.3 is a little more than 0.7.
        wanted = -(-round(before * (1 - share), 6) // multiple) * multiple
        after = int(max(wanted, 1))
        if after >= before:
            continue
        best = importance(network, inner, criterion).argsort(descending=True, stable=True)
        _keep(network, inner, best[:after].sort().values)
        widths[inner.conv] = after
    if not widths:
        raise ModelError(
            f"nothing to remove: share {share} of no part is {multiple} channels or more; "
            "take a larger share"
        )
    return widths


def fit_to(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a freshly built network the inner widths of weights that were pruned, in place.

    Only inner widths are taken, and only those that can be; whatever else differs is found when the
    weights are loaded.

    Args:
        network: as ``build`` made it.
        weights: by name.
    """
    for inner in inner_channels(network):
        made = weights.get(f"{inner.conv}.weight")
        before = _conv(network, inner.conv).out_channels
        if made is not None and made.dim() == 4 and 0 < made.shape[0] < before:
            _keep(network, inner, torch.arange(made.shape[0]))


def unpruned(architecture: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The architecture that ``build`` takes, and whether its weights were pruned.

    Raises:
        ModelError: if the inner channels of this network are not known.
    """
    bare = dict(architecture)
    pruned = bare.pop("pruned", False)
    if pruned not in (False, True):
        raise ModelError(f"pruned must be true or false, got {pruned!r}")
    if pruned and bare.get("name") not in PRUNABLE:
        known = ", ".join(PRUNABLE)
        raise ModelError(f"only {known} can be pruned, got {bare.get('name')!r}")
    return bare, bool(pruned)


def _keep(network: nn.Module, inner: Inner, kept: Tensor) -> None:
    """Keep some channels, by ascending index, in every module they pass."""
    made, reader = _conv(network, inner.conv), _conv(network, inner.reader)
    made.weight = nn.Parameter(made.weight.detach()[kept].clone())
    if made.bias is not None:
        made.bias = nn.Parameter(made.bias.detach()[kept].clone())
    made.out_channels = len(kept)
    _keep_norm(_norm(network, inner.norm), kept)
    if inner.depthwise is not None:
        alone = _conv(network, inner.depthwise)
        alone.weight = nn.Parameter(alone.weight.detach()[kept].clone())
        alone.in_channels = alone.out_channels = alone.groups = len(kept)
    if inner.depthwise_norm is not None:
        _keep_norm(_norm(network, inner.depthwise_norm), kept)
    reader.weight = nn.Parameter(reader.weight.detach()[:, kept].clone())
    reader.in_channels = len(kept)


def _keep_norm(norm: nn.BatchNorm2d, kept: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.weight = nn.Parameter(norm.weight.detach()[kept].clone())
    norm.bias = nn.Parameter(norm.bias.detach()[kept].clone())
    norm.running_mean = norm.running_mean[kept].clone()
    norm.running_var = norm.running_var[kept].clone()
    norm.num_features = len(kept)


def _conv(network: nn.Module, name: str) -> nn.Conv2d:
    module = network.get_submodule(name)
    assert isinstance(module, nn.Conv2d)
    return module


def _norm(network: nn.Module, name: str) -> nn.BatchNorm2d:
    module = network.get_submodule(name)
    assert isinstance(module, nn.BatchNorm2d)
    return module
