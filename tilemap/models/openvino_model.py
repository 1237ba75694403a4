"""A trained ONNX file, run by OpenVINO on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.errors import ModelError, UnavailableError
from tilemap.models.onnx_file import check_self_contained
from tilemap.models.onnx_model import End, check_ends, first_line, from_planes, to_batch
from tilemap.models.protocol import FloatArray

if TYPE_CHECKING:
    from tilemap.geometry import Window
    from tilemap.models.card import ModelCard

_TELEMETRY = "openvino_telemetry"
_KERNELS = 64
"""Prepared layers that are kept: those of a few shapes of patch. The default of 5000 lets a worker
grow by 400 MB over 170 shapes, which takes no less time."""


class OpenVinoModel:
    """An ONNX file behind the protocol, compiled for this CPU.

    Args:
        card: what the file is said to be.
        path: the ``.onnx`` file.
        precision: "float32" or "bfloat16"; a CPU that lacks the latter gives the same numbers,
            slowly.
        threads: threads within one forward, 1 or more.

    Raises:
        UnavailableError: if OpenVINO is not installed.
        ModelError: if the file is no model OpenVINO can run, or contradicts the card.
    """

    def __init__(
        self, card: ModelCard, path: Path, precision: str = "float32", threads: int = 1
    ) -> None:
        self._card = card
        check_self_contained(path)
        openvino = _openvino(path)
        core = openvino.Core()
        try:
            graph = core.read_model(str(path))
            inputs, outputs = ([_end(e) for e in ends] for ends in (graph.inputs, graph.outputs))
            check_ends(path.name, inputs, outputs, card)
            self._compiled = _compile(core, graph, precision, threads)
            self._request = self._compiled.create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{path.name} is not a model: {_reason(error)}") from error

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self._card

    @property
    def backend(self) -> str:
        """For the record of the run."""
        kinds = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
        kind = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if self._card.architecture.get("int8"):
            return "openvino int8 cpu"
        return f"openvino {kinds.get(kind, kind)} cpu"

    def predict(self, image: FloatArray, crop: Window | None = None) -> FloatArray:
        """See ``protocol.Model.predict``."""
        batch = to_batch(image, self._card)
        try:
            # The input is only read while this runs; the output is a copy.
            given = self._request.infer([batch], share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise ModelError(f"{self._card.name}: {_reason(error)}") from error
        return from_planes(given[0][0], image, crop, self._card)


def _openvino(path: Path) -> Any:
    absent = {} if _TELEMETRY in sys.modules else {_TELEMETRY: None}
    try:
        # OpenVINO reports its import to a service for statistics, unless this package is missing.
        sys.modules.update(absent)  # type: ignore[arg-type]  # None stands for a missing one
        import openvino
    except ImportError as error:
        raise UnavailableError(
            f"to run {path.name} in OpenVINO it must be installed: pip install 'tilemap[openvino]'"
        ) from error
    finally:
        for name in absent:
            sys.modules.pop(name, None)
    return openvino


def _compile(core: Any, graph: Any, precision: str, threads: int) -> Any:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        # Every worker of a machine would pin itself to its first core.
        "ENABLE_CPU_PINNING": False,
    }
    limit = {"CPU_RUNTIME_CACHE_CAPACITY": _KERNELS}
    try:
        return core.compile_model(graph, "CPU", {**settings, **limit})
    except RuntimeError as error:
        if next(iter(limit)) not in str(error):
            raise
        return core.compile_model(graph, "CPU", settings)  # a version without that setting


def _end(end: Any) -> End:
    shape = [side.get_length() if side.is_static else str(side) for side in end.partial_shape]
    return End(end.any_name, shape, end.element_type.to_dtype().name)


def _reason(error: RuntimeError) -> str:
    """The last line: those before name OpenVINO's own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else first_line(error)
