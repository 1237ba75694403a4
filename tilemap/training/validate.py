"""What a network makes of blocks it was not trained on; block by block, none is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tilemap.evaluation.metrics import IntArray, confusion, scores
from tilemap.models.protocol import FloatArray
from tilemap.training.losses import IGNORE

if TYPE_CHECKING:
    from tilemap.training.samples import Block

LabelArray = npt.NDArray[np.uint8]


@torch.inference_mode()
def block_logits(network: nn.Module, block: Block, precision: str = "float32") -> FloatArray:
    """Logits of the inner window of a block, float32 (class, y, x).

    Args:
        network: in evaluation mode, on any device.
        block: with its margin.
        precision: "float32", or "bfloat16" by autocast.
    """
    device = next(network.parameters()).device
    image = torch.from_numpy(np.require(block.image, np.float32, ["C", "W"]))[None]
    image = image.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = network(image)[0]
    inner = logits[:, *block.inner.slices()].float().contiguous()
    return np.asarray(inner.cpu().numpy(), np.float32)


def count_pairs(
    network: nn.Module, blocks: Iterable[Block], classes: int, precision: str = "float32"
) -> IntArray:
    """Confusion matrix over blocks, int64 (class, class): row = label, column = network.

    Args:
        network: in evaluation mode.
        blocks: one forward each.
        classes: how many there are.
        precision: of the forward.
    """
    total = np.zeros((classes, classes), np.int64)
    for block in blocks:
        own = block_logits(network, block, precision).argmax(axis=0)
        total += confusion(block.label, own.astype(np.uint8), classes)
    return total


def mean_iou(matrix: IntArray) -> float:
    """Mean IoU over the classes that the labels show, 0..1; 0 if they show none.

    Args:
        matrix: counts (class, class), row = label.
    """
    shown = matrix.sum(axis=1) > 0
    return float(scores(matrix).iou[shown].mean()) if shown.any() else 0.0


def labelled(planes: FloatArray, label: LabelArray) -> tuple[FloatArray, LabelArray]:
    """The labelled pixels of some planes.

    Args:
        planes: (feature, y, x).
        label: (y, x).

    Returns:
        float32 (n, feature) and class index (n,), in the order of the pixels.
    """
    counts = label != IGNORE
    return np.ascontiguousarray(planes[:, counts].T), label[counts]


def sample(
    parts: Iterator[tuple[FloatArray, LabelArray]], most: int, seed: int
) -> tuple[FloatArray, LabelArray]:
    """Pixels drawn evenly from a stream of which only ``most`` are held.

    Every pixel draws a number, and those with the smallest stay: the same seed and stream give the
    same pixels.

    Args:
        parts: (n, feature) and (n,), of any n.
        most: pixels to keep; all, if there are fewer.
        seed: of the numbers.

    Returns:
        float32 (n, feature) and class index (n,); both empty if the stream is.
    """
    random = np.random.default_rng(seed)
    held: list[tuple[npt.NDArray[np.float64], FloatArray, LabelArray]] = []
    limit = 1.0
    for planes, label in parts:
        drawn = random.random(len(label))
        chosen = drawn < limit
        held.append((drawn[chosen], planes[chosen], label[chosen]))
        if sum(len(one[0]) for one in held) > most:
            number, all_planes, all_label = _joined(held)
            nearest = np.sort(np.argpartition(number, most - 1)[:most])
            held = [(number[nearest], all_planes[nearest], all_label[nearest])]
            limit = float(held[0][0].max())
    if not held:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.uint8)
    return _joined(held)[1:]


def _joined(
    held: list[tuple[npt.NDArray[np.float64], FloatArray, LabelArray]],
) -> tuple[npt.NDArray[np.float64], FloatArray, LabelArray]:
    number, planes, label = (np.concatenate(each) for each in zip(*held, strict=True))
    return number, planes, label
