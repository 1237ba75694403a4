"""What every backend gives: probabilities of a patch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilemap.errors import ModelError
from tilemap.geometry import Window
from tilemap.models.card import ModelCard

FloatArray = npt.NDArray[np.float32]


class Model(Protocol):
    """A loaded model on one device, ready to map patches; not safe for use by two threads."""

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        ...

    @property
    def backend(self) -> str:
        """For the record of the run, such as ``"torch float32 cpu"``."""
        ...

    def predict(self, image: FloatArray, crop: Window | None = None) -> FloatArray:
        """Probabilities of one patch.

        Args:
            image: standardised by the card (``stages.segment.standardise``), float32
                (band, y, x), finite everywhere; y and x multiples of ``card.stride``, or both
                ``card.patch`` where that is fixed.
            crop: the part of the patch to return, in pixels of the patch; default all of it.

        Returns:
            Probability, float32 (class, y, x) in the order of ``card.classes``, C-contiguous,
            0..1, sums to 1 over class.

        Raises:
            ModelError: if the image does not fit the card.
        """
        ...


def check_image(card: ModelCard, image: FloatArray) -> None:
    """The image is a patch the card's model takes.

    Args:
        card: what the model is.
        image: (band, y, x).

    Raises:
        ModelError: saying what must hold and what came.
    """
    if image.ndim != 3 or image.shape[0] != len(card.bands):
        raise ModelError(
            f"{card.name} takes {len(card.bands)} bands ({', '.join(card.bands)}) as "
            f"(band, y, x), got an array of shape {image.shape}"
        )
    sides = image.shape[1:]
    if card.patch is not None and sides != (card.patch, card.patch):
        raise ModelError(
            f"{card.name} takes patches of {card.patch} x {card.patch} only, "
            f"got {sides[0]} x {sides[1]}"
        )
    if min(sides) < 1 or sides[0] % card.stride or sides[1] % card.stride:
        raise ModelError(
            f"{card.name} takes sides that are multiples of {card.stride}, "
            f"got {sides[0]} x {sides[1]}"
        )
