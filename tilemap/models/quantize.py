"""Eight-bit weights and features: a fourth of the size, faster where the CPU has VNNI."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilemap.errors import ModelError, UnavailableError
from tilemap.models.card import ModelCard
from tilemap.models.onnx_file import check_self_contained
from tilemap.models.onnx_model import first_line, to_batch
from tilemap.models.protocol import FloatArray

_OPERATORS = ("Conv", "Relu", "Add", "Concat", "MaxPool", "Resize")
"""What computes with integers where its neighbours do: to go back and forth costs more."""


def quantise_onnx(card: ModelCard, source: Path, path: Path, patches: Sequence[FloatArray]) -> int:
    """Write an ONNX file whose convolutions compute with 8-bit integers.

    Post-training static quantisation (Krishnamoorthi 2018, "Quantizing deep convolutional networks
    for efficient inference"): weights symmetric per output channel, features asymmetric per tensor,
    their ranges from real patches, as pairs of QuantizeLinear and DequantizeLinear, which ONNX
    Runtime and OpenVINO both turn into integer kernels. The first convolution, which sees the
    bands, and the last, which makes the logits, stay float32: they are small and the most
    sensitive.

    Args:
        card: of the source.
        source: float32 ONNX file.
        path: written; its folder is there.
        patches: standardised crops of a real scene, float32 (band, y, x), such as the model takes.

    Returns:
        Number of convolutions that compute with integers.

    Raises:
        UnavailableError: if ``onnx`` or ONNX Runtime is not installed.
        ModelError: if there is no patch, or the graph cannot be quantised.
    """
    if not patches:
        raise ModelError("calibration takes at least one patch of a real scene, got none")
    onnx, quantization = _packages()
    check_self_contained(source)
    model = onnx.load(str(source))
    convolutions = _named_convolutions(model)
    if len(convolutions) < 3:
        raise ModelError(f"{source.name} has no convolution between its first and its last one")
    try:
        with tempfile.TemporaryDirectory() as folder, _quiet():
            named = Path(folder) / "named.onnx"
            onnx.save(model, str(named))
            quantization.quantize_static(
                str(named),
                str(path),
                _reader(quantization, model.graph.input[0].name, card, patches),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=list(_OPERATORS),
                nodes_to_exclude=[convolutions[0], convolutions[-1]],
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
    except Exception as error:  # the packages raise whatever the graph makes them raise
        raise ModelError(f"{source.name} cannot be quantised: {first_line(error)}") from error
    return len(convolutions) - 2


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime.quantization as quantization
    except ImportError as error:
        raise UnavailableError(
            "quantisation needs onnx and ONNX Runtime: pip install 'tilemap[export]'"
        ) from error
    return onnx, quantization


def _named_convolutions(model: Any) -> list[str]:
    """Names of the convolutions in the order of the graph; nodes without a name get one."""
    taken = {node.name for node in model.graph.node}
    for number, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(
                name for name in (f"node_{number}", f"tilemap_node_{number}") if name not in taken
            )
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


def _reader(quantization: Any, name: str, card: ModelCard, patches: Sequence[FloatArray]) -> Any:
    """Gives one patch after the other, as the graph takes them."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(patches)

        def get_next(self) -> dict[str, FloatArray] | None:
            patch = next(self._left, None)
            return None if patch is None else {name: to_batch(patch, card)}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that the quantiser logs and prints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
