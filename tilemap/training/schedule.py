"""The learning rate as a pure function of the step, so that a resumed training needs no memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilemap.errors import ConfigError

START, END = 1 / 25, 1e-4 / 25
"""Of "onecycle": first and last rate, as shares of the peak."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the learning rate goes.

    Args:
        name: "cosine": up a line from 0, then down half a cosine to 0 (Loshchilov and Hutter
            2017). "onecycle": from 1/25 of the peak up half a cosine, then down to 1/250,000
            (Smith and Topin 2018; the momentum stays as it is).
        peak: largest rate.
        steps: of the training, 1 or more.
        warmup: share of the steps before the peak, 0 to below 1.
    """

    name: str
    peak: float
    steps: int
    warmup: float = 0.05

    def __post_init__(self) -> None:
        if self.name not in ("cosine", "onecycle"):
            raise ConfigError(f"schedule must be cosine or onecycle, got {self.name!r}")

    def rate(self, step: int) -> float:
        """Learning rate of a step.

        Args:
            step: 0 for the first, up to ``steps - 1``.
        """
        if self.name == "cosine":
            rising = round(self.warmup * self.steps)
            if step < rising:
                return self.peak * (step + 1) / (rising + 1)
            return self.peak * _fall((step - rising) / (self.steps - rising))
        top = max(self.warmup * self.steps - 1, 0.0)
        if step <= top:
            at = step / top if top else 1.0
            return self.peak * (1 + (START - 1) * _fall(at))
        at = (step - top) / max(self.steps - 1 - top, 1.0)
        return self.peak * (END + (1 - END) * _fall(min(at, 1.0)))


def _fall(at: float) -> float:
    """Half a cosine from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * at)) / 2
