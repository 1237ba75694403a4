"""The model card: everything a model needs to be run unattended."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tilemap.models.trained_on import TrainedOn, TrainedScene

CARD_VERSION = 2
READABLE = (1, 2)
"""Versions this program reads; 2 added statistics, gsd_m, derived_from and trained_on."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Of the training data, as ``BandStatistics`` holds them."""
LONGEST_NAME = 200
"""Characters in the name of a class."""
_UNWRITABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, half surrogates and line breaks."""
_TELLING = ("bands", "units", "mean", "std", "layout", "activation", "temperature")
"""Fields that change what the same weights say of the same pixels."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassInfo(_Frozen):
    """One class of the class map."""

    value: Annotated[int, Field(ge=0, le=254)]
    name: str
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour as three numbers 0..255."""
        return (int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16))

    @field_validator("name")
    @classmethod
    def _writable(cls, value: str) -> str:
        """Refuse what a legend, an attribute table or a tag cannot hold."""
        odd = {unicodedata.category(character) for character in value} & _UNWRITABLE
        if not value.strip() or len(value) > LONGEST_NAME or odd:
            shown = value if len(value) <= 40 else value[:37] + "..."
            raise ValueError(
                f"the name of a class must have 1 to {LONGEST_NAME} characters and no control "
                f"characters, got {shown!a}"
            )
        return value


class BandStatistics(_Frozen):
    """What one band of the training data looked like, in the units the card takes."""

    mean: float
    std: Annotated[float, Field(ge=0)]
    quantiles: tuple[float, float, float, float, float, float, float]
    """At ``QUANTILES``, ascending."""

    @model_validator(mode="after")
    def _ascending(self) -> BandStatistics:
        if list(self.quantiles) != sorted(self.quantiles):
            raise ValueError(f"quantiles must ascend, got {self.quantiles}")
        return self


class ModelCard(_Frozen):
    """What a model is, what it takes and what it gives."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    title: str
    version: str = "1"
    description: str
    license: str
    source: str = ""
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    """Common names, in the order of the model's input."""
    units: Literal["reflectance", "stored"] = "reflectance"
    """Physical values (stored * scale + offset) or the stored numbers as they are."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Standardisation per band: (x - mean) / std; None means 0 and 1."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    patch: int | None = None
    """The only height and width the model takes; None for any multiple of stride."""
    stride: Annotated[int, Field(ge=1)] = 32
    activation: Literal["softmax", "sigmoid", "logits"] = "logits"
    """What the file's output is: probabilities already (softmax, sigmoid) or logits."""
    classes: Annotated[tuple[ClassInfo, ...], Field(min_length=2)]
    """In the order of the output; a sigmoid output of one plane is the second of two."""
    architecture: dict[str, str | int | float | bool] = Field(default_factory=dict)
    context: int | None = None
    """Pixels the model looks around each pixel, if finite and known to be exact."""
    halo: int | None = None
    """Smallest halo measured by the probe; the default of a run."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    metrics: dict[str, float | int | str] = Field(default_factory=dict)
    training_data: tuple[str, ...] = ()
    trained_on: tuple[TrainedScene, ...] = ()
    """Scenes with the blocks that were for training, validation and test; empty if unknown."""
    statistics: tuple[BandStatistics, ...] | None = None
    """Of the training data, per band; None if unknown. A scene far outside is warned of."""
    gsd_m: tuple[float, float] | None = None
    """Smallest and largest pixel of the training data, metres."""
    derived_from: str | None = None
    """SHA-256 of the weights these were made from: exported, quantised or pruned."""
    weights: str
    """File name of the weights, beside the card."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the weights."""
    card_version: int = CARD_VERSION

    @field_validator("weights")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("weights must be a plain file name beside the card")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != len(self.bands):
                raise ValueError(
                    f"{name} must have one number per band ({len(self.bands)}), got {len(values)}"
                )
        if self.statistics is not None and len(self.statistics) != len(self.bands):
            raise ValueError(
                f"statistics must have one entry per band ({len(self.bands)}), "
                f"got {len(self.statistics)}"
            )
        if self.gsd_m is not None and not 0 < self.gsd_m[0] <= self.gsd_m[1]:
            raise ValueError(f"gsd_m must be two ascending numbers above 0, got {self.gsd_m}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0 in every band")
        if self.patch is not None and self.patch % self.stride:
            raise ValueError(f"patch={self.patch} must be a multiple of stride={self.stride}")
        values_ = [c.value for c in self.classes]
        if len(set(values_)) != len(values_):
            raise ValueError(f"class values must differ, got {values_}")
        names = Counter(c.name.strip().casefold() for c in self.classes)
        if alike := [c.name for c in self.classes if names[c.name.strip().casefold()] > 1]:
            raise ValueError(f"class names must differ by more than case, got {', '.join(alike)}")
        return self

    def identity(self) -> dict[str, Any]:
        """All that decides what the model says of the same pixels, as plain JSON."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            **self.model_dump(mode="json", include=set(_TELLING)),
            "classes": [c.model_dump() for c in self.classes],
        }

    def ground(self) -> TrainedOn | None:
        """All it says of the ground it was trained on; None if it says nothing."""
        return TrainedOn.of(self.trained_on, self.training_data)

    @property
    def default_halo(self) -> int:
        """The measured halo, else the context, else 64 pixels; rounded up to the stride."""
        halo = next((h for h in (self.halo, self.context) if h is not None), 64)
        return -(-halo // self.stride) * self.stride
