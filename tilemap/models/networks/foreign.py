"""Networks of segmentation_models_pytorch, an optional package (``tilemap[smp]``).

It needs torchvision, whose build must match torch's: next to another build its import fails. So it
is imported here, when such a network is asked for, and nowhere else.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tilemap.errors import ModelError, UnavailableError

_HINT = "pip install 'tilemap[smp]'"


def smp_network(name: str, bands: int, classes: int, encoder: str = "resnet34") -> nn.Module:
    """A network of segmentation_models_pytorch, freshly initialised; nothing is downloaded.

    Args:
        name: a class of that package, such as "UnetPlusPlus".
        bands: planes of the input.
        classes: planes of the output.
        encoder: one of that package's encoders, "tu-NAME" for one of timm's.

    Raises:
        ModelError: if there is no such network or encoder, or the two do not fit.
        UnavailableError: if the package is not installed or cannot be imported.
    """
    smp = _package()
    kinds = [key for key, value in vars(smp).items() if isinstance(value, type)]
    if name not in kinds:
        raise ModelError(
            f"smp: must be followed by one of {', '.join(sorted(kinds))}, got {name!r}"
        )
    if not encoder.startswith("tu-") and encoder not in smp.encoders.get_encoder_names():
        raise ModelError(
            f"encoder of smp:{name} must be one of smp.encoders.get_encoder_names() or tu-NAME, "
            f"got {encoder!r}"
        )
    try:
        network: nn.Module = getattr(smp, name)(
            encoder_name=encoder, encoder_weights=None, in_channels=bands, classes=classes
        )
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"smp:{name} does not take the encoder {encoder}: {why}") from error
    return network


def _package() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise UnavailableError(f"smp networks need segmentation_models_pytorch: {_HINT}") from error
    except RuntimeError as error:
        # What torchvision raises next to a torch of another build.
        why = " ".join(str(error).split())[:100]
        raise UnavailableError(
            f"segmentation_models_pytorch cannot be imported ({why}); "
            "torch and torchvision must come from one index"
        ) from error
    return segmentation_models_pytorch
