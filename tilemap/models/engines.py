"""What may run a model's file: torch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilemap.errors import UsageError

if TYPE_CHECKING:
    from tilemap.models.card import ModelCard
    from tilemap.models.protocol import Model

ENGINES = ("auto", "torch", "onnxruntime", "openvino")
"""What may be asked for."""


@dataclass(frozen=True)
class Settings:
    """How a model is to run.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16".
        threads: CPU threads within one forward, 1 or more.

    Raises:
        UsageError: if precision or threads have no such value.
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise UsageError(f"precision must be float32 or bfloat16, got {self.precision!r}")
        if self.threads < 1:
            raise UsageError(f"threads must be 1 or more, got {self.threads}")


def engine_for(card: ModelCard, path: Path, settings: Settings, engine: str) -> str:
    """What will run a model; nothing is read or imported.

    Args:
        path: the file of weights; only its suffix counts.
        engine: one of ``ENGINES``.

    Returns:
        "torch", "onnxruntime" or "openvino".

    Raises:
        UsageError: if the engine cannot run this file, on this device, in this precision.
    """
    name, onnx = card.name, path.suffix == ".onnx"
    if engine not in ENGINES:
        raise UsageError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "torch" and onnx:
        raise UsageError(f"{name} is an ONNX file: engine onnxruntime or openvino, got torch")
    if engine in ("onnxruntime", "openvino") and not onnx:
        raise UsageError(
            f"{name} runs in torch, got {engine}; 'tilemap models export' makes an ONNX file of it"
        )
    if onnx and settings.device != "cpu":
        raise UsageError(f"{name} is an ONNX model and runs on cpu, got {settings.device!r}")
    found = engine
    if engine == "auto":
        found = "onnxruntime" if onnx else "torch"
    if found == "onnxruntime" and settings.precision != "float32":
        raise UsageError(
            f"onnxruntime runs {name} in float32, got {settings.precision}; engine openvino has it"
        )
    return found


def start(card: ModelCard, path: Path, engine: str, settings: Settings) -> Model:
    """Make a verified file ready to run.

    Args:
        engine: from ``engine_for``.

    Raises:
        ModelError: if the file contradicts the card.
        UnavailableError: if the device or an optional package is not there.
    """
    if engine == "torch":
        from tilemap.models.torch_model import TorchModel

        return TorchModel(card, path, settings.device, settings.precision, settings.threads)
    if engine == "openvino":
        from tilemap.models.openvino_model import OpenVinoModel

        return OpenVinoModel(card, path, settings.precision, settings.threads)
    from tilemap.models.onnx_model import OnnxModel

    return OnnxModel(card, path, settings.threads)
