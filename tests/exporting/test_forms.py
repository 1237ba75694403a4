"""A model takes another form only if the labels stay; of what is refused nothing is left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tilemap.errors import ModelError, OutputError, SceneError, UnavailableError, UsageError
from tilemap.exporting import forms
from tilemap.exporting.forms import export_model, prune_model, quantise_model
from tilemap.models import registry
from tilemap.models.card import BandStatistics, ClassInfo, ModelCard
from tilemap.models.networks import seeded
from tilemap.models.registry import ModelRef, file_sha256, resolve, save_card
from tilemap.models.trained_on import TrainedScene
from tilemap.scene import SceneRequest
from tilemap.testing import write_geotiff

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
BANDS = ("blue", "green", "red")
GROUND = TrainedScene(
    crs="EPSG:32618", transform=(10, 0, 4e5, 0, -10, 4.1e6), shape=(40, 60), block=32,
    blocks="tvx-",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fourth of the pixels."""
    monkeypatch.setattr("tilemap.models.probe.PATCH", 256)


def make_model(folder: Path, first: float = 0) -> ModelRef:
    """A seeded network in a folder of its own, with everything a card can say.

    The logit of the first class is raised by ``first``.
    """
    folder.mkdir(parents=True)
    architecture = {"name": "unet", "encoder": "resnet18", "width": 8}
    weights = seeded(architecture, 3, 4).state_dict()
    weights["head.bias"][0] += first
    save_file(weights, folder / "model.safetensors")
    spread = BandStatistics(mean=0.2, std=0.1, quantiles=(0, 0.1, 0.1, 0.2, 0.3, 0.3, 0.4))
    card = ModelCard(
        **{
            "name": "seeded",
            "title": "Seeded",
            "description": "Of no use.",
            "license": "Apache-2.0",
            "bands": BANDS,
            "mean": (0.1, 0.2, 0.3),
            "std": (0.1, 0.2, 0.2),
            "classes": tuple(
                ClassInfo(value=value, name=f"class {value}", color="#00ff00")
                for value in (1, 3, 5, 9)
            ),
            "stride": 32,
            "architecture": architecture,
            "halo": 48,
            "temperature": 1.25,
            "metrics": {"miou": 0.7},
            "statistics": (spread,) * 3,
            "trained_on": (GROUND,),
            "weights": "model.safetensors",
            "sha256": file_sha256(folder / "model.safetensors"),
        }
    )
    save_card(card, folder)
    return resolve(folder)


@pytest.fixture
def ref(tmp_path: Path) -> ModelRef:
    """A torch model."""
    return make_model(tmp_path / "original")


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> SceneRequest:
    """A scene of blobs of three bands, 600 x 560 pixels."""
    generator = np.random.default_rng(9)
    scene = sum(
        np.kron(generator.random((3, 640 // side, 640 // side)), np.ones((1, side, side)))
        for side in (64, 16, 1)
    )
    image = np.asarray(scene * 1000, np.uint16)[:, :600, :560]
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    write_geotiff(path, image, names=BANDS, scale=1e-4)
    return SceneRequest((str(path),))


def untouched(tmp_path: Path) -> bool:
    """Nothing but the original is there."""
    return sorted(p.name for p in tmp_path.iterdir()) == ["original"]


def test_every_form_keeps_the_ground_of_its_training(
    ref: ModelRef, request_: SceneRequest, tmp_path: Path
) -> None:
    """Exported, quantised or pruned: the weights have seen the same blocks."""
    exported = export_model(ref, request_, tmp_path / "onnx", regions=1)
    quantised = quantise_model(ref, request_, tmp_path / "int8", allow=0.2, regions=1)
    pruned, _ = prune_model(ref, 0.5, tmp_path / "pruned")
    for made in (exported.ref, quantised.ref, pruned):
        assert resolve(made.path.parent).card.trained_on == (GROUND,)


def test_an_export_runs_in_every_engine(
    ref: ModelRef, request_: SceneRequest, tmp_path: Path
) -> None:
    """Its card is the original's but for the file; it says what it was made of and how it fared."""
    pytest.importorskip("openvino")
    out = tmp_path / "some" / "where"
    made = export_model(ref, request_, out, regions=1)
    assert made.missing == ()
    assert sorted(p.name for p in out.iterdir()) == ["model.json", "model.onnx"]
    card = made.ref.card
    assert made.ref == resolve(out)
    assert card.derived_from == ref.digest
    assert card.sha256 == file_sha256(out / "model.onnx")
    told = {f"parity_{name}": round(each.labels_differ, 6) for name, each in made.parity.items()}
    assert card.metrics == {"miou": 0.7, **told}
    assert list(told) == ["parity_onnxruntime", "parity_openvino"]
    assert max(told.values()) < 1e-4
    same = set(ModelCard.model_fields) - {"name", "weights", "sha256", "derived_from", "metrics"}
    for field in same:
        assert getattr(card, field) == getattr(ref.card, field), field
    image = np.random.default_rng(3).normal(size=(3, 96, 160)).astype(np.float32)
    expected = registry.load(ref).predict(image)
    for engine in ("onnxruntime", "openvino"):
        assert made.parity[engine].classes > 1
        assert made.parity[engine].pixels == 256 * 256
        result = registry.load(made.ref, engine=engine).predict(image)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


def scaled(path: Path) -> None:
    """One filter of many, a little too large."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if "layer1.0.conv1" in t.name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values *= 1.5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def swapped(path: Path) -> None:
    """Two bands of the input in each other's place."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.dims[1:] == [3, 7, 7])
    values = onnx.numpy_helper.to_array(tensor)[:, [2, 1, 0]].copy()
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def blank(path: Path) -> None:
    """A weight that is not a number."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.dims[1:] == [3, 7, 7])
    values = np.full(tuple(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


@pytest.mark.parametrize("harm", [scaled, swapped, blank])
@pytest.mark.parametrize("make", [export_model, quantise_model])
def test_a_broken_export_is_refused(
    ref: ModelRef,
    request_: SceneRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Any,
    make: Any,
) -> None:
    """By any engine, with the share of labels; no folder is left, not even an empty one."""
    write = forms._write_onnx

    def broken(given: ModelRef, path: Path) -> None:
        write(given, path)
        harm(path)

    monkeypatch.setattr(forms, "_write_onnx", broken)
    with pytest.raises(ModelError) as caught:
        make(ref, request_, tmp_path / "new" / "model", regions=1)
    if not (harm is blank and make is quantise_model):  # such a graph has no ranges to find
        assert "must give the labels of the original on all but" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert untouched(tmp_path)


def test_a_wrong_fold_is_refused(
    ref: ModelRef, request_: SceneRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is compared with the network as it was trained, not with the folded one."""
    monkeypatch.setattr(
        "tilemap.models.torch_model.fuse_conv_bn_eval", lambda convolution, normal: convolution
    )
    with pytest.raises(ModelError, match="labels of the original"):
        export_model(ref, request_, tmp_path / "out", regions=1)
    assert untouched(tmp_path)


def test_only_the_second_engine_may_be_wrong(
    ref: ModelRef, request_: SceneRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and the model refused all the same."""
    pytest.importorskip("openvino")
    from tilemap.models.openvino_model import OpenVinoModel

    predict = OpenVinoModel.predict
    monkeypatch.setattr(
        OpenVinoModel, "predict", lambda self, image: np.roll(predict(self, image), 1, axis=0)
    )
    with pytest.raises(ModelError, match="seeded-onnx in openvino must give the labels"):
        export_model(ref, request_, tmp_path / "new", regions=1)
    assert untouched(tmp_path)


def test_a_scene_of_one_class_proves_nothing(request_: SceneRequest, tmp_path: Path) -> None:
    """It cannot show that two classes were swapped."""
    ref = make_model(tmp_path / "original", first=1e4)
    for make in (export_model, quantise_model):
        with pytest.raises(ModelError, match="one class only"):
            make(ref, request_, tmp_path / "new", regions=1)
    assert untouched(tmp_path)


def test_engines_that_are_not_installed_are_told(
    ref: ModelRef, request_: SceneRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is enough; without any nothing can be vouched for."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    made = export_model(ref, request_, tmp_path / "original" / "inner", regions=1)
    assert made.missing == ("openvino",)
    assert "parity_openvino" not in made.ref.card.metrics
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match="pip install"):
        export_model(ref, request_, tmp_path / "new", regions=1)
    assert untouched(tmp_path)


def test_int8_is_smaller_and_says_so(ref: ModelRef, request_: SceneRequest, tmp_path: Path) -> None:
    """Own figures only; what an original measured of itself is not taken over."""
    made = quantise_model(ref, request_, tmp_path / "int8", allow=0.2, regions=1)
    card = made.ref.card
    assert card.architecture == {**ref.card.architecture, "int8": True}
    assert made.ref.path.stat().st_size < 0.5 * ref.path.stat().st_size
    assert set(card.metrics) == {*(f"parity_{name}" for name in made.parity), "miou_with_original"}
    assert card.metrics["miou_with_original"] == round(
        min(found.miou for found in made.parity.values()), 4
    )
    assert card.derived_from == ref.digest
    assert "int8 cpu" in registry.load(made.ref).backend
    with pytest.raises(ModelError, match="8-bit integers already"):
        quantise_model(made.ref, request_, tmp_path / "again", regions=1)


def test_int8_has_a_limit_of_its_own(ref: ModelRef, request_: SceneRequest, tmp_path: Path) -> None:
    """The caller's."""
    with pytest.raises(ModelError, match=r"all but 0\.00% of 65536 pixels"):
        quantise_model(ref, request_, tmp_path / "int8", allow=1e-6, regions=1)
    assert untouched(tmp_path)


def test_an_onnx_file_is_quantised_as_it_is(
    ref: ModelRef, request_: SceneRequest, tmp_path: Path
) -> None:
    """The same as from the torch model it came from."""
    exported = export_model(ref, request_, tmp_path / "onnx", regions=1)
    one = quantise_model(exported.ref, request_, tmp_path / "one", allow=0.2, regions=1)
    two = quantise_model(ref, request_, tmp_path / "two", allow=0.2, regions=1)
    assert one.ref.path.read_bytes() == two.ref.path.read_bytes()
    assert one.ref.card.derived_from == exported.ref.digest


def test_a_pruned_model_is_another_model(ref: ModelRef, tmp_path: Path) -> None:
    """Smaller; without the halo, temperature and metrics that were measured of the original."""
    made, widths = prune_model(ref, 0.5, tmp_path / "pruned")
    assert made == resolve(tmp_path / "pruned")
    assert made.card.architecture == {**ref.card.architecture, "pruned": True}
    assert (made.card.halo, made.card.temperature, made.card.metrics) == (None, 1.0, {})
    assert made.card.statistics == ref.card.statistics
    assert made.card.derived_from == ref.digest
    assert made.path.stat().st_size < 0.8 * ref.path.stat().st_size
    assert widths["encoder.layer4.0.conv1"] == 32
    assert registry.load(made).predict(np.zeros((3, 64, 32), np.float32)).shape == (4, 64, 32)
    again, _ = prune_model(made, 0.5, tmp_path / "again")
    assert again.path.stat().st_size < made.path.stat().st_size


def test_what_is_pruned_can_be_exported(
    ref: ModelRef, request_: SceneRequest, tmp_path: Path
) -> None:
    """Through the gate as any other."""
    made, _ = prune_model(ref, 0.5, tmp_path / "pruned")
    exported = export_model(made, request_, tmp_path / "onnx", regions=1)
    assert exported.parity["onnxruntime"].labels_differ < 1e-4
    assert exported.ref.path.stat().st_size < 0.8 * ref.path.stat().st_size


def test_what_cannot_be_is_refused(ref: ModelRef, request_: SceneRequest, tmp_path: Path) -> None:
    """Before anything is made: a folder that is there, other forms, models that do not fit."""
    new = tmp_path / "new"
    for make in (export_model, quantise_model):
        with pytest.raises(OutputError, match="must not be there yet"):
            make(ref, request_, ref.path.parent)
        with pytest.raises(SceneError):
            make(ref, SceneRequest((str(tmp_path / "none.tif"),)), new)
    with pytest.raises(OutputError, match="must not be there yet"):
        prune_model(ref, 0.3, ref.path.parent)
    with pytest.raises(OutputError, match="cannot be written"):
        prune_model(ref, 0.5, ref.path / "beneath a file")
    with pytest.raises(UsageError, match="exported to onnx, got 'tflite'"):
        export_model(ref, request_, new, to="tflite")
    with pytest.raises(UsageError, match="allow must lie between 0 and 1, got 0"):
        quantise_model(ref, request_, new, allow=0)
    with pytest.raises(UsageError, match="share must lie between 0 and 1, got 2"):
        prune_model(ref, 2, new)
    cloud = resolve("iplunet-cloud-6b")
    with pytest.raises(UsageError, match="is an ONNX file already"):
        export_model(cloud, request_, new)
    with pytest.raises(UsageError, match=r"only torch models .* can be pruned, got model\.onnx"):
        prune_model(cloud, 0.3, new)
    assert untouched(tmp_path)


def test_a_file_that_changed_is_not_pruned(ref: ModelRef, tmp_path: Path) -> None:
    """Its digest is verified first."""
    save_file({"a": torch.zeros(1)}, ref.path)
    with pytest.raises(ModelError, match="not the weights of seeded"):
        prune_model(ref, 0.5, tmp_path / "new")
    assert untouched(tmp_path)
