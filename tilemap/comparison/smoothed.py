"""What a method of change says of each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

MethodName = Literal["hmm", "pcc", "cvaps"]
METHODS: tuple[MethodName, ...] = ("hmm", "pcc", "cvaps")
P_CHANGE: Mapping[MethodName, str] = MappingProxyType(
    {
        "hmm": "probability of a change",
        "pcc": "probability of a change, dates taken as independent",
        "cvaps": "length of the longest change vector",
    }
)
"""What ``Smoothed.p_change`` is, by method."""


@dataclass(frozen=True, slots=True)
class Smoothed:
    """Class of every date and how sure a change is, for N pixels.

    Args:
        labels: class index, uint8 (date, pixel); 255 where the method says nothing.
        p_change: that the class changed at least once, 0..1, float32 or float64 (pixel,); see
            ``P_CHANGE``.
        p_step: that it changed between a date and the next, 0..1, (date - 1, pixel).
    """

    labels: npt.NDArray[np.uint8]
    p_change: npt.NDArray[np.floating]
    p_step: npt.NDArray[np.floating]
