"""A checkpoint comes back bit for bit, is whole or the one before, and says when it is neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tilemap.errors import OutputError, StoreError
from tilemap.training import checkpoint as disk
from tilemap.training.history import History, read_history


def network() -> nn.Sequential:
    """With normalisation, and channels last as in training."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def adam(net: nn.Module) -> torch.optim.AdamW:
    """As the loop makes it."""
    return torch.optim.AdamW(net.parameters(), lr=0.1)


def learn(net: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
    """One step on noise."""
    torch.manual_seed(seed)
    optimiser.zero_grad()
    net(torch.randn(2, 2, 6, 6)).square().sum().backward()
    optimiser.step()


def taken(net: nn.Module, optimiser: torch.optim.Optimizer, **fields: object) -> disk.Checkpoint:
    """A checkpoint of both."""
    progress = disk.Progress(7, 0.1 + 0.2, 5, 2, 1 / 3, 3, 12.5)
    state = net.state_dict()
    return disk.Checkpoint(
        progress, "me", state, state, None, disk.optimiser_tensors(net, optimiser), {"threads": 2}
    )


def test_it_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """Numbers and tensors are the same, and so is what is learnt from there."""
    net = network()
    optimiser = adam(net)
    for seed in range(3):
        learn(net, optimiser, seed)
    written = taken(net, optimiser)
    disk.write_checkpoint(tmp_path / disk.FILE, written)
    read = disk.read_checkpoint(tmp_path / disk.FILE)
    assert (read.progress, read.identity) == (written.progress, "me")
    assert read.made_with == {"threads": 2}
    assert read.best is None
    assert read.average is not None
    other = network()
    other_optimiser = adam(other)
    other.load_state_dict(read.model)
    disk.restore_optimiser(other, other_optimiser, read.optimiser)
    for seed in range(3, 6):
        learn(net, optimiser, seed)
        learn(other, other_optimiser, seed)
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    mine = disk.optimiser_tensors(net, optimiser)
    theirs = disk.optimiser_tensors(other, other_optimiser)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert [p.name for p in tmp_path.iterdir()] == [disk.FILE]


def test_a_write_that_fails_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: an error that says so, no rest of a file."""
    net = network()
    path = tmp_path / disk.FILE
    disk.write_checkpoint(path, taken(net, adam(net)))
    before = path.read_bytes()

    def full(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        disk.write_checkpoint(path, taken(net, adam(net)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [disk.FILE]


def test_damage_is_told(tmp_path: Path) -> None:
    """Cut short, one bit flipped, another file, another version: one line and what to do."""
    net = network()
    path = tmp_path / disk.FILE
    disk.write_checkpoint(path, taken(net, adam(net)))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    version = whole.replace(b'\\"version\\": 1', b'\\"version\\": 9')
    assert version != whole
    save_file(load_file(path), tmp_path / "plain.safetensors")
    plain = (tmp_path / "plain.safetensors").read_bytes()
    for content, why in (
        (whole[:-100], "incomplete"),
        (bytes(flipped), "checksum is wrong"),
        (b"no such thing", ""),
        (plain, "tilemap"),
        (version, "version 9"),
    ):
        path.write_bytes(content)
        with pytest.raises((StoreError, OutputError), match="the checkpoint") as told:
            disk.read_checkpoint(path)
        assert why in str(told.value)
        assert "\n" not in str(told.value)


def test_moments_of_another_network_are_refused() -> None:
    """A parameter that is not there is named."""
    net = network()
    with pytest.raises(StoreError, match=r"moments of head\.weight"):
        disk.restore_optimiser(net, adam(net), {"head.weight/exp_avg": torch.zeros(1)})


def test_the_history_is_cut_back_to_a_step(tmp_path: Path) -> None:
    """Lines after it go, so does one that was being written; those before stay as they are."""
    path = tmp_path / "metrics.jsonl"
    history = History(path)
    history.begin(0)
    for step in (2, 4, 4, 6):
        history.add({"step": step, "loss": step / 3})
    history.flush()
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines) + '\n{"step": 8, "lo')
    again = History(path)
    again.begin(4)
    assert path.read_text().splitlines() == lines[:3]
    again.add({"step": 6, "loss": 2.0})
    assert path.read_text().splitlines() == lines
    assert read_history(path) == again.lines == history.lines
    assert read_history(tmp_path / "none") == []
