"""The ONNX backend against ONNX Runtime itself, and every way a file can contradict its card."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilemap.errors import ModelError, UnavailableError
from tilemap.geometry import Window
from tilemap.models.card import ModelCard
from tilemap.models.onnx_model import OnnxModel, to_probability
from tilemap.models.registry import SHIPPED, load, resolve

from .conftest import OnnxFile, make_card

onnxruntime = pytest.importorskip("onnxruntime")


def patch(bands: int, rows: int, cols: int, seed: int = 3) -> np.ndarray:
    """A standardised image."""
    return np.random.default_rng(seed).normal(size=(bands, rows, cols)).astype(np.float32)


def bare(path: Path, batch: np.ndarray) -> np.ndarray:
    """What the file gives, by the shortest way."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: batch})[0]
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    """By the formula, in float64."""
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=0)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("side", [None, 24])
@pytest.mark.parametrize("activation", ["logits", "softmax"])
def test_every_layout_size_and_activation(
    onnx_file: OnnxFile, layout: str, side: int | None, activation: str
) -> None:
    """Probabilities, class first, equal to what ONNX Runtime gives directly."""
    card, path = onnx_file(layout=layout, side=side, activation=activation)
    image = patch(3, 24, 24 if side else 40)
    batch = image.transpose(1, 2, 0)[None] if layout == "NHWC" else image[None]
    direct = bare(path, np.ascontiguousarray(batch))[0]
    direct = direct.transpose(2, 0, 1) if layout == "NHWC" else direct
    expected = softmax(direct) if activation == "logits" else direct
    model = OnnxModel(card, path)
    result = model.predict(image)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    crop = model.predict(image, Window(2, 3, 20, 24))
    np.testing.assert_array_equal(crop, result[:, 2:20, 3:24])
    assert crop.flags.c_contiguous


def test_one_sigmoid_plane_is_the_second_class(onnx_file: OnnxFile) -> None:
    """And the first is the rest."""
    card, path = onnx_file(classes=2, planes=1, activation="sigmoid")
    image = patch(3, 16, 20)
    second = bare(path, image[None])[0, 0]
    result = OnnxModel(card, path).predict(image)
    np.testing.assert_array_equal(result[1], second)
    np.testing.assert_array_equal(result[0], 1 - second)


def test_independent_sigmoid_planes_are_refused(onnx_file: OnnxFile) -> None:
    """Planes of several labels a pixel are no distribution, and the error says so."""
    card, path = onnx_file(classes=4, activation="sigmoid")
    with pytest.raises(ModelError, match=r"sigmoid planes of .* must sum to 1"):
        OnnxModel(card, path).predict(patch(3, 16, 20))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("pair", [(0.01, 0.001), (0.9, 0.8), (0.0, 0.0)])
def test_a_faint_sign_is_not_made_certain(activation: str, pair: tuple[float, float]) -> None:
    """[0.01, 0.001] would be 91 % of the first class after a division by the sum."""
    planes = np.full((2, 3, 4), np.array(pair)[:, None, None], dtype=np.float32)
    with pytest.raises(ModelError, match="must sum to 1"):
        to_probability(planes, probability_card(activation, 2, 1))


@pytest.mark.parametrize("temperature", [1, 2])
def test_two_sigmoid_planes_that_complete_each_other(temperature: float) -> None:
    """Two planes that sum to 1 are the two classes, as one plane is."""
    second = np.linspace(0.01, 0.99, 12, dtype=np.float32).reshape(1, 3, 4)
    card = probability_card("sigmoid", 2, temperature)
    both = to_probability(np.concatenate([1 - second, second]), card)
    np.testing.assert_allclose(both, to_probability(second, card), atol=1e-6)


def probability_card(activation: str, classes: int, temperature: float) -> ModelCard:
    """A card for planes in memory."""
    card = make_card(Path(__file__), 1, classes, activation=activation)
    return card.model_copy(update={"temperature": temperature})


@given(
    hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-80, 80, width=32)),
    st.floats(0.25, 4),
)
def test_temperature_divides_logits(logits: np.ndarray, temperature: float) -> None:
    """Whether they come as logits or as their softmax, down to the smallest float32."""
    expected = softmax(logits / np.float32(temperature))
    result = to_probability(logits, probability_card("logits", 3, temperature))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    milder = logits / 2  # softmax of wider ones underflows, and its logarithm is lost
    given_ = softmax(milder).astype(np.float32)
    result = to_probability(given_, probability_card("softmax", 3, temperature))
    expected = softmax(milder / np.float32(temperature))
    kept = given_.min(axis=0) > 1e-30
    np.testing.assert_allclose(result[:, kept], expected[:, kept], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_probabilities_are_no_logits(classes: int) -> None:
    """A second softmax would leave e / (e + K - 1) of a certain class; real logits pass."""
    logits = np.random.default_rng(5).normal(size=(classes, 64, 64)).astype(np.float32) * 5
    card = probability_card("logits", classes, 1.0)
    to_probability(logits, card)
    to_probability(np.full((classes, 64, 64), 1 / classes, np.float32), card)  # of fill
    with pytest.raises(ModelError, match=r"must give logits, .* say activation = softmax"):
        to_probability(softmax(logits).astype(np.float32), card)
    sharp = (logits == logits.max(axis=0)).astype(np.float32)
    with pytest.raises(ModelError, match="these are probabilities"):
        to_probability(sharp, card)


@given(hnp.arrays(np.float32, (1, 4, 5), elements=st.floats(-10, 10, width=32)), st.floats(0.25, 4))
def test_temperature_divides_the_log_of_odds(logits: np.ndarray, temperature: float) -> None:
    """A single sigmoid plane is the second of two classes, whose logits are 0 and these."""
    planes = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    both = np.concatenate([np.zeros_like(logits), logits])
    result = to_probability(planes, probability_card("sigmoid", 2, temperature))
    expected = softmax(both / np.float32(temperature))
    np.testing.assert_allclose(result, expected, atol=5e-3 / temperature)
    inner = np.abs(logits[0]) < 5
    np.testing.assert_allclose(result[:, inner], expected[:, inner], atol=2e-4)


@pytest.mark.parametrize(
    ("made", "card", "message"),
    [
        ({}, {"bands": ("red",)}, "input does not fit: card says NCHW, 1 planes"),
        ({}, {"layout": "NHWC"}, "input does not fit: card says NHWC, 3 planes"),
        ({"side": 24}, {"patch": None}, "input does not fit"),
        ({"side": 24}, {"patch": 48}, "card says NCHW, 3 planes of 48 x 48"),
        ({"planes": 5}, {}, "output does not fit: card says NCHW, 4 planes"),
        ({"planes": 1}, {"activation": "sigmoid"}, "output does not fit"),
    ],
)
def test_contradictions_of_card_and_file_are_named(
    onnx_file: OnnxFile, made: dict[str, object], card: dict[str, object], message: str
) -> None:
    """The error has what the card says and what the file has."""
    good, path = onnx_file(**made)
    with pytest.raises(ModelError) as caught:
        OnnxModel(good.model_copy(update=card), path)
    assert message in str(caught.value)
    assert "model.onnx has" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patches_that_do_not_fit_are_refused(onnx_file: OnnxFile) -> None:
    """A fixed patch is the only one; otherwise sides are multiples of the stride."""
    card, path = onnx_file(side=24)
    with pytest.raises(ModelError, match="takes patches of 24 x 24 only, got 24 x 48"):
        OnnxModel(card, path).predict(patch(3, 24, 48))
    card, path = onnx_file(stride=4)
    with pytest.raises(ModelError, match="multiples of 4, got 24 x 26"):
        OnnxModel(card, path).predict(patch(3, 24, 26))


def test_what_is_no_model_is_refused(onnx_file: OnnxFile) -> None:
    """In one line."""
    card, path = onnx_file()
    path.write_bytes(b"no protobuf")
    with pytest.raises(ModelError, match=r"model\.onnx is not a model") as caught:
        OnnxModel(card, path)
    assert "\n" not in str(caught.value)


def test_without_onnx_runtime_the_extra_is_named(
    onnx_file: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that installs it."""
    card, path = onnx_file()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError) as caught:
        OnnxModel(card, path)
    assert "pip install 'tilemap[onnx]'" in str(caught.value)


def blocks(side: int) -> np.ndarray:
    """Random blocks of 4 pixels, so dim that the cloud model is in doubt nearly everywhere."""
    small = np.random.default_rng(7).uniform(0.2, 0.5, (6, side // 4, side // 4))
    return np.kron(small, np.ones((1, 4, 4))).astype(np.float32)


def test_context_of_the_shipped_cloud_model_is_exact() -> None:
    """A pixel 23 away can change another, none farther can: 24 in multiples of the stride."""
    model = load(resolve("iplunet-cloud-6b"))
    image = blocks(112)
    before = model.predict(image)[1]
    reach = 0
    # The place within the stride of 4 decides how far a pixel reaches.
    for place in range(56, 60):
        other = image.copy()
        other[:, place, place] += 1
        changed = np.nonzero(model.predict(other)[1] != before)
        reach = max(reach, *(int(np.abs(axis - place).max()) for axis in changed))
    assert reach == 23
    assert model.card.context == reach + -reach % model.card.stride == 24


def test_crops_with_the_context_equal_the_whole() -> None:
    """Patches with a halo of 24 give the whole image's numbers, with 16 they do not."""
    model = load(resolve("iplunet-cloud-6b"))
    image = blocks(192)
    whole = model.predict(image)[:, 64:128, 64:128]

    def cut(halo: int) -> np.ndarray:
        part = image[:, 64 - halo : 128 + halo, 64 - halo : 128 + halo]
        return model.predict(part, Window(halo, halo, halo + 64, halo + 64))

    assert np.abs(cut(24) - whole).max() <= 1e-6
    assert np.abs(cut(16) - whole).max() > 1e-3


def test_shipped_model_equals_bare_runtime() -> None:
    """Bit for bit, from name to probability."""
    path = SHIPPED / "iplunet-cloud-6b" / "model.onnx"
    image = patch(6, 64, 96)
    result = load(resolve("iplunet-cloud-6b")).predict(image)
    np.testing.assert_allclose(result[1], bare(path, image[None])[0, 0], rtol=0, atol=1e-6)


def test_teacher_finds_its_card_and_its_accuracy(data: Path) -> None:
    """The 5-class model, by its file alone, gets 0.967 of the hand-drawn scene right."""
    model = load(resolve(data / "models" / "ukis_csmask_0.2.1_model_6b_5class.onnx"))
    card = model.card
    assert [c.name for c in card.classes] == ["shadow", "water", "snow", "land", "cloud"]
    with np.load(data / "scenes" / "csmask_sentinel2_512_6b_5class.npz") as scene:
        image, drawn = scene["img"].transpose(2, 0, 1), scene["msk"][..., 0]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (card.mean, card.std))
    image = (image - mean) / std
    right = 0
    for row in (0, 256):
        for col in (0, 256):
            part = image[:, row : row + 256, col : col + 256]
            label = model.predict(part).argmax(axis=0)
            right += int((label == drawn[row : row + 256, col : col + 256]).sum())
    assert abs(right / drawn.size - 0.967) < 0.005


def graph(path: Path, nodes: list[object], inputs: list[object], shape: list[object]) -> ModelCard:
    """Any graph from ``x`` to ``y`` as a file, under a card of three bands and four classes."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, kind, side) for name, kind, side in inputs]
    last = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)]
    made = helper.make_graph(nodes, "test", ends, last)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=8), path)
    return make_card(path, 3, 3, stride=1)


def test_graphs_that_are_no_map_of_one_patch_are_refused(tmp_path: Path) -> None:
    """Two inputs, another number type, a fixed batch, a shrunk output, a failing operator."""
    onnx = pytest.importorskip("onnx")
    node, path = onnx.helper.make_node, tmp_path / "model.onnx"
    number, whole, dynamic = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, ["n", 3, "h", "w"]
    add = [node("Add", ["x", "z"], ["y"])]
    card = graph(path, add, [("x", number, dynamic), ("z", number, dynamic)], dynamic)
    with pytest.raises(ModelError, match=r"must have one input, got \['x', 'z'\]"):
        OnnxModel(card, path)
    card = graph(path, [node("Cast", ["x"], ["y"], to=number)], [("x", whole, dynamic)], dynamic)
    with pytest.raises(ModelError, match=r"must be float32 with four axes: .*tensor\(int64\)"):
        OnnxModel(card, path)
    fixed = [2, 3, "h", "w"]
    card = graph(path, [node("Relu", ["x"], ["y"])], [("x", number, fixed)], fixed)
    with pytest.raises(ModelError, match="must take one patch at a time"):
        OnnxModel(card, path)
    half = [node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]
    card = graph(path, half, [("x", number, dynamic)], ["n", 3, "h2", "w2"])
    with pytest.raises(ModelError, match=r"as large as the input \(8, 10\), got \(4, 5\)"):
        OnnxModel(card, path).predict(patch(3, 8, 10))
    tall = [node("MaxPool", ["x"], ["y"], kernel_shape=[64, 1])]
    card = graph(path, tall, [("x", number, dynamic)], ["n", 3, "h2", "w"])
    with pytest.raises(ModelError) as caught:
        OnnxModel(card, path).predict(patch(3, 8, 10))
    assert "\n" not in str(caught.value)


def test_backend_says_what_ran(onnx_file: OnnxFile) -> None:
    """For the record of the run."""
    assert OnnxModel(*onnx_file()).backend == "onnxruntime float32 cpu"
