"""SegFormer and Mask2Former: published sizes, what masks come to, a torchvision that is broken."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from tilemap.errors import UnavailableError
from tilemap.models.networks import build, seeded
from tilemap.models.networks.transformer import (
    _torchvision_works,
    _without_broken_torchvision,
    semantic,
)

from .conftest import ALL, need

MILLIONS = {"b0": 3.8, "b2": 27.5, "tiny": 47.4}


@pytest.mark.parametrize(("size", "millions"), MILLIONS.items())
def test_sizes_are_the_published_ones(size: str, millions: float) -> None:
    """Millions of parameters, with 150 classes of three bands."""
    name = "segformer" if size.startswith("b") else "mask2former"
    network = build(need({"name": name, "size": size}), 3, 150)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_masks_become_classes() -> None:
    """The sum over queries, written out pixel by pixel; scores of nothing count for no class."""
    generator = torch.Generator().manual_seed(3)
    classes = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    masks = torch.randn(2, 3, 2, 4, generator=generator, dtype=torch.float64)
    result = semantic(classes, masks)
    for batch in range(2):
        for row in range(2):
            for col in range(4):
                total = [0.0] * 4
                for query in range(3):
                    scores = classes[batch, query].exp()
                    inside = 1 / (1 + (-masks[batch, query, row, col]).exp())
                    for k in range(4):
                        total[k] += float(scores[k] / scores.sum() * inside)
                expected = torch.tensor(total) / sum(total)
                torch.testing.assert_close(
                    result[batch, :, row, col], expected, rtol=1e-5, atol=1e-6
                )


def test_masks_that_find_nothing_leave_every_class_open() -> None:
    """No division by 0, and a finite logarithm."""
    result = semantic(torch.tensor([[[0.0, 0.0, 900.0]]]), torch.full((1, 1, 2, 2), -900.0))
    torch.testing.assert_close(result, torch.full((1, 2, 2, 2), 0.5))


def test_softmax_of_the_logits_is_the_mean_of_probabilities() -> None:
    """Each logit is a logarithm: exponentials sum to 1 without any softmax."""
    network = seeded(need(ALL["mask2former"]), 3, 4)
    with torch.inference_mode():
        total = network(torch.randn(1, 3, 64, 96)).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_broken_torchvision_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While transformers looks for it; afterwards it is where it was. A working one stays."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert not _torchvision_works()
    with _without_broken_torchvision():
        assert importlib.util.find_spec("torchvision") is None
    assert importlib.util.find_spec("torchvision") is not None
    (package / "__init__.py").write_text("works = True\n")
    importlib.invalidate_caches()
    with _without_broken_torchvision():
        assert importlib.util.find_spec("torchvision") is not None
    monkeypatch.delitem(sys.modules, "torchvision")


@pytest.mark.parametrize(
    ("name", "package", "hint"),
    [
        ("segformer", "transformers", r"pip install 'tilemap\[transformers\]'"),
        ("mask2former", "transformers", r"pip install 'tilemap\[transformers\]'"),
        ("smp:Unet", "segmentation_models_pytorch", r"pip install 'tilemap\[smp\]'"),
    ],
)
def test_a_missing_package_is_named(
    name: str, package: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line that installs it, when the network is built and not before."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=hint):
        build({"name": name}, 3, 2)
