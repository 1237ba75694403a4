"""What training makes small: pure functions of logits and labels to one number.

Pixels labelled ``IGNORE`` take no part. A batch without a labelled pixel gives 0, with a gradient
of 0. Everything is computed in float32 and without an indexed sum, which some devices do in no
fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilemap.errors import ConfigError

IGNORE = 255
"""Label of a pixel without loss."""
_TINY = 1e-7


@dataclass(frozen=True, slots=True)
class Losses:
    """Which losses are summed for a batch.

    Args:
        pixel: "cross_entropy", "focal" or None.
        dice: whether to add the Dice loss.
        weights: one per class, above 0; None for 1 each. They weigh ``pixel`` only.
        gamma: of the focal loss, 0 or more.
        smoothing: share of each label spread evenly over the classes, 0 to below 1.
        temperature: of the distillation, above 0.
        share: of the distillation in the sum where there is a teacher, 0..1.
    """

    pixel: str | None = "cross_entropy"
    dice: bool = False
    weights: tuple[float, ...] | None = None
    gamma: float = 2.0
    smoothing: float = 0.0
    temperature: float = 1.5
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.pixel not in ("cross_entropy", "focal", None) or not (self.pixel or self.dice):
            raise ConfigError(f"a loss must be cross_entropy, focal or dice, got {self.pixel!r}")


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Labels as planes of 0 and 1, float32 (batch, class, y, x); all 0 where ignored.

    Args:
        label: class index, any integer (batch, y, x).
        classes: number of planes.
    """
    index = torch.arange(classes, device=label.device, dtype=torch.int64)
    return (label.long()[:, None] == index[:, None, None]).float()


def pixel_loss(
    logits: Tensor,
    label: Tensor,
    weights: Sequence[float] | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy, focal where ``gamma`` is above 0 (Lin et al. 2017, Focal Loss, eq. 5).

    ``-sum_c q_c w_c (1 - p_c)^gamma log p_c`` of each pixel, with ``q`` the label of which the
    share ``smoothing`` is spread evenly; divided by the sum of ``w`` of the pixels' labels.

    Args:
        logits: (batch, class, y, x).
        label: class index or ``IGNORE``, integer (batch, y, x).
        weights: ``w``, one per class; None for 1 each.
        gamma: 0 or more.
        smoothing: 0 to below 1.
    """
    logits = logits.float()
    classes = logits.shape[1]
    truth = one_hot(label, classes)
    labelled = truth.sum(dim=1, keepdim=True)
    target = truth if smoothing == 0 else truth * (1 - smoothing) + labelled * smoothing / classes
    log = torch.log_softmax(logits, dim=1)
    if gamma:
        log = log * (1 - log.exp()).clamp_min(_TINY) ** gamma
    total = labelled.sum()
    if weights is not None:
        weight = torch.tensor(weights, device=logits.device)[:, None, None]
        target, total = target * weight, (truth * weight).sum()
    return -(target * log).sum() / total.clamp_min(_TINY)


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """One minus the Dice overlap (Milletari et al. 2016, V-Net, section 3).

    ``1 - 2 sum(p g) / (sum(p^2) + sum(g^2))`` over the labelled pixels of the whole batch for each
    class; the mean over the classes that are labelled in it.

    Args:
        logits: (batch, class, y, x).
        label: class index or ``IGNORE``, integer (batch, y, x).
    """
    probability = torch.softmax(logits.float(), dim=1)
    truth = one_hot(label, logits.shape[1])
    probability = probability * truth.sum(dim=1, keepdim=True)
    planes = (0, 2, 3)
    both = (probability * truth).sum(planes)
    sizes = probability.square().sum(planes) + truth.sum(planes)
    present = (truth.sum(planes) > 0).float()
    lost = (1 - 2 * both / sizes.clamp_min(_TINY)) * present
    return lost.sum() / present.sum().clamp_min(1)


def distillation_loss(logits: Tensor, teacher: Tensor, label: Tensor, temperature: float) -> Tensor:
    """Divergence of the network from its teacher (Hinton et al. 2015, Distilling the Knowledge).

    Kullback-Leibler, both softened by ``temperature``, times its square so that the gradient does
    not shrink with it; the mean over the labelled pixels.

    Args:
        logits: (batch, class, y, x).
        teacher: probability, (batch, class, y, x).
        label: only where it is not ``IGNORE`` the pixel counts, integer (batch, y, x).
        temperature: above 0.
    """
    soft = torch.log_softmax(teacher.float().clamp_min(1e-6).log() / temperature, dim=1)
    own = torch.log_softmax(logits.float() / temperature, dim=1)
    divergence = (soft.exp() * (soft - own)).sum(dim=1)
    counts = (label != IGNORE).float()
    return (divergence * counts).sum() / counts.sum().clamp_min(1) * temperature**2


def batch_loss(logits: Tensor, label: Tensor, teacher: Tensor | None, losses: Losses) -> Tensor:
    """What a batch is to make small: the sum of its losses, a scalar.

    Args:
        logits: (batch, class, y, x), any floating type.
        label: class index or ``IGNORE``, integer (batch, y, x).
        teacher: probability (batch, class, y, x) where there is one.
        losses: which, and how much of each.
    """
    soft = losses.share if teacher is not None else 0.0
    total = torch.zeros((), device=logits.device)
    if soft < 1:
        hard = torch.zeros((), device=logits.device)
        if losses.pixel is not None:
            gamma = losses.gamma if losses.pixel == "focal" else 0.0
            hard = hard + pixel_loss(logits, label, losses.weights, gamma, losses.smoothing)
        if losses.dice:
            hard = hard + dice_loss(logits, label)
        total = total + (1 - soft) * hard
    if teacher is not None and soft > 0:
        total = total + soft * distillation_loss(logits, teacher, label, losses.temperature)
    return total


def balanced_weights(counts: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """Weights by median frequency (Eigen and Fergus 2015, section 6.3.2).

    ``median(n) / n_c``; n is counted over all of the training pixels, not over those images only
    that show the class.

    Args:
        counts: labelled training pixels of each class, all above 0.
    """
    if counts.min() < 1:
        raise ConfigError(
            f"balanced weights need pixels of every class, class {int(counts.argmin())} has none"
        )
    return tuple(float(np.median(counts) / n) for n in counts)
