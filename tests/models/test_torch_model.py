"""The torch backend against the bare network, and every way a file can contradict its card."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tilemap.errors import ModelError, UnavailableError, UsageError
from tilemap.geometry import Window
from tilemap.models.networks import PLAIN, seeded
from tilemap.models.registry import load, resolve
from tilemap.models.torch_model import TorchModel, fold_normalisation

from .conftest import TorchFile


def patch(bands: int, rows: int, cols: int) -> np.ndarray:
    """A standardised image."""
    return np.random.default_rng(3).normal(size=(bands, rows, cols)).astype(np.float32)


def bare(network: torch.nn.Module, image: np.ndarray, temperature: float = 1) -> np.ndarray:
    """Probabilities by the shortest way."""
    with torch.inference_mode():
        logits = network(torch.from_numpy(image)[None])[0]
    return (logits.double() / temperature).softmax(dim=0).numpy()


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("bands", [1, 4, 13])
def test_float32_equals_the_bare_network(torch_file: TorchFile, name: str, bands: int) -> None:
    """Folding, memory layout and the way through the file change no probability by 1e-5."""
    network, card, path = torch_file(name, bands, temperature=1.7)
    image = patch(bands, 64, 96)
    result = TorchModel(card, path).predict(image)
    np.testing.assert_allclose(result, bare(network, image, 1.7), rtol=0, atol=1e-5)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_crop_is_a_part_of_the_whole(torch_file: TorchFile, precision: str) -> None:
    """Cropping before the softmax gives the very same numbers."""
    _, card, path = torch_file()
    model = TorchModel(card, path, precision=precision)
    image = patch(3, 96, 128)
    part = model.predict(image, Window(5, 17, 90, 100))
    np.testing.assert_array_equal(part, model.predict(image)[:, 5:90, 17:100])
    assert part.flags.c_contiguous


def test_bfloat16_is_near_float32(torch_file: TorchFile) -> None:
    """It has 8 bits of mantissa: close, and not the same."""
    _, card, path = torch_file()
    image = patch(3, 128, 128)
    fine = TorchModel(card, path).predict(image)
    coarse = TorchModel(card, path, precision="bfloat16").predict(image)
    assert coarse.dtype == np.float32
    assert 0 < np.abs(fine - coarse).max() < 0.02
    np.testing.assert_allclose(coarse.sum(axis=0), 1, atol=1e-6)


def test_folding_leaves_no_normalisation() -> None:
    """Every batch normalisation of every network stands behind a convolution."""
    for name in PLAIN:
        network = seeded({"name": name, "encoder": "resnet50", "width": 4}, 2, 2)
        fold_normalisation(network)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def test_backend_says_what_ran(torch_file: TorchFile) -> None:
    """For the record of the run."""
    _, card, path = torch_file()
    assert TorchModel(card, path, precision="bfloat16").backend == "torch bfloat16 cpu"


def test_threads_hold_in_any_thread(torch_file: TorchFile) -> None:
    """What is asked for at loading is in force at predicting."""
    _, card, path = torch_file()
    model = TorchModel(card, path, threads=1)
    torch.set_num_threads(2)
    model.predict(patch(3, 32, 32))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 64, 64), "takes 3 bands (band_1, band_2, band_3) as (band, y, x), got an array"),
        ((64, 64), "got an array of shape (64, 64)"),
        ((3, 64, 65), "multiples of 32, got 64 x 65"),
        ((3, 0, 64), "multiples of 32, got 0 x 64"),
    ],
)
def test_patches_that_do_not_fit_are_refused(
    torch_file: TorchFile, shape: tuple[int, ...], message: str
) -> None:
    """The error names what the card says and what came."""
    _, card, path = torch_file()
    with pytest.raises(ModelError) as caught:
        TorchModel(card, path).predict(np.zeros(shape, np.float32))
    assert message in str(caught.value)


def refusal(card: object, path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ModelError) as caught:
        TorchModel(card, path)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_contradictions_of_card_and_file_are_named(torch_file: TorchFile) -> None:
    """Another number of bands or classes, another network, tensors missing or left over."""
    _, card, path = torch_file()
    text = refusal(card.model_copy(update={"bands": ("red",)}), path)
    assert "encoder.conv1.weight: card wants (4, 1, 7, 7), file has (4, 3, 7, 7)" in text
    text = refusal(card.model_copy(update={"classes": card.classes[:2]}), path)
    assert "head" in text
    other = {"name": "deeplabv3plus", "width": 4}
    text = refusal(card.model_copy(update={"architecture": other}), path)
    assert "lacks" in text
    assert "others, first" in text
    weights = load_file(path)
    del weights["head.bias"]
    save_file(weights, path)
    assert "lacks 1 tensors, first head.bias" in refusal(card, path)
    save_file({**load_file(path), "head.bias": torch.zeros(4), "tail": torch.zeros(1)}, path)
    assert "has 1 others, first tail" in refusal(card, path)


@pytest.mark.parametrize(
    "fields", [{"activation": "softmax"}, {"layout": "NHWC"}, {"patch": 64}, {"stride": 16}]
)
def test_cards_a_network_cannot_keep_are_refused(
    torch_file: TorchFile, fields: dict[str, object]
) -> None:
    """Our networks give logits, planes first, of any size that is a multiple of their stride."""
    _, card, path = torch_file(**fields)
    assert "must" in refusal(card, path)


def test_stride_may_be_coarser(torch_file: TorchFile) -> None:
    """A card may ask for a multiple of the network's stride."""
    _, card, path = torch_file("deeplabv3plus", stride=48)
    assert TorchModel(card, path).predict(patch(3, 48, 96)).shape == (4, 48, 96)


def test_a_pickle_is_not_opened(torch_file: TorchFile, tmp_path: Path) -> None:
    """A pickle under the name of a safetensors file is refused, and its code never runs."""
    _, card, path = torch_file()
    mark = tmp_path / "mark"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (mark,))  # type: ignore[return-value]

    path.write_bytes(pickle.dumps(Trap()))
    assert "not a whole safetensors file" in refusal(card, path)
    torch.save({"head": torch.zeros(1)}, path)
    assert "not a whole safetensors file" in refusal(card, path)
    assert not mark.exists()


def test_a_cut_file_is_refused(torch_file: TorchFile) -> None:
    """Half a download."""
    _, card, path = torch_file()
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a whole safetensors file" in refusal(card, path)


def test_devices(torch_file: TorchFile) -> None:
    """A GPU that is not there is unavailable; other kinds of device are a wrong option."""
    _, card, path = torch_file()
    with pytest.raises(UnavailableError, match="must be a GPU that torch sees"):
        TorchModel(card, path, device="cuda:63")
    for device in ("tpu please", "meta"):
        with pytest.raises(UsageError, match="cpu, cuda or cuda:N"):
            TorchModel(card, path, device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gpu_agrees_with_cpu(torch_file: TorchFile, precision: str) -> None:
    """Within what the precision allows."""
    _, card, path = torch_file()
    image = patch(3, 128, 160)
    crop = Window(3, 4, 100, 120)
    one = TorchModel(card, path, precision=precision).predict(image, crop)
    two = TorchModel(card, path, device="cuda", precision=precision).predict(image, crop)
    assert np.abs(one - two).max() < (0.005 if precision == "float32" else 0.03)


def test_demo_model_is_small() -> None:
    """At most 4 MB, card and all, and it needs nothing but the package."""
    ref = resolve("tilemap-demo-5class")
    assert sum(file.stat().st_size for file in ref.path.parent.iterdir()) <= 4_000_000
    assert load(ref).predict(patch(6, 64, 96)).shape == (5, 64, 96)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_demo_model_knows_the_hand_drawn_scene(data: Path, precision: str) -> None:
    """Nearly as well as its teacher's 0.967; most of the scene is what it learnt from."""
    model = load(resolve("tilemap-demo-5class"), precision=precision)
    with np.load(data / "scenes" / "csmask_sentinel2_512_6b_5class.npz") as scene:
        image, drawn = scene["img"].transpose(2, 0, 1), scene["msk"][..., 0]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (model.card.mean, model.card.std))
    padded = np.pad((image - mean) / std, ((0, 0), (64, 64), (64, 64)), mode="reflect")
    label = model.predict(padded, Window(64, 64, 576, 576)).argmax(axis=0)
    assert (label == drawn).mean() > 0.955


class _Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_under_another_name_is_not_run(torch_file: TorchFile, tmp_path: Path) -> None:
    """What torch.save writes, renamed to safetensors, is refused unread; in both its forms."""
    _, card, path = torch_file()
    for zipped in (True, False):
        torch.save(_Trap(tmp_path / "trapped"), path, _use_new_zipfile_serialization=zipped)
        assert "is not a whole safetensors file" in refusal(card, path)
        assert not (tmp_path / "trapped").exists()
    torch.load(path.rename(tmp_path / "open.pt"), weights_only=False).close()
    assert (tmp_path / "trapped").exists()  # it was armed
