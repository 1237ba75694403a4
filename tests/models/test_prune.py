"""Channels that are zero can go without a trace; what is left loads strictly, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tilemap.errors import ModelError, UsageError
from tilemap.models.networks import seeded
from tilemap.models.prune import (
    CRITERIA,
    MULTIPLE,
    fit_to,
    importance,
    inner_channels,
    prune_channels,
    unpruned,
)
from tilemap.models.torch_model import TorchModel, load_network

from .conftest import make_card

NETWORKS = [
    {"name": "unet", "encoder": "resnet18", "width": 8},
    {"name": "unet", "encoder": "resnet50", "width": 8},
    {"name": "deeplabv3plus", "encoder": "resnet18", "width": 8},
    {"name": "unet", "encoder": "efficientnet-lite0", "width": 16},
    {"name": "pspnet", "encoder": "resnet18", "width": 8},
    {"name": "plain_unet", "channels": "16 24 32 32 32", "lean": True},
]


def forward(network: nn.Module) -> torch.Tensor:
    """Logits of one fixed random patch."""
    image = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 3, 64, 96)).astype("f4"))
    with torch.no_grad():
        result: torch.Tensor = network(image)
    return result


def size(network: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda a: f"{a['name']}-{a.get('encoder')}")
@pytest.mark.parametrize("criterion", CRITERIA)
def test_channels_that_are_zero_go_without_a_trace(
    architecture: dict[str, object], criterion: str
) -> None:
    """A share of each part is made zero; the same share is removed; every logit stays."""
    network = seeded(architecture, 3, 4)
    before_size, share = size(network), 0.4
    for number, inner in enumerate(inner_channels(network)):
        norm = network.get_submodule(inner.norm)
        dead = np.random.default_rng(number).permutation(len(norm.weight))
        dead = dead[: -(-len(dead) * 4 // 10)].copy()
        norms = [norm] + [
            network.get_submodule(name) for name in [inner.depthwise_norm] if name is not None
        ]
        for each in norms:
            each.weight.data[dead] = 0
            each.bias.data[dead] = 0
    expected = forward(network)
    widths = prune_channels(network, share, criterion, multiple=1)
    result = forward(network)
    assert size(network) < 0.75 * before_size
    assert len(widths) == len(inner_channels(network))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6 * float(expected.std()))


def test_every_inner_part_of_the_networks_is_known() -> None:
    """Blocks and steps, counted by hand; the last step of the decoder too."""

    def parts(**architecture: object) -> list[str]:
        return [inner.conv for inner in inner_channels(seeded(architecture, 3, 4))]

    small = {"width": 8}
    assert len(parts(name="unet", encoder="resnet18", **small)) == 8 + 5
    assert len(parts(name="unet", encoder="resnet50", **small)) == 2 * 16 + 5
    assert len(parts(name="deeplabv3plus", encoder="resnet34", **small)) == 16 + 1
    assert "decoder.blocks.4.conv1.0" in parts(name="unet", encoder="resnet18", **small)


def test_the_least_important_go_and_the_order_stays() -> None:
    """Of the channels of one part the largest are kept, as they stood."""
    network = seeded(NETWORKS[0], 3, 4)
    inner = inner_channels(network)[-1]
    conv = network.get_submodule(inner.conv)
    weight = conv.weight.detach().clone()
    counts = importance(network, inner, "l1").numpy()
    kept = sorted(np.argsort(counts)[-8:])
    prune_channels(network, 0.5, "l1", multiple=8)
    assert conv.out_channels == 8
    torch.testing.assert_close(conv.weight.detach(), weight[kept], rtol=0, atol=0)


def test_importance_by_the_formula() -> None:
    """What a filter is at work, and its scale."""
    network = seeded(NETWORKS[0], 3, 4)
    inner = inner_channels(network)[0]
    conv, norm = network.get_submodule(inner.conv), network.get_submodule(inner.norm)
    scale = norm.weight.detach().numpy()
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm).weight.detach().abs().numpy()
    np.testing.assert_allclose(importance(network, inner, "scale"), np.abs(scale), rtol=1e-6)
    np.testing.assert_allclose(
        importance(network, inner, "l1"), folded.sum(axis=(1, 2, 3)), rtol=1e-5
    )


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_never_more_than_the_share_and_in_whole_vectors(share: float) -> None:
    """Widths are multiples, and at least what the share leaves."""
    network = seeded({"name": "unet", "encoder": "resnet18", "width": 40}, 3, 4)
    before = {i.conv: network.get_submodule(i.conv).out_channels for i in inner_channels(network)}
    for name, width in prune_channels(network, share).items():
        assert width % MULTIPLE == 0
        assert (1 - share) * before[name] <= width + 1e-9
        assert width < min(before[name], (1 - share) * before[name] + MULTIPLE)
        assert network.get_submodule(name).out_channels == width


@pytest.mark.parametrize(
    ("share", "criterion", "kind", "message"),
    [
        (0.0, "l1", UsageError, "share must lie between 0 and 1, got 0.0"),
        (1.0, "l1", UsageError, "share must lie between 0 and 1, got 1.0"),
        (float("nan"), "l1", UsageError, "share must lie"),
        (0.3, "l3", UsageError, "criterion must be one of scale, l1, got 'l3'"),
        (0.001, "l1", ModelError, "nothing to remove"),
    ],
)
def test_what_cannot_be_pruned_is_left_alone(
    share: float, criterion: str, kind: type[Exception], message: str
) -> None:
    """The error says what must hold, and the network is as it was."""
    network = seeded(NETWORKS[0], 3, 4)
    expected = forward(network)
    with pytest.raises(kind, match=message):
        prune_channels(network, share, criterion)
    torch.testing.assert_close(forward(network), expected, rtol=0, atol=0)


@pytest.fixture
def pruned(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A pruned network and its file."""
    network = seeded(NETWORKS[0], 3, 4)
    prune_channels(network, 0.5, multiple=1)
    path = tmp_path / "model.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def test_a_pruned_file_loads_and_gives_the_same(pruned: tuple[nn.Module, Path]) -> None:
    """Through the card and the protocol; as it was trained, and ready to be trained on."""
    network, path = pruned
    card = make_card(path, 3, 4, stride=32, architecture={**NETWORKS[0], "pruned": True})
    loaded = load_network(card, path)
    torch.testing.assert_close(forward(loaded), forward(network), rtol=0, atol=0)
    loaded.train()
    loaded(torch.randn(2, 3, 32, 32)).sum().backward()
    image = np.random.default_rng(2).normal(size=(3, 64, 96)).astype("f4")
    expected = torch.softmax(forward(network)[0], dim=0).numpy()
    result = TorchModel(card, path).predict(image)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_only_inner_widths_may_differ(pruned: tuple[nn.Module, Path]) -> None:
    """Without the word on the card; another outer width; halves that do not fit; too many."""
    _, path = pruned
    card = make_card(path, 3, 4, stride=32, architecture={**NETWORKS[0], "pruned": True})

    def refusal(architecture: dict[str, object], changed: dict[str, torch.Tensor]) -> str:
        save_file({**load_file(path), **changed}, path.with_name("other.safetensors"))
        with pytest.raises(ModelError) as caught:
            load_network(
                card.model_copy(update={"architecture": architecture}),
                path.with_name("other.safetensors"),
            )
        assert "\n" not in str(caught.value)
        return str(caught.value)

    weights = load_file(path)
    assert "contradicts the card in" in refusal(NETWORKS[0], {})
    for name in ("encoder.layer1.0.conv2.weight", "head.weight", "encoder.conv1.weight"):
        text = refusal(card.architecture, {name: weights[name][:-1].clone()})
        assert f"contradicts the card in {name}" in text
    name = "encoder.layer1.0.conv1.weight"
    assert "contradicts" in refusal(card.architecture, {name: weights[name][:-1].clone()})
    for wrong in (torch.zeros(0, 8, 3, 3), torch.zeros(9, 8, 3, 3), torch.zeros(3)):
        assert "contradicts the card in" in refusal(card.architecture, {name: wrong})
    assert "only unet, " in refusal({"name": "segformer", "pruned": True}, {})
    assert "pruned must be true or false" in refusal({**NETWORKS[0], "pruned": "yes"}, {})


def test_a_whole_file_may_say_it_was_pruned(pruned: tuple[nn.Module, Path]) -> None:
    """Nothing to remove is no error when it is read: the widths are those of the file."""
    whole = seeded(NETWORKS[0], 3, 4)
    other = seeded(NETWORKS[0], 3, 4, seed=1)
    fit_to(other, whole.state_dict())
    other.load_state_dict(whole.state_dict())
    torch.testing.assert_close(forward(other), forward(whole), rtol=0, atol=0)
    assert unpruned({"name": "unet", "pruned": True}) == ({"name": "unet"}, True)
    assert unpruned({"name": "unet"}) == ({"name": "unet"}, False)
