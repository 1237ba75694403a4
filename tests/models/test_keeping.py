"""The shelf of models: loaded once, shared, and never more than one that nobody uses."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tilemap.errors import ModelError
from tilemap.models.keeping import ModelShelf
from tilemap.testing import toy_card


@dataclass
class Counted:
    """A recipe that counts how often it is loaded."""

    seed: int
    tta: str = "none"
    loads: int = 0
    broken: bool = False

    @property
    def members(self) -> tuple[Any, ...]:
        """One."""
        return (SimpleNamespace(digest=f"d{self.seed}", card=toy_card(seed=self.seed)),)

    def load(self, *arguments: Any) -> Any:
        """A model, whatever it is."""
        if self.broken:
            raise ModelError("cannot be loaded")
        self.loads += 1
        return (self.seed, arguments)


def test_runs_share_a_model() -> None:
    """Two at once and one after them: one model, one lock, loaded once."""
    shelf, recipe = ModelShelf(), Counted(1)
    one, two = shelf.take(recipe, "cpu"), shelf.take(recipe, "cpu")
    assert one is two
    shelf.give_back(one)
    shelf.give_back(two)
    assert shelf.take(recipe, "cpu") is one
    assert recipe.loads == 1


def test_how_it_is_run_makes_another_model() -> None:
    """Another device, other weights, another augmentation."""
    shelf = ModelShelf()
    held = [
        shelf.take(Counted(1), "cpu"),
        shelf.take(Counted(1), "cuda"),
        shelf.take(Counted(2), "cpu"),
        shelf.take(Counted(1, tta="flips"), "cpu"),
    ]
    assert len({id(one) for one in held}) == 4


def test_only_the_last_unused_one_stays() -> None:
    """A model nobody uses goes before another is loaded; one that is used stays."""
    shelf, used, unused, last = ModelShelf(), Counted(1), Counted(2), Counted(3)
    shelf.take(used)
    shelf.give_back(shelf.take(unused))
    shelf.give_back(shelf.take(last))
    shelf.take(used)
    shelf.take(last)
    shelf.take(unused)
    assert (used.loads, last.loads, unused.loads) == (1, 1, 2)


def test_a_model_that_cannot_be_loaded_leaves_nothing() -> None:
    """The next try loads it."""
    shelf, recipe = ModelShelf(), Counted(1, broken=True)
    with pytest.raises(ModelError):
        shelf.take(recipe)
    recipe.broken = False
    shelf.take(recipe)
    assert recipe.loads == 1
