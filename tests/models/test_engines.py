"""Which engine runs which file, and every combination that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilemap.errors import ModelError, UsageError
from tilemap.models.engines import ENGINES, Settings, engine_for
from tilemap.models.registry import load, resolve, save_card

from .conftest import OnnxFile, TorchFile, make_card

ONNX, TORCH = Path("model.onnx"), Path("model.safetensors")


def test_each_file_has_an_engine_of_its_own() -> None:
    """Chosen when none is named; naming it changes nothing."""
    card = make_card(Path(__file__), 3, 4)
    assert engine_for(card, ONNX, Settings(), "auto") == "onnxruntime"
    assert engine_for(card, ONNX, Settings(precision="bfloat16"), "openvino") == "openvino"
    assert engine_for(card, TORCH, Settings("cuda:1", "bfloat16"), "auto") == "torch"
    for engine in ENGINES[1:]:
        path = TORCH if engine == "torch" else ONNX
        assert engine_for(card, path, Settings(), engine) == engine


@pytest.mark.parametrize(
    ("path", "settings", "engine", "message"),
    [
        (ONNX, Settings(), "tensorrt", "engine must be one of auto, torch, onnxruntime, openvino"),
        (ONNX, Settings(), "torch", "is an ONNX file"),
        (TORCH, Settings(), "onnxruntime", "'tilemap models export' makes an ONNX file"),
        (TORCH, Settings(), "openvino", "runs in torch, got openvino"),
        (ONNX, Settings("cuda"), "auto", "runs on cpu, got 'cuda'"),
        (ONNX, Settings("cuda"), "openvino", "runs on cpu, got 'cuda'"),
        (ONNX, Settings("cpu", "bfloat16"), "onnxruntime", "in float32, got bfloat16"),
        (ONNX, Settings("cpu", "bfloat16"), "auto", "in float32, got bfloat16; engine openvino"),
    ],
)
def test_what_cannot_be_is_refused(
    path: Path, settings: Settings, engine: str, message: str
) -> None:
    """In one line that says what is possible."""
    with pytest.raises(UsageError) as caught:
        engine_for(make_card(Path(__file__), 3, 4), path, settings, engine)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"precision": "float16"}, {"threads": 0}])
def test_settings_have_their_values(wrong: dict[str, object]) -> None:
    """Checked before anything is read."""
    with pytest.raises(UsageError, match="must be"):
        Settings(**wrong)  # type: ignore[arg-type]


def test_engines_of_one_file_agree(onnx_file: OnnxFile) -> None:
    """What runs is told by the backend; numbers differ by rounding only."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    card, path = onnx_file()
    save_card(card, path.parent)
    image = np.random.default_rng(1).normal(size=(3, 24, 40)).astype(np.float32)
    by = {name: load(resolve(path), engine=name) for name in ("auto", "onnxruntime", "openvino")}
    assert [model.backend for model in by.values()] == [
        "onnxruntime float32 cpu",
        "onnxruntime float32 cpu",
        "openvino float32 cpu",
    ]
    expected = by["auto"].predict(image)
    for model in by.values():
        np.testing.assert_allclose(model.predict(image), expected, rtol=1e-5, atol=1e-6)


def test_the_digest_is_verified_for_each_engine(onnx_file: OnnxFile, torch_file: TorchFile) -> None:
    """A file that is not the card's is not even parsed."""
    for (card, path), engines in (
        (onnx_file(), ("onnxruntime", "openvino")),
        (torch_file()[1:], ("torch",)),
    ):
        save_card(card, path.parent)
        ref = resolve(path.parent)
        path.write_bytes(b"another")
        for engine in engines:
            with pytest.raises(ModelError, match="not the weights of"):
                load(ref, engine=engine)
