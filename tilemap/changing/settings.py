"""What a person asks of ``tilemap change``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tilemap.cluster import ClusterSettings
from tilemap.comparison.smoothed import METHODS, MethodName
from tilemap.errors import UsageError

CORE = 512
RATE = 0.01
MMU_HA = 0.5
THRESHOLD = 0.5
Extent = Literal["intersection", "union"]


@dataclass(frozen=True)
class ChangeSettings:
    """How a series of dates is compared.

    Args:
        inputs: one per date: a directory that ``segment`` left, or a scene (its files separated
            by commas, a directory, a STAC item), which is segmented first.
        model: for the scenes; None if all inputs are directories.
        dates: ISO days of the inputs, in their order, where they do not tell themselves.
        method: "hmm", "pcc" or "cvaps".
        rate: hmm: share of pixels that change class in a year, 0..1; "fit" finds it.
        transitions: hmm: CSV of a whole matrix per year instead.
        prior: hmm: "uniform", or "series": the mean of all dates' probabilities.
        tau: hmm: power of the evidence, 0..1; below 1 dates are trusted less.
        threshold: cvaps: smallest change vector that counts, 0..1; None finds it (Otsu).
        mmu_ha: minimum mapping unit, hectares; a smaller region of change is mapped as none.
        like: raster whose grid is taken.
        resolution: pixel size to bring the series to, in units of its CRS.
        extent: of the series where the dates' extents differ.
        masks: one raster per input, in their order, of what was not observed.
        mask_rule: which of its values that are, see docs/change.md.
        allow_model_mismatch: compare maps of different models.
        accept_misregistration: go on with dates that lie more than half a pixel off.
        core: side of a tile, pixels.
        cluster: where it runs.
        segment: options of ``tilemap.segment`` for the scenes.

    Raises:
        UsageError: if an option cannot hold.
    """

    inputs: tuple[str, ...]
    model: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    method: MethodName = "hmm"
    rate: float | Literal["fit"] = RATE
    transitions: str | None = None
    prior: Literal["uniform", "series"] = "uniform"
    tau: float = 1.0
    threshold: float | None = THRESHOLD
    mmu_ha: float = MMU_HA
    like: str | None = None
    resolution: float | None = None
    extent: Extent = "intersection"
    masks: tuple[str, ...] = ()
    mask_rule: str | None = None
    allow_model_mismatch: bool = False
    accept_misregistration: bool = False
    core: int = CORE
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    segment: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.inputs) < 2:
            raise UsageError(
                f"change needs two dates or more, got {len(self.inputs)}; name a directory of "
                "`tilemap segment` or a scene for each"
            )
        if self.method not in METHODS:
            raise UsageError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.extent not in ("intersection", "union"):
            raise UsageError(f"extent must be intersection or union, got {self.extent!r}")
        if self.prior not in ("uniform", "series"):
            raise UsageError(f"prior must be uniform or series, got {self.prior!r}")
        for name in ("dates", "masks"):
            given = getattr(self, name)
            if given and len(given) != len(self.inputs):
                raise UsageError(
                    f"{name} must be as many as inputs, {len(self.inputs)}, got {len(given)}"
                )
        if bool(self.masks) != (self.mask_rule is not None):
            raise UsageError("masks and their `mask_rule` must be given together")
        if self.like is not None and self.resolution is not None:
            raise UsageError("the grid comes from `like` or from `resolution`, not from both")
        if self.rate != "fit" and not 0 < self.rate < 1:
            raise UsageError(f"rate must lie between 0 and 1 a year, got {self.rate:g}")
        _within("tau", self.tau, 0, 1)
        if self.threshold is not None:
            _within("threshold", self.threshold, 0, 1)
        if not 0 <= self.mmu_ha < math.inf:
            raise UsageError(f"mmu-ha must be at least 0 hectares, got {self.mmu_ha:g}")
        if self.core < 16:
            raise UsageError(f"core must be at least 16 pixels, got {self.core}")

    def record(self) -> dict[str, Any]:
        """What decides the result, besides the inputs."""
        return {
            "method": self.method,
            "rate": self.rate,
            "prior": self.prior,
            "tau": self.tau,
            "threshold": self.threshold,
            "mmu_ha": self.mmu_ha,
            "extent": self.extent,
            "mask_rule": self.mask_rule,
            "accept_misregistration": self.accept_misregistration,
            "core": self.core,
        }


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        raise UsageError(f"{name} must lie above {low} and be at most {high}, got {value:g}")
