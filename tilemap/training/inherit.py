"""Give a narrow U-Net what a wide one knows, layer by layer, before any training.

Each layer of the narrow network is made to answer, by least squares on real images, what chosen
channels of the same layer of the wide one answer. It answers from what the narrow network's
earlier layers give, so it makes up for their errors (after Zhang et al. 2016, "Accelerating very
deep convolutional networks", and He et al. 2017, "Channel pruning"). Channels are chosen so that
the others can be told from them: a QR decomposition with column pivoting of the activations, each
weighed by how strongly it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import qr
from torch import Tensor, nn
from torch.nn import functional

from tilemap.errors import ModelError
from tilemap.models.networks.plain import PlainUNet

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_FITTED, _LOOKED = 25_000, 12_000  # pixels for least squares; to choose channels by
_BATCH = 8


def choose_channels(values: Floats, weight: Floats, number: int) -> Integers:
    """Channels from which the others can best be told, greedily.

    Args:
        values: (pixel, channel).
        weight: (channel,), how much each counts.
        number: of channels to choose.

    Returns:
        Their indices, ascending.
    """
    away = (values - values.mean(axis=0)) * weight
    order = qr(away, mode="r", pivoting=True)[1]
    return np.sort(order[:number]).astype(np.int64)


def principal_planes(values: Floats, weight: Floats, number: int) -> Floats:
    """The mixtures of channels that hold most of their variance.

    Args:
        values: (pixel, channel).
        weight: (channel,), how much each counts.
        number: of mixtures.

    Returns:
        (channel, mixture).
    """
    away = (values - values.mean(axis=0)) * weight
    _, mixed = np.linalg.eigh(away.T @ away)
    return np.asarray(weight[:, None] * mixed[:, ::-1][:, :number])


def least_squares(inputs: Floats, targets: Floats, ridge: float) -> tuple[Floats, Floats, float]:
    """Linear map with an intercept, and the share of the targets' variance it leaves.

    Args:
        inputs: (pixel, feature).
        targets: (pixel, channel).
        ridge: added to each feature's variance, as a share of the mean variance.

    Returns:
        Weights (feature, channel), intercept (channel,), share unexplained, 0..1 or so.
    """
    centre, middle = inputs.mean(axis=0), targets.mean(axis=0)
    away = inputs - centre
    square = away.T @ away
    square[np.diag_indices_from(square)] += ridge * np.trace(square) / len(square)
    weight = np.linalg.solve(square, away.T @ (targets - middle))
    left = away @ weight - (targets - middle)
    total = float(np.square(targets - middle).sum())
    share = float(np.square(left).sum()) / total if total else 0.0
    return weight, middle - centre @ weight, share


@dataclass
class _Pixels:
    """Where to look, by level: (image, row, col) of each pixel that counts."""

    places: list[tuple[Integers, Integers, Integers]]
    random: np.random.Generator

    @classmethod
    def of(cls, counted: Tensor, levels: int, seed: int) -> _Pixels:
        """Pixels all of whose parts count, not at the edge of an image: padding is no image."""
        places = []
        for level in range(levels):
            share = functional.avg_pool2d(counted.float()[:, None], 2**level)[:, 0].numpy()
            inner = share > 0.999
            inner[:, [0, -1]] = False
            inner[:, :, [0, -1]] = False
            n, row, col = (index.astype(np.int64) for index in np.nonzero(inner))
            places.append((n, row, col))
        return cls(places, np.random.default_rng(seed))

    def draw(self, level: int, most: int) -> tuple[Integers, Integers, Integers]:
        """Some of them, drawn evenly."""
        n, row, col = self.places[level]
        if not n.size:
            raise ModelError("images must have pixels that count at every level, they have none")
        chosen = self.random.permutation(n.size)[:most]
        return n[chosen], row[chosen], col[chosen]


def _at(planes: Tensor, places: tuple[Integers, Integers, Integers]) -> Floats:
    """Values (pixel, channel)."""
    n, row, col = (torch.from_numpy(index) for index in places)
    return planes.permute(0, 2, 3, 1)[n, row, col].double().numpy()


def _around(planes: Tensor, places: tuple[Integers, Integers, Integers]) -> Floats:
    """Values of 3 x 3 pixels, (pixel, 9 * channel) in the order of a convolution's weights."""
    n, row, col = (torch.from_numpy(index) for index in places)
    last = planes.permute(0, 2, 3, 1)
    near = [last[n, row + dy, col + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return torch.stack(near, dim=2).flatten(1).double().numpy()


def _apply(module: nn.Module, planes: Tensor) -> Tensor:
    return torch.cat([module(part) for part in planes.split(_BATCH)])


def _teacher_step(step: nn.Sequential, planes: Tensor) -> tuple[Tensor, Tensor]:
    """What a step gives before its ReLU, and at its end."""
    at = next(i for i, module in enumerate(step) if isinstance(module, nn.ReLU))
    before = _apply(step[:at], planes)
    return before, _apply(step[at:], before.clone())


def _read_by(*weights: Tensor) -> Floats:
    """How strongly each channel is read: norm over weights (out, channel, ...)."""
    squares = sum(w.detach().double().square().transpose(0, 1).flatten(1).sum(1) for w in weights)
    return np.asarray(torch.as_tensor(squares).sqrt().numpy())


class _Heir:
    """Both networks on their way through the same images."""

    def __init__(self, pixels: _Pixels, ridge: float) -> None:
        self.pixels, self.ridge = pixels, ridge
        self.left: list[float] = []

    def step(
        self, pair: tuple[Any, Any], planes: tuple[Tensor, Tensor], level: int, read: Floats
    ) -> tuple[Tensor, Tensor]:
        """One convolution with its ReLU; planes before and behind are (student's, teacher's)."""
        mine, theirs = pair
        conv = mine[0]
        before, behind = _teacher_step(theirs, planes[1])
        seen = _at(behind, self.pixels.draw(level, _LOOKED))
        chosen = choose_channels(seen, read, conv.out_channels)
        places = self.pixels.draw(level, _FITTED)
        targets = _at(before, places)[:, chosen]
        weight, intercept, left = least_squares(_around(planes[0], places), targets, self.ridge)
        conv.weight.copy_(torch.from_numpy(weight.T).reshape(conv.weight.shape))
        conv.bias.copy_(torch.from_numpy(intercept))
        self.left.append(left)
        return _apply(mine, planes[0]), behind

    def rise(
        self, pair: tuple[Any, Any], planes: tuple[Tensor, Tensor], level: int, read: Floats
    ) -> tuple[Tensor, Tensor]:
        """One step up, from ``level + 1`` to ``level``: each pixel becomes 2 x 2."""
        mine, theirs = pair
        above = _apply(theirs, planes[1])
        seen = _at(above, self.pixels.draw(level, _LOOKED))
        mixed = principal_planes(seen, read, mine.out_channels)
        n, row, col = self.pixels.draw(level + 1, _LOOKED)
        inputs, intercepts = _at(planes[0], (n, row, col)), []
        for dy in range(2):
            for dx in range(2):
                targets = _at(above, (n, 2 * row + dy, 2 * col + dx)) @ mixed
                weight, intercept, left = least_squares(inputs, targets, self.ridge)
                mine.weight[:, :, dy, dx] = torch.from_numpy(weight)
                intercepts.append(intercept)
                self.left.append(left)
        mine.bias.copy_(torch.from_numpy(np.mean(intercepts, axis=0)))
        return _apply(mine, planes[0]), above

    def head(self, pair: tuple[Any, Any], planes: tuple[Tensor, Tensor]) -> None:
        """The last convolution, 1 x 1: the logits."""
        mine, theirs = pair
        places = self.pixels.draw(0, _FITTED)
        targets = _at(_apply(theirs, planes[1]), places)
        weight, intercept, left = least_squares(_at(planes[0], places), targets, self.ridge)
        mine.weight.copy_(torch.from_numpy(weight.T)[:, :, None, None])
        mine.bias.copy_(torch.from_numpy(intercept))
        self.left.append(left)


@torch.no_grad()
def inherit(
    student: PlainUNet,
    teacher: PlainUNet,
    images: tuple[Tensor, Tensor],
    counted: Tensor,
    seed: int = 0,
    ridge: float = 1e-3,
) -> Sequence[float]:
    """Set a student's weights, in place, so that it answers like its teacher as far as it can.

    Args:
        student: norm "none", no wider than the teacher at any level.
        teacher: in evaluation mode.
        images: the same images as the student and as the teacher takes them (they may standardise
            differently), float32 (image, band, y, x), y and x multiples of 16.
        counted: bool (image, y, x), what is looked at.
        seed: of the pixels that are drawn.
        ridge: see ``least_squares``.

    Returns:
        Share of the variance of what it should answer that each layer leaves, in their order
        (each step up has four).

    Raises:
        ModelError: if the networks do not fit, or nothing counts.
    """
    _check(student, teacher)
    mine: Any = student
    theirs: Any = teacher
    levels = len(mine.down)
    heir = _Heir(_Pixels.of(counted, levels, seed), ridge)
    planes, skips = images, []
    for level in range(levels):
        if level:
            planes = (mine.pool(planes[0]), theirs.pool(planes[1]))
        first, second = theirs.down[level]
        planes = heir.step((mine.down[level][0], first), planes, level, _read_by(second[0].weight))
        read = _readers(theirs, level)
        planes = heir.step((mine.down[level][1], second), planes, level, read)
        skips.append(planes)
    for number in range(levels - 1):
        level = levels - 2 - number
        first, second = theirs.up[number]
        read = _read_by(first[0].weight[:, : theirs.rise[number].out_channels])
        pair = (mine.rise[number], theirs.rise[number])
        risen, skip = heir.rise(pair, planes, level, read), skips[level]
        planes = (torch.cat([risen[0], skip[0]], 1), torch.cat([risen[1], skip[1]], 1))
        planes = heir.step((mine.up[number][0], first), planes, level, _read_by(second[0].weight))
        after = theirs.rise[number + 1].weight.transpose(0, 1) if level else theirs.head.weight
        planes = heir.step((mine.up[number][1], second), planes, level, _read_by(after))
    heir.head((mine.head, theirs.head), planes)
    return heir.left


@torch.no_grad()
def normalised(network: PlainUNet, images: Tensor) -> PlainUNet:
    """The same function with a normalisation before each ReLU, as pruning and training want it.

    Args:
        network: norm "none".
        images: as it takes them, float32 (image, band, y, x); the normalisations' statistics are
            of its answers to them.

    Returns:
        A network of norm "before" in evaluation mode; rounding apart, it answers the same.
    """
    old: Any = network
    channels = [double[0][0].out_channels for double in old.down]
    lean = old.rise[-1].out_channels != channels[0]
    bands, classes = old.down[0][0][0].in_channels, old.head.out_channels
    made = PlainUNet(bands, classes, " ".join(map(str, channels)), "before", lean).eval()
    for name in ("rise", "head"):
        getattr(made, name).load_state_dict(getattr(network, name).state_dict())
    pairs = zip(_steps(network), _steps(made), strict=True)
    hooks = [step[0].register_forward_hook(_Statistics(new)) for step, new in pairs]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return made


def _steps(network: Any) -> list[Any]:
    return [step for double in (*network.down, *network.up) for step in double]


class _Statistics:
    """Fills a step with a normalisation from a convolution and what it answers."""

    def __init__(self, step: Any) -> None:
        self.conv, self.norm = step[0], step[1]

    def __call__(self, conv: nn.Conv2d, _: Any, answer: Tensor) -> None:
        assert conv.bias is not None
        mean, variance = answer.mean(dim=(0, 2, 3)), answer.var(dim=(0, 2, 3))
        self.conv.weight.copy_(conv.weight)
        self.norm.running_mean.copy_(mean - conv.bias)
        self.norm.running_var.copy_(variance)
        self.norm.weight.copy_((variance + self.norm.eps).sqrt())
        self.norm.bias.copy_(mean)


def _readers(teacher: Any, level: int) -> Floats:
    """How strongly what leaves a level on the way down is read: below it and across."""
    deepest = len(teacher.down) - 1
    if level == deepest:
        return _read_by(teacher.rise[0].weight.transpose(0, 1))
    number = deepest - 1 - level
    across = teacher.up[number][0][0].weight[:, teacher.rise[number].out_channels :]
    return _read_by(teacher.down[level + 1][0][0].weight, across)


def _check(student: Any, teacher: Any) -> None:
    if any(isinstance(module, nn.BatchNorm2d) for module in student.modules()):
        raise ModelError('the student must have norm "none"')
    mine = [double[0][0].out_channels for double in student.down]
    theirs = [double[0][0].out_channels for double in teacher.down]
    if any(own > wide for own, wide in zip(mine, theirs, strict=True)):
        raise ModelError(
            f"the student must not be wider than its teacher, got {mine} channels and {theirs}"
        )
    if student.head.out_channels != teacher.head.out_channels:
        raise ModelError("student and teacher must have the same classes")
