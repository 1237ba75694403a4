"""A toy training in child processes that are killed; run by test_fit.py, fails with what differs.

    python killed_fit.py FOLDER SEED

One process loads torch and forks the others, which is quick; it makes no tensors itself before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # which an optimiser loads at its first step, in every child

from tilemap.models.networks import build
from tilemap.testing import ToyData
from tilemap.training import checkpoint as disk
from tilemap.training.config import parse_config
from tilemap.training.fit import fit
from tilemap.training.history import read_history
from tilemap.training.interface import Place

STEPS = 18
CONFIG = {
    "name": "toy",
    "scenes": [{"files": ["a.tif"], "labels": "b.tif"}],
    "classes": [{"name": str(i), "value": i} for i in range(3)],
    "loss": {"name": "cross_entropy+dice"},
    "training": {
        "steps": STEPS, "rate": 1e-2, "validate_every": 6, "checkpoint_every": 3, "ema": 0.9,
    },
}  # fmt: skip


def train(folder: Path) -> None:
    """To the end."""
    torch.manual_seed(0)
    network = build({"name": "unet", "encoder": "resnet18", "width": 4}, 2, 3)
    fit(network, ToyData(), parse_config(CONFIG, folder), Place("cpu", 1, folder, "toy"))


def child(folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """Its process id."""
    pid = os.fork()
    if pid == 0:
        before()
        train(folder)
        os._exit(0)
    return pid


def die_in_write() -> None:
    """At the second checkpoint, when half of it is written."""
    save, calls = disk.save_file, []

    def half(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save(tensors, path, metadata)
        calls.append(path)
        if len(calls) == 2:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    disk.save_file = half


def killed(folder: Path, lines: int, later_s: float) -> None:
    """A child that is killed some time after it has told so many lines of history."""
    pid = child(folder)
    while len(read_history(folder / "metrics.jsonl")) < lines:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            sys.exit("the training ended before it was killed")
        time.sleep(0.002)
    time.sleep(later_s)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def main() -> None:
    """One training unbroken, one that is killed again and again; they must end the same."""
    root, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    one, other = root / "unbroken", root / "killed"
    one.mkdir()
    other.mkdir()
    assert os.waitpid(child(one), 0)[1] == 0
    assert os.waitpid(child(other, die_in_write), 0)[1] == signal.SIGKILL
    assert (other / f".{disk.FILE}.partial").exists()
    for low in (4, 9, 14):
        killed(other, low + chance.randrange(4), chance.uniform(0, 0.2))
    assert os.waitpid(child(other), 0)[1] == 0
    compare(one, other)


def compare(one: Path, other: Path) -> None:
    """End with what is not the same, if anything."""
    mine, theirs = (disk.read_checkpoint(folder / disk.FILE) for folder in (one, other))
    odd = []
    for part in ("model", "average", "best", "optimiser"):
        a, b = getattr(mine, part), getattr(theirs, part)
        if a.keys() != b.keys() or not a:
            odd.append(f"names of {part}")
        odd += [f"{part} {name}" for name, value in a.items() if not torch.equal(value, b[name])]
    for progress in (mine.progress, theirs.progress):
        progress.seconds = 0
    if mine.progress != theirs.progress:
        odd.append(f"{mine.progress} {theirs.progress}")
    told = [
        [json.dumps({**line, "seconds": 0}) for line in read_history(folder / "metrics.jsonl")]
        for folder in (one, other)
    ]
    if told[0] != told[1]:
        odd.append("history")
    if len(mine.model) < 100 or mine.progress.step != STEPS:
        odd.append(f"too little: {len(mine.model)} tensors, {mine.progress.step} steps")
    if {path.name for path in other.iterdir()} != {path.name for path in one.iterdir()}:
        odd.append(f"files {sorted(path.name for path in other.iterdir())}")
    if odd:
        sys.exit("\n".join(odd))


if __name__ == "__main__":
    main()
