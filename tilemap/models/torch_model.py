"""A network of ours with weights from safetensors, run by torch on a CPU or a GPU."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tilemap.errors import ModelError, UnavailableError, UsageError
from tilemap.models.allocator import keep_freed_memory
from tilemap.models.networks import build, stride_of
from tilemap.models.protocol import FloatArray, check_image
from tilemap.models.prune import fit_to, unpruned

if TYPE_CHECKING:
    from tilemap.geometry import Window
    from tilemap.models.card import ModelCard

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LANES = 64


class TorchModel:
    """A network and its weights behind the protocol.

    Weights and activations are in ``precision`` and channels-last, normalisation is folded into
    the convolutions before them; the softmax is in float32.

    Args:
        card: what the model is.
        path: the ``.safetensors`` file.
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16".
        threads: CPU threads within one forward; it holds for the whole process.
        fold: fold the normalisation; without it the network is as it was trained, and slower.

    Raises:
        ModelError: if the file is no safetensors file, or contradicts the card.
        UnavailableError: if there is no such GPU.
        UsageError: if the device is of another kind.
    """

    def __init__(
        self,
        card: ModelCard,
        path: Path,
        device: str = "cpu",
        precision: str = "float32",
        threads: int = 1,
        fold: bool = True,
    ) -> None:
        keep_freed_memory()
        self._card = card
        self._device = _device(device)
        self._precision = precision
        self._threads = threads
        self._check_card(path.name)
        network = load_network(card, path)
        if fold:
            fold_normalisation(network)
        self._network = _channels_last(network.to(self._device, _DTYPES[precision]))

    def _check_card(self, file: str) -> None:
        card = self._card
        if card.activation != "logits" or card.layout != "NCHW" or card.patch is not None:
            raise ModelError(
                f"{card.name}: the card of {file} must have activation logits, layout NCHW and "
                f"no fixed patch, got {card.activation}, {card.layout} and {card.patch}"
            )
        least = stride_of(card.architecture)
        if card.stride % least:
            raise ModelError(
                f"{card.name}: the card's stride must be a multiple of {least} for this "
                f"architecture, got {card.stride}"
            )

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self._card

    @property
    def backend(self) -> str:
        """For the record of the run."""
        return f"torch {self._precision} {self._device}"

    @torch.inference_mode()
    def predict(self, image: FloatArray, crop: Window | None = None) -> FloatArray:
        """See ``protocol.Model.predict``."""
        check_image(self._card, image)
        # torch keeps the number per thread, and a worker may load and run in different ones.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        batch = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        batch = batch.to(_DTYPES[self._precision], memory_format=torch.channels_last)
        logits: Tensor = self._network(batch)[0]
        if crop is not None:
            logits = logits[:, crop.top : crop.bottom, crop.left : crop.right]
        return _probability(logits, self._card.temperature)


def _probability(logits: Tensor, temperature: float) -> FloatArray:
    """Softmax in float32 of (class, y, x), C-contiguous whatever the order in memory was.

    The planes are made a multiple of ``_LANES`` long: the last few numbers of an array would go
    through other instructions, and a pixel's last bit would depend on where the crop ends.
    """
    classes, rows, cols = logits.shape
    size = rows * cols
    planes = torch.zeros(classes, -(-size // _LANES) * _LANES, device=logits.device)
    planes[:, :size].view(classes, rows, cols).copy_(logits)
    if temperature != 1:
        planes /= temperature
    result: FloatArray = torch.softmax(planes, dim=0)[:, :size].contiguous().cpu().numpy()
    return result.reshape(classes, rows, cols)


def _device(device: str) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device must be cpu, cuda or cuda:N, got {device!r}") from None
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError(f"device must be cpu, cuda or cuda:N, got {device!r}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"device {device} must be a GPU that torch sees, it sees {torch.cuda.device_count()}"
        )
    return chosen


def load_network(card: ModelCard, path: Path) -> nn.Module:
    """The network a card describes with the weights of a file, as it was trained.

    Args:
        card: for ``architecture``, ``bands`` and ``classes``; with ``pruned = true`` in the
            architecture, inner widths are those of the file (see ``prune``).
        path: the ``.safetensors`` file.

    Returns:
        In evaluation mode, float32, on the CPU, normalisation not folded.

    Raises:
        ModelError: if the file is no safetensors file, or has not exactly the network's tensors.
    """
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path.name} is not a whole safetensors file: {error}") from None
    architecture, pruned = unpruned(card.architecture)
    network = build(architecture, len(card.bands), len(card.classes)).eval()
    if pruned:
        fit_to(network, weights)
    _take(network, weights, path)
    return network


def _take(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Strict: the file has exactly the network's tensors."""
    expected = network.state_dict()
    # Counters of training steps carry nothing for inference.
    missing = [k for k in expected if k not in weights and not k.endswith("num_batches_tracked")]
    extra = [k for k in weights if k not in expected]
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors, first {missing[0]}"] if missing else []
        parts += [f"has {len(extra)} others, first {extra[0]}"] if extra else []
        raise ModelError(f"{path.name} is not of the card's architecture: {' and '.join(parts)}")
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise ModelError(
                f"{path.name} contradicts the card in {key}: card wants "
                f"{tuple(expected[key].shape)}, file has {tuple(value.shape)}"
            )
    network.load_state_dict(weights, strict=False)


def fold_normalisation(network: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place.

    Args:
        network: in evaluation mode; a convolution and its normalisation are neighbours among
            the children of one module, in the order they are applied.
    """
    children = list(network.named_children())
    for (name, first), (next_name, second) in itertools.pairwise(children):
        # timm's own normalisation is a subclass that also activates
        if isinstance(first, nn.Conv2d) and type(second) is nn.BatchNorm2d:
            setattr(network, name, fuse_conv_bn_eval(first, second))
            setattr(network, next_name, nn.Identity())
    for _, child in children:
        fold_normalisation(child)


def _channels_last(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
