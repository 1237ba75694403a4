"""Ensembles: a weighted mean in float64 says the same, whatever order classes and bands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import ModelError, UsageError
from tilemap.geometry import Window
from tilemap.models import registry
from tilemap.models.card import ModelCard
from tilemap.models.ensemble import Ensemble, combined_card
from tilemap.models.recipe import Recipe
from tilemap.models.registry import ModelRef
from tilemap.testing import load_toy, random_scene, toy_card

CARD = toy_card(context=2)
MEAN, STD = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25, 0.125])


def _changed(card: ModelCard, **changes: Any) -> ModelCard:
    return ModelCard.model_validate({**card.model_dump(), **changes})


def _standard(image: np.ndarray, card: ModelCard, names: tuple[str, ...]) -> np.ndarray:
    """Reflectance by band name to what a card's model takes, in float64."""
    planes = []
    for index, band in enumerate(card.bands):
        mean = card.mean[index] if card.mean else 0.0
        std = card.std[index] if card.std else 1.0
        planes.append((image[names.index(band)] - mean) / std)
    return np.stack(planes).astype(np.float32)


@given(
    st.permutations(CARD.bands),
    st.permutations(CARD.classes),
    st.lists(st.floats(0.1, 9), min_size=2, max_size=2),
    st.integers(0, 50),
)
def test_is_the_weighted_mean_of_what_each_says_of_its_own_input(
    bands: list[str], classes: list[Any], weights: list[float], seed: int
) -> None:
    """Two cards with other orders and scalings; classes sum to 1."""
    first = _changed(CARD, mean=tuple(MEAN), std=tuple(STD))
    second = _changed(
        toy_card(context=2, seed=seed + 1),
        bands=bands, classes=classes, mean=(0.2, -0.1, 0.4), std=(0.3, 0.6, 0.9), name="other",
    )  # fmt: skip
    image = random_scene((20, 28), seed=seed, dtype=np.float64)
    models = [load_toy(first), load_toy(second)]
    got = Ensemble(models, weights).predict(_standard(image, first, CARD.bands))
    said = [
        model.predict(_standard(image, model.card, CARD.bands)).astype(np.float64)
        for model in models
    ]
    order = [list(second.classes).index(c) for c in first.classes]
    want = (weights[0] * said[0] + weights[1] * said[1][order]) / sum(weights)
    # The other way to standardise rounds elsewhere, and the toy's scores are steep.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    assert np.abs(got - want).mean() < 1e-6
    np.testing.assert_allclose(got.sum(axis=0), 1, rtol=0, atol=1e-6)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


def test_a_model_with_itself_is_itself() -> None:
    """Bit for bit; a crop is a part of the whole."""
    model = load_toy(CARD)
    image = random_scene((16, 24), dtype=np.float32)
    both = Ensemble([model, model])
    whole = both.predict(image)
    np.testing.assert_array_equal(whole, model.predict(image))
    crop = Window(3, 5, 11, 20)
    np.testing.assert_array_equal(both.predict(image, crop), whole[:, *crop.slices()])
    assert both.backend == model.backend


def test_what_was_not_observed_stays_zero() -> None:
    """For every member, though its mean differs; an observed 0 in one band is no hole."""
    seen: list[np.ndarray] = []

    class Watched:
        """A toy that remembers what it was shown."""

        def __init__(self, card: ModelCard) -> None:
            self.card = card
            self.backend = "watched"
            self._toy = load_toy(card)

        def predict(self, image: np.ndarray, crop: Window | None = None) -> np.ndarray:
            seen.append(image)
            return self._toy.predict(image, crop)

    second = _changed(CARD, mean=tuple(MEAN), std=tuple(STD))
    image = random_scene((16, 24), dtype=np.float32)
    image[:, 4:7, 5:9] = 0
    image[1, 12, 12] = 0
    Ensemble([Watched(CARD), Watched(second)]).predict(image)
    np.testing.assert_array_equal(seen[0], image)
    assert (seen[1][:, 4:7, 5:9] == 0).all()
    assert seen[1][1, 12, 12] == pytest.approx(-MEAN[1] / STD[1])
    assert (seen[1] == 0).all(axis=0).sum() == 12


def test_the_card_has_what_both_need() -> None:
    """Least common stride, largest margin, the patch one insists on, both licences once."""
    one = _changed(CARD, stride=4, context=None, halo=20, name="one", license="MIT")
    two = _changed(CARD, stride=6, context=33, sha256="1" * 64, name="two", patch=48)
    card = combined_card([one, two])
    assert (card.stride, card.halo, card.context, card.patch) == (12, 33, None, 48)
    assert card.name == "one-and-two"
    assert card.license == "MIT AND Apache-2.0"
    assert card.temperature == 1
    assert combined_card([two, one]).sha256 != card.sha256
    assert combined_card([two, _changed(two, context=40)]).context == 40
    assert combined_card([one, _changed(one, halo=None)]).halo == 64
    assert combined_card([_changed(one, halo=None)] * 2).halo is None
    assert combined_card([one]) is one


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bands": ("red", "green", "blue")}, "the same bands: toy-box has green, nir, red; other"),
        ({"units": "stored"}, "the same units: toy-box has reflectance; other has stored"),
        ({"classes": toy_card(classes=3).classes}, "same classes: toy-box has 1 class 1, 2"),
        ({"patch": 60, "stride": 6}, "share a patch: toy-box takes 64 pixels only, other 60"),
        ({"stride": 24}, "share a patch: toy-box takes 64 pixels only, other multiples of 24"),
    ],
)
def test_what_does_not_fit_together_is_said(change: dict[str, Any], says: str) -> None:
    """Both are named, in one line."""
    first = _changed(CARD, stride=8, patch=64)
    other = _changed(CARD, name="other", **change)
    with pytest.raises(ModelError, match=says) as caught:
        combined_card([first, other])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("inf")]])
def test_weights_must_fit(weights: list[float]) -> None:
    """One for each model, above 0."""
    with pytest.raises(ModelError, match="as many weights above 0"):
        Ensemble([load_toy(CARD)] * 2, weights)


def _ref(card: ModelCard) -> ModelRef:
    return ModelRef(card, Path("toy.none"), card.sha256, Path("model.json"))


def test_a_recipe_tells_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards, digest, and one loaded model."""
    monkeypatch.setattr(registry, "load", lambda ref, *_: load_toy(ref.card))
    first, second = _ref(CARD), _ref(_changed(CARD, sha256="1" * 64))
    assert Recipe((first,)).describe() == "1 forward for each patch"
    both = Recipe((first, second), "flips")
    assert both.describe() == "8 forwards for each patch (2 models x 4 flips)"
    assert Recipe((first,), "rotations").describe() == "8 forwards for each patch (8 rotations)"
    assert Recipe((first,)).digest == first.digest
    assert len({both.digest, Recipe((second, first)).digest, first.digest, second.digest}) == 4
    assert both.one == Recipe((first,))
    image = random_scene((16, 24), dtype=np.float32)
    np.testing.assert_array_equal(
        Recipe((first,)).load().predict(image), load_toy(CARD).predict(image)
    )
    assert both.load("cpu", "float32", 1).backend == "toy float64 cpu, flips"
    assert both.load().card == both.card


def test_recipes_that_cannot_be_are_refused() -> None:
    """When they are written down, not in a worker."""
    with pytest.raises(UsageError, match="tta must be one of"):
        Recipe((_ref(CARD),), "mirror")
    with pytest.raises(ModelError, match="same classes"):
        Recipe((_ref(CARD), _ref(toy_card(classes=3))))
    with pytest.raises(ModelError, match="at least one"):
        Recipe(())
