"""Train models from scenes and labels, and compare them: copy this script, change the settings.

    python workflows/train_buildings.py /data/kampala

The argument is the folder that holds the scenes and labels which the configurations name, as
``data/...``. Each model is in ``OUT/NAME/model`` then, with ``OUT/NAME/curves.png``. Run again
after any interruption, it continues. One training without this script, with the folder ``data``
beside the configuration: ``tilemap train kampala_buildings_unet.toml --out DIR``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import tilemap
from tilemap.cli.progress import ConsoleTraining
from tilemap.errors import ConfigError, TilemapError
from tilemap.training.train import TrainResult

CONFIGS = [
    Path(__file__).with_name("configs") / name
    for name in (
        "kampala_buildings_unet.toml",
        "kampala_buildings_deeplab.toml",
        "kampala_buildings_pretrained.toml",
    )
]
OUT = Path("buildings")
THREADS = None  # of the CPU; None for one per core


def main() -> int:
    """Train with each configuration; one line of figures for each."""
    data = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    for config in CONFIGS:
        placed = place(config, data)
        folder = OUT / config.stem
        result = tilemap.train(placed, folder, progress=ConsoleTraining(), threads=THREADS)
        print(f"{config.stem}: {result.record['seconds']:.0f} s, {told(result)}")
    return 0


def place(config: Path, data: Path) -> Path:
    """Copy a configuration into OUT, where ``data`` leads to the folder of the data."""
    if not data.is_dir():
        raise ConfigError(f"the data must be in a folder, there is no {data}")
    OUT.mkdir(parents=True, exist_ok=True)
    link = OUT / "data"
    if link.is_symlink():
        link.unlink()
    link.symlink_to(data, target_is_directory=True)
    return Path(shutil.copy(config, OUT / config.name))


def told(result: TrainResult) -> str:
    """Intersection over union of each class on the test blocks, beside that of single pixels."""
    metrics = result.card.metrics
    classes = [key.removeprefix("test_iou_") for key in metrics if key.startswith("test_iou_")]
    if classes:
        return "; ".join(
            f"test IoU of {name} {metrics[f'test_iou_{name}']:.3f} "
            f"(per pixel {metrics[f'per_pixel_iou_{name}']:.3f})"
            for name in classes
        )
    # where nothing was kept for a test, all there is are the blocks that chose the weights
    lines = (result.model.parent / "metrics.jsonl").read_text().splitlines()
    best = max((line for line in map(json.loads, lines) if "miou" in line), key=lambda x: x["miou"])
    return "; ".join(f"validation IoU of {name} {iou:.3f}" for name, iou in best["iou"].items())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TilemapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
