"""SegFormer and Mask2Former, by the optional package transformers (``tilemap[transformers]``).

Networks are made from numbers on the card alone and initialised at random: nothing is downloaded.
Attention reaches across the whole patch (Swin's windows also lie by where the patch begins), so
**context has no bound** and seams cannot vanish.

transformers imports torchvision if it finds it, though these networks have no use for it; next to
a torch of another build that import fails, and theirs with it. ``_library`` hides a torchvision
that cannot be imported while transformers looks for it; one that works is left alone.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemap.errors import ModelError, UnavailableError

_SEGFORMER: dict[str, tuple[tuple[int, int, int, int], int, int]] = {
    "b0": ((2, 2, 2, 2), 32, 256),
    "b1": ((2, 2, 2, 2), 64, 256),
    "b2": ((3, 4, 6, 3), 64, 768),
    "b3": ((3, 4, 18, 3), 64, 768),
    "b4": ((3, 8, 27, 3), 64, 768),
    "b5": ((3, 6, 40, 3), 64, 768),
}
"""Blocks per stage, channels of the first stage, channels of the decoder (Xie et al. 2021)."""
_SWIN: dict[str, tuple[tuple[int, int, int, int], int, int]] = {
    "tiny": ((2, 2, 6, 2), 96, 7),
    "small": ((2, 2, 18, 2), 96, 7),
    "base": ((2, 2, 18, 2), 128, 12),
    "large": ((2, 2, 18, 2), 192, 12),
}
"""Blocks per stage, channels of the first stage, side of a window (Liu et al. 2021)."""
_LEAST = 1e-7
"""The smallest probability before classes are normalised, for a finite logarithm."""


class SegFormer(nn.Module):
    """The package's network with its scores enlarged to the patch.

    Args:
        network: a ``SegformerForSemanticSegmentation``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 32."""
        scores = self.network(pixel_values=x).logits
        return functional.interpolate(scores, scale_factor=4.0, mode="bilinear")


class Mask2Former(nn.Module):
    """The package's network with its masks and their classes made one map of classes.

    Args:
        network: a ``Mask2FormerForUniversalSegmentation``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 32.

        They are logarithms of probabilities: softmax gives the probabilities themselves.
        """
        found = self.network(pixel_values=x)
        probability = semantic(found.class_queries_logits, found.masks_queries_logits)
        return functional.interpolate(probability, scale_factor=4.0, mode="bilinear").log()


def semantic(classes: Tensor, masks: Tensor) -> Tensor:
    """Probability of each class at each pixel from masks, each with scores of classes.

    The sum over the queries of class probability times mask probability (Cheng et al. 2022,
    "semantic inference"), brought to a sum of 1 over the classes.

    Args:
        classes: scores (batch, query, class + 1); the last says that the query found nothing.
        masks: scores (batch, query, y, x).

    Returns:
        Probability, float32 (batch, class, y, x), above 0.
    """
    found = classes.float().softmax(dim=-1)[..., :-1]
    total = torch.einsum("bqc,bqyx->bcyx", found, masks.float().sigmoid()).clamp_min(_LEAST)
    return total / total.sum(dim=1, keepdim=True)


def segformer(
    bands: int, classes: int, size: str = "b0", width: int | None = None, decoder: int | None = None
) -> nn.Module:
    """SegFormer (Xie et al. 2021).

    Args:
        bands: planes of the input.
        classes: planes of the output.
        size: "b0" to "b5".
        width: channels of the first stage, 1 to 256; the others have 2, 5 and 8 times as many. By
            default the size's: 32 for "b0", else 64.
        decoder: channels of the decoder, 1 to 2048; by default the size's: 256 or 768.

    Raises:
        ModelError: if a value is none of these.
        UnavailableError: if transformers is not installed.
    """
    _one_of("segformer size", size, _SEGFORMER)
    depths, usual, usual_decoder = _SEGFORMER[size]
    width = usual if width is None else width
    decoder = usual_decoder if decoder is None else decoder
    _within("segformer width", width, 1, 256)
    _within("segformer decoder", decoder, 1, 2048)
    library = _library()
    config = library.SegformerConfig(
        num_channels=bands,
        num_labels=classes,
        depths=list(depths),
        hidden_sizes=[width * factor for factor in (1, 2, 5, 8)],
        num_attention_heads=[1, 2, 5, 8],
        decoder_hidden_size=decoder,
    )
    return SegFormer(library.SegformerForSemanticSegmentation(config)).train()


def mask2former(
    bands: int,
    classes: int,
    size: str = "tiny",
    width: int | None = None,
    hidden: int = 256,
    queries: int = 100,
    layers: int = 9,
) -> nn.Module:
    """Mask2Former (Cheng et al. 2022) on a Swin transformer.

    It runs in torch only: transformers 5.23 lays out its levels by the size of the patch it was
    traced with, so that an ONNX file of it would take that size alone.

    Args:
        bands: planes of the input.
        classes: planes of the output.
        size: of the Swin transformer: "tiny", "small", "base" or "large".
        width: channels of its first stage, a multiple of 32, or 4 to 63; by default the size's:
            96, 96, 128 or 192.
        hidden: channels of the decoders, a multiple of 32.
        queries: number of masks, 1 to 1000.
        layers: of the decoder, 1 to 30; the decoder of pixels has two thirds as many.

    Raises:
        ModelError: if a value is none of these.
        UnavailableError: if transformers is not installed.
    """
    _one_of("mask2former size", size, _SWIN)
    depths, usual, window = _SWIN[size]
    width = usual if width is None else width
    _within("mask2former width", width, 4, 512)
    if width >= 64 and width % 32:
        raise ModelError(f"mask2former width must be a multiple of 32, or below 64, got {width}")
    _within("mask2former hidden", hidden, 32, 1024)
    if hidden % 32:
        raise ModelError(f"mask2former hidden must be a multiple of 32, got {hidden}")
    _within("mask2former queries", queries, 1, 1000)
    _within("mask2former layers", layers, 1, 30)
    library = _library()
    backbone = library.SwinConfig(
        num_channels=bands,
        embed_dim=width,
        depths=list(depths),
        num_heads=[max(1, width // 32) * 2**stage for stage in range(4)],
        window_size=window,
        drop_path_rate=0.3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = library.Mask2FormerConfig(
        backbone_config=backbone,
        num_labels=classes,
        feature_size=hidden,
        mask_feature_size=hidden,
        hidden_dim=hidden,
        encoder_feedforward_dim=4 * hidden,
        dim_feedforward=8 * hidden,
        encoder_layers=max(1, layers * 2 // 3),
        decoder_layers=layers + 1,
        num_queries=queries,
    )
    network = library.Mask2FormerForUniversalSegmentation(config)
    network.criterion = nn.Identity()  # its loss has a buffer and no use here
    for module in network.modules():
        if isinstance(module, library.SwinModel):
            module.layernorm.requires_grad_(False)  # made, and never applied by this network
    return Mask2Former(network).train()


def _one_of(what: str, value: str, known: dict[str, Any]) -> None:
    if value not in known:
        raise ModelError(f"{what} must be one of {', '.join(known)}, got {value!r}")


def _within(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ModelError(f"{what} must lie between {least} and {most}, got {value}")


def _library() -> Any:
    """The package, with the networks imported that are used here."""
    try:
        with _without_broken_torchvision():
            import transformers
            from transformers import (  # noqa: F401  # what is imported here is looked up later
                Mask2FormerForUniversalSegmentation,
                SegformerForSemanticSegmentation,
            )
    except ImportError as error:
        raise UnavailableError(
            f"segformer and mask2former need transformers: pip install 'tilemap[transformers]' "
            f"({error})"
        ) from error
    return transformers


@contextmanager
def _without_broken_torchvision() -> Iterator[None]:
    """Within, a torchvision that cannot be imported is not found either."""
    if _torchvision_works():
        yield
        return
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # Python: "not to be found"
    # torch's exporter may have imported transformers, which keeps what it found.
    looked = sys.modules.get("transformers.utils.import_utils")
    for name in ("is_torchvision_available", "is_torchvision_v2_available"):
        forget = getattr(getattr(looked, name, None), "cache_clear", None)
        if forget is not None:
            forget()
    try:
        yield
    finally:
        del sys.modules["torchvision"]


def _torchvision_works() -> bool:
    if "torchvision" in sys.modules:
        return True
    if importlib.util.find_spec("torchvision") is None:
        return True
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError):
        return False
    return True
