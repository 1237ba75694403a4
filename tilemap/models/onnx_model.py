"""A trained ONNX file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilemap.errors import ModelError, UnavailableError
from tilemap.models.onnx_file import check_self_contained
from tilemap.models.protocol import FloatArray, check_image

if TYPE_CHECKING:
    from tilemap.geometry import Window
    from tilemap.models.card import ModelCard

_KINDS = {"tensor(float)": "float32"}


class OnnxModel:
    """An ONNX file behind the protocol.

    Args:
        card: what the file is said to be.
        path: the ``.onnx`` file.
        threads: threads within one forward, 1 or more.

    Raises:
        UnavailableError: if ONNX Runtime is not installed.
        ModelError: if the file is no ONNX model, or contradicts the card.
    """

    def __init__(self, card: ModelCard, path: Path, threads: int = 1) -> None:
        self._card = card
        check_self_contained(path)
        self._session = _session(path, threads)
        inputs, outputs = (
            [End(end.name, end.shape, _KINDS.get(end.type, end.type)) for end in ends]
            for ends in (self._session.get_inputs(), self._session.get_outputs())
        )
        check_ends(path.name, inputs, outputs, card)
        self._input, self._output = inputs[0].name, outputs[0].name

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self._card

    @property
    def backend(self) -> str:
        """For the record of the run."""
        return f"onnxruntime {'int8' if self._card.architecture.get('int8') else 'float32'} cpu"

    def predict(self, image: FloatArray, crop: Window | None = None) -> FloatArray:
        """See ``protocol.Model.predict``."""
        feed = {self._input: to_batch(image, self._card)}
        try:
            planes = self._session.run([self._output], feed)[0][0]
        except Exception as error:  # its errors have no common type of their own
            raise ModelError(f"{self._card.name}: {first_line(error)}") from error
        return from_planes(planes, image, crop, self._card)


def to_batch(image: FloatArray, card: ModelCard) -> FloatArray:
    """A patch as the file takes it, C-contiguous, in the layout of the card.

    Raises:
        ModelError: if the image does not fit the card.
    """
    check_image(card, image)
    batch = image.transpose(1, 2, 0)[None] if card.layout == "NHWC" else image[None]
    return np.ascontiguousarray(batch, dtype=np.float32)


def from_planes(
    planes: FloatArray, image: FloatArray, crop: Window | None, card: ModelCard
) -> FloatArray:
    """What a file gave for a patch, as probabilities of the crop.

    Args:
        planes: output for the one patch, without the batch axis, in the layout of the card.
        image: the patch, (band, y, x).
        crop: see ``protocol.Model.predict``.

    Returns:
        See ``protocol.Model.predict``.

    Raises:
        ModelError: if the output is not as large as the patch.
    """
    planes = planes.transpose(2, 0, 1) if card.layout == "NHWC" else planes
    if planes.shape[1:] != image.shape[1:]:
        raise ModelError(
            f"{card.name}: the output must be as large as the input "
            f"{image.shape[1:]}, got {planes.shape[1:]}"
        )
    if crop is not None:
        planes = planes[:, crop.top : crop.bottom, crop.left : crop.right]
    return to_probability(planes, card)


SUM = 0.05
"""How far probabilities may lie from a sum of 1: those of a model in 8 bits do, by rounding."""
_EXACT = 0.01
"""The same of numbers that would be logits."""
_FEW, _SPREAD = 16, 0.05  # of so few pixels, or of pixels so alike, it may be chance
_EVERY = 8  # pixels between those whose sum is looked at, in each direction


def to_probability(planes: FloatArray, card: ModelCard) -> FloatArray:
    """What a file gives, as probabilities of the card's classes.

    Args:
        planes: float32 (plane, y, x), as ``card.activation`` says; a single sigmoid plane is
            the probability of the second of two classes.
        card: for ``activation``, ``classes`` and ``temperature`` (which divides logits; of
            softmax planes the logarithm is the logits, of sigmoid planes that of the odds).

    Returns:
        Probability, float32 (class, y, x), C-contiguous, sums to 1 over class.

    Raises:
        ModelError: if several planes of probabilities do not sum to 1, as those of a model that
            gives a pixel several labels. To divide by the sum would make a faint sign certain.
            If logits are probabilities already, whose softmax says little of any class.
    """
    if len(planes) > 1:
        (_check_logits if card.activation == "logits" else _check_sums)(planes, card)
    if card.activation == "sigmoid":
        planes = _tempered(planes, card.temperature)
        if len(planes) == 1:
            return np.concatenate([1 - planes, planes])
        total = np.maximum(planes.sum(axis=0), np.finfo(np.float32).tiny)
        return np.ascontiguousarray(planes / total)
    if card.activation == "softmax" and card.temperature == 1:
        return np.ascontiguousarray(planes)
    if card.activation == "softmax":
        planes = np.log(np.maximum(planes, np.finfo(np.float32).tiny))
    powers = np.exp((planes - planes.max(axis=0)) / np.float32(card.temperature))
    return np.ascontiguousarray(powers / powers.sum(axis=0), dtype=np.float32)


def _check_logits(planes: FloatArray, card: ModelCard) -> None:
    some = planes[:, ::_EVERY, ::_EVERY].reshape(len(planes), -1)
    if some.shape[1] < _FEW or some.min() < 0 or some.max() > 1:
        return
    if np.ptp(some, axis=1).max() < _SPREAD:  # of a patch of fill all pixels are alike
        return
    if np.abs(some.sum(axis=0) - 1).max() <= _EXACT:
        raise ModelError(
            f"{card.name} must give logits, but all that it gives lies in 0..1 and sums to 1: "
            "these are probabilities; say activation = softmax in the card"
        )


def _check_sums(planes: FloatArray, card: ModelCard) -> None:
    sums = planes[:, ::_EVERY, ::_EVERY].sum(axis=0)
    sums = sums[np.isfinite(sums)]  # what is not finite is refused later, by that name
    if sums.size and np.abs(sums - 1).max() > SUM:
        raise ModelError(
            f"the {card.activation} planes of {card.name} must sum to 1 over its classes, they sum "
            f"to {sums.min():.3g} to {sums.max():.3g}; planes of independent labels make no class "
            "map, and logits need activation = logits in the card"
        )


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            f"{path.name} needs ONNX Runtime: pip install 'tilemap[onnx]'"
        ) from error
    _register_arena()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Patterns keep one memory plan per input shape: with ragged tiles a worker would grow.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Idle threads that spin take the core of the neighbouring worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{path.name} is not a model: {first_line(error)}") from error


@functools.cache
def _register_arena() -> None:
    """One arena for the process that grows by what is asked for, not by powers of two.

    Without an arena a forward takes three times as long (page faults); with the default one,
    memory still grows when a second shape of patch comes.
    """
    import onnxruntime

    by_request = {
        "max_mem": 0,
        "arena_extend_strategy": 1,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    where = onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    )
    onnxruntime.create_and_register_allocator(where, onnxruntime.OrtArenaCfg(by_request))


@dataclass(frozen=True)
class End:
    """One input or output of a graph.

    Args:
        name: in the file.
        shape: sizes; anything but an integer is free.
        kind: "float32", or what the engine calls another type of number.
    """

    name: str
    shape: Sequence[object]
    kind: str


def check_ends(file: str, inputs: Sequence[End], outputs: Sequence[End], card: ModelCard) -> None:
    """A graph takes and gives what the card says.

    Args:
        file: its name, for the error.

    Raises:
        ModelError: saying what the card says and what the file has.
    """
    if len(inputs) != 1:
        raise ModelError(f"{file}: a model must have one input, got {[i.name for i in inputs]}")
    _check_shape(file, "input", inputs[0], card, (len(card.bands),))
    planes: tuple[int, ...] = (len(card.classes),)
    if card.activation == "sigmoid" and len(card.classes) == 2:
        planes = (1, 2)
    _check_shape(file, "output", outputs[0], card, planes)


def _tempered(planes: FloatArray, temperature: float) -> FloatArray:
    """Sigmoid planes whose logits are divided by the temperature."""
    if temperature == 1:
        return planes
    least = np.float32(1e-7)
    sure = np.clip(planes, least, 1 - least)
    odds = np.log(sure / (1 - sure)) / np.float32(temperature)
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float32)


def _check_shape(file: str, what: str, end: End, card: ModelCard, planes: tuple[int, ...]) -> None:
    """Number of axes, planes and fixed sizes of one end of the graph agree with the card."""
    says = f"card says {card.layout}, {' or '.join(map(str, planes))} planes" + (
        f" of {card.patch} x {card.patch}" if card.patch else ""
    )
    shape = list(end.shape)
    got = f"{file} has {what} {end.name} {shape} {end.kind}"
    if end.kind != "float32" or len(shape) != 4:
        raise ModelError(f"{what} must be float32 with four axes: {got}")
    axis = 1 if card.layout == "NCHW" else 3
    sides = shape[2:] if card.layout == "NCHW" else shape[1:3]
    fixed = [side for side in sides if isinstance(side, int)]
    if isinstance(shape[axis], int) and shape[axis] not in planes:
        raise ModelError(f"{what} does not fit: {says}; {got}")
    if what == "input" and any(side != card.patch for side in fixed):
        raise ModelError(f"{what} does not fit: {says}; {got}")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelError(f"{what} must take one patch at a time: {got}")


def first_line(error: Exception) -> str:
    """An error of another library in one line of at most 200 characters."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
