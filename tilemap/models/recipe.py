"""What is to be run: which models, and how often each looks at a patch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tilemap.models import registry
from tilemap.models.card import ModelCard
from tilemap.models.engines import Settings, engine_for
from tilemap.models.ensemble import Ensemble, combined_card
from tilemap.models.protocol import Model
from tilemap.models.registry import ModelRef
from tilemap.models.tta import TURNS, Augmented, check_mode


@dataclass(frozen=True)
class Recipe:
    """One model or several, plain or augmented; small, and travels to any process.

    Args:
        members: found and not yet loaded, one or more; their mean is mapped.
        tta: "none", "flips" or "rotations".

    Raises:
        ModelError: if the members do not fit together.
        UsageError: if there is no such augmentation.
    """

    members: tuple[ModelRef, ...]
    tta: str = "none"

    def __post_init__(self) -> None:
        check_mode(self.tta)
        _ = self.card

    @cached_property
    def card(self) -> ModelCard:
        """What the whole is: the only member's card, or the ensemble's."""
        return combined_card([member.card for member in self.members])

    @property
    def digest(self) -> str:
        """SHA-256 of the only member's weights, or of the digests of all; as the card has it."""
        return self.card.sha256

    @property
    def forwards(self) -> int:
        """Of a network, for each patch."""
        return len(self.members) * len(TURNS[self.tta])

    @property
    def one(self) -> Recipe:
        """The first member alone, plain: what a cost is compared with."""
        return Recipe(self.members[:1])

    def engine(self, settings: Settings, wanted: str = "auto") -> str:
        """What will run the members, such as ``"torch"`` or ``"torch, onnxruntime"``.

        Args:
            wanted: one of ``engines.ENGINES``.

        Raises:
            UsageError: if a member cannot be run so.
        """
        found = [engine_for(m.card, m.path, settings, wanted) for m in self.members]
        return ", ".join(dict.fromkeys(found))

    def describe(self) -> str:
        """Forwards for a person: ``8 forwards for each patch (2 models x 4 flips)``."""
        models = len(self.members)
        parts = [f"{models} models"] if models > 1 else []
        if self.tta != "none":
            parts.append(f"{len(TURNS[self.tta])} {self.tta}")
        how = f" ({' x '.join(parts)})" if parts else ""
        return f"{self.forwards} forward{'s' * (self.forwards > 1)} for each patch{how}"

    def at(self, places: Mapping[str, Path]) -> Recipe:
        """The same models where a machine has their files.

        Args:
            places: file of weights by its digest.
        """
        members = [replace(member, path=places[member.digest]) for member in self.members]
        return replace(self, members=tuple(members))

    def load(self, *arguments: Any) -> Model:
        """Every member through ``registry.load``, as one model.

        Args:
            arguments: what ``registry.load`` takes after the model.

        Raises:
            TilemapError: whatever it raises.
        """
        models = [registry.load(member, *arguments) for member in self.members]
        model: Model = models[0] if len(models) == 1 else Ensemble(models)
        return model if self.tta == "none" else Augmented(model, self.tta)
