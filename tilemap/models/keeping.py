"""Models that a process holds: one for all runs that use it, the last one for the run to come."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from tilemap.models.protocol import Model
from tilemap.models.recipe import Recipe


@dataclass
class HeldModel:
    """A loaded model.

    Args:
        model: what ``Recipe.load`` gave.
        lock: held by the thread that calls it: a process runs one forward at a time.
        users: runs that have taken it.
    """

    model: Model
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class ModelShelf:
    """Loaded models by what they are and how they are run.

    A model that nobody uses stays until another one is loaded, so that of models without users
    there is never more than one in memory.
    """

    def __init__(self) -> None:
        self._held: dict[Any, HeldModel] = {}
        self._lock = threading.Lock()

    def take(self, recipe: Recipe, *arguments: Any) -> HeldModel:
        """The model, loaded if it is not there yet; to be given back.

        Args:
            recipe: which.
            arguments: what ``Recipe.load`` takes.

        Raises:
            TilemapError: whatever loading raises.
        """
        members = tuple((m.digest, m.card.model_dump_json()) for m in recipe.members)
        key = (members, recipe.tta, arguments)
        with self._lock:
            held = self._held.get(key)
            if held is None:
                self._held = {k: one for k, one in self._held.items() if one.users}
                held = self._held[key] = HeldModel(recipe.load(*arguments))
            held.users += 1
            return held

    def give_back(self, held: HeldModel) -> None:
        """A run needs it no more."""
        with self._lock:
            held.users -= 1
