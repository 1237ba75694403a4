"""Train a model, then map a scene with it: copy this script, change the settings, run it.

    python workflows/train.py CONFIG.toml

CONFIG.toml names scenes, labels and classes (docs/training.md). It leaves the model in OUT/model,
with figures on blocks that were held out. Run again after any interruption, it continues and ends
with the same weights. Exit codes are those of ``tilemap train``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tilemap
from tilemap.cli.progress import ConsoleTraining
from tilemap.errors import TilemapError

OUT = Path("training")
DEVICE = None  # "cpu" or "cuda" instead of what the configuration says
THREADS = None  # of the CPU; None for one per core
GOAL = 0.0  # mean IoU on the test part below which the model is not used
SCENE: Path | None = None  # to be mapped with the model; None maps none
MAPPED = Path("mapped")


def main(config: Path) -> int:
    """Train, say how good it is, and map the scene if it is good enough."""
    trained = tilemap.train(config, OUT, progress=ConsoleTraining(), device=DEVICE, threads=THREADS)
    for name, value in trained.card.metrics.items():
        print(f"{name:<24} {value}")
    if float(trained.card.metrics.get("test_miou", 0)) < GOAL:
        print(f"not used: the mean IoU must be at least {GOAL}")
        return 3
    if SCENE is None:
        return 0
    result = tilemap.segment(SCENE, model=trained.model, out=MAPPED)
    print(f"{result.status}: {result.landcover}")
    return result.exit_code


if __name__ == "__main__":  # workers import this file again
    try:
        sys.exit(main(Path(sys.argv[1])))
    except IndexError:
        sys.exit(__doc__)
    except TilemapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
