"""What holds for every network: sizes, gradients, seeds, cards, files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tilemap.models.export import export_onnx
from tilemap.models.mlm import read_card
from tilemap.models.networks import build, seeded, stride_of
from tilemap.models.registry import load, resolve, save_card

from ..conftest import make_card  # noqa: TID252  # tests are no package
from .conftest import ALL, Architecture, dates, need

BANDS = (1, 3, 13)


@pytest.fixture(params=sorted(ALL))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    """Each of ``ALL``."""
    return need(ALL[request.param])


def bands_of(architecture: Architecture) -> int:
    """One of ``BANDS``, each for some of the networks; of each date."""
    number = BANDS[sorted(ALL.values(), key=str).index(architecture) % len(BANDS)]
    return number * dates(architecture)


@pytest.mark.parametrize("bands", BANDS)
def test_every_class_at_the_size_of_the_patch(architecture: Architecture, bands: int) -> None:
    """On oblong patches whose sides are multiples of the stride, whatever the bands."""
    bands *= dates(architecture)
    network = seeded(architecture, bands, 5)
    stride = stride_of(architecture)
    for rows, cols in ((2, 3), (3, 1)):
        with torch.inference_mode():
            logits = network(torch.randn(1, bands, rows * stride, cols * stride))
        assert logits.shape == (1, 5, rows * stride, cols * stride)
        assert logits.isfinite().all()
        assert logits.std(dim=(2, 3)).max() > 1e-3


def test_every_parameter_learns(architecture: Architecture) -> None:
    """A step back gives each a finite gradient that is not zero everywhere by construction."""
    torch.manual_seed(0)
    bands = bands_of(architecture)
    network = build(architecture, bands, 3)
    assert network.training
    logits = network(torch.randn(2, bands, 64, 96))
    torch.nn.functional.cross_entropy(logits, torch.randint(0, 3, (2, 64, 96))).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_the_same_seed_gives_the_same_tensors(architecture: Architecture) -> None:
    """Another seed others; and the random numbers of the rest of the program stay as they were."""
    bands = bands_of(architecture)
    state = torch.random.get_rng_state()
    one, two, other = (seeded(architecture, bands, 4, s).state_dict() for s in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    assert list(one) == list(two) == list(other)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_a_card_builds_it_again_and_a_file_loads(
    architecture: Architecture, tmp_path: Path
) -> None:
    """Through model.json and model.safetensors it says the same, with normalisation folded."""
    bands = bands_of(architecture)
    network = seeded(architecture, bands, 3, seed=1)
    save_file(
        {k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "w.safetensors"
    )
    stride = stride_of(architecture)
    card = make_card(tmp_path / "w.safetensors", bands, 3, architecture=architecture, stride=stride)
    save_card(card, tmp_path)
    read = read_card(tmp_path / "model.json").architecture
    assert json.loads(json.dumps(read)) == architecture
    assert [(k, v.shape) for k, v in build(read, bands, 3).state_dict().items()] == [
        (k, v.shape) for k, v in network.state_dict().items()
    ]
    image = np.random.default_rng(5).normal(size=(bands, 64, 96)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)[None])[0].softmax(dim=0).numpy()
    result = load(resolve(tmp_path)).predict(image)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_it_can_be_copied(architecture: Architecture) -> None:
    """A deep copy, as pruning and averaging make it, gives the same."""
    bands = bands_of(architecture)
    network = seeded(architecture, bands, 2)
    x = torch.randn(1, bands, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(copy.deepcopy(network)(x), network(x))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"mask2former"}))
def test_an_exported_file_takes_other_sizes(name: str, tmp_path: Path) -> None:
    """ONNX Runtime gives the same on patches of other sizes than the one that was traced."""
    onnxruntime = pytest.importorskip("onnxruntime")
    architecture = need(ALL[name])
    network = seeded(architecture, 2, 3)
    stride = stride_of(architecture)
    export_onnx(network, 2, stride, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for size in ((7 * stride, 5 * stride), (stride, 11 * stride)):
        image = torch.randn(1, 2, *size)
        with torch.inference_mode():
            expected = network(image).numpy()
        (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(result, expected, atol=1e-4, rtol=0)
