"""What every backend gives: probabilities of a patch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

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
