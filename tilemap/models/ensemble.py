"""Ensembles: the mean probability of models that map the same classes from the same bands."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tilemap.errors import ModelError
from tilemap.geometry import Window
from tilemap.models.card import ModelCard
from tilemap.models.protocol import FloatArray, Model, check_image

_UNKNOWN_MARGIN = 64
"""Pixels a member of unknown reach counts for; ``ModelCard.default_halo`` has it too."""


class Ensemble:
    """Several models as one.

    The patch comes standardised by the first card. For every other member it is brought to that
    one's mean and deviation and order of bands; pixels that are 0 in every band, which were not
    observed, stay 0. Sums are float32 in the order of the members.

    Args:
        models: two or more, loaded.
        weights: of each, above 0, any sum; None for equal ones.

    Raises:
        ModelError: if the models do not fit together, or the weights do not fit the models.
    """

    def __init__(self, models: Sequence[Model], weights: Sequence[float] | None = None) -> None:
        self._models = tuple(models)
        self._card = combined_card([model.card for model in self._models])
        shares = (1.0,) * len(self._models) if weights is None else tuple(weights)
        if len(shares) != len(self._models) or min(shares) <= 0 or not math.isfinite(sum(shares)):
            raise ModelError(
                f"an ensemble of {len(self._models)} models needs as many weights above 0, "
                f"got {shares}"
            )
        self._weights = [np.float32(share / sum(shares)) for share in shares]
        self._inputs = [_Input(self._card, model.card) for model in self._models]
        self._classes = [_order(self._card, model.card) for model in self._models]

    @property
    def card(self) -> ModelCard:
        """See ``combined_card``."""
        return self._card

    @property
    def backend(self) -> str:
        """For the record of the run."""
        return "; ".join(dict.fromkeys(model.backend for model in self._models))

    def predict(self, image: FloatArray, crop: Window | None = None) -> FloatArray:
        """See ``protocol.Model.predict``."""
        check_image(self._card, image)
        total: FloatArray | None = None
        members = zip(self._models, self._inputs, self._classes, self._weights, strict=True)
        for model, prepare, classes, weight in members:
            said = model.predict(prepare(image), crop)
            if total is None:
                total = np.empty_like(said)
                np.multiply(said[classes], weight, out=total)
                continue
            for plane, index in zip(total, classes, strict=True):
                plane += said[index] * weight
        assert total is not None
        return total


class _Input:
    """A patch standardised by one card to one standardised by another."""

    def __init__(self, first: ModelCard, card: ModelCard) -> None:
        self._bands = [first.bands.index(band) for band in card.bands]
        mean, std = _scaling(first)
        own_mean, own_std = _scaling(card)
        # (z * s + m - m') / s' in float64, so that equal cards change no bit
        self._scale = std[self._bands] / own_std
        self._shift = (mean[self._bands] - own_mean) / own_std
        same = np.all(self._scale == 1) and np.all(self._shift == 0)
        self._identity = bool(same) and self._bands == sorted(self._bands)

    def __call__(self, image: FloatArray) -> FloatArray:
        if self._identity:
            return image
        out = np.empty_like(image)
        for band, source in enumerate(self._bands):
            np.multiply(image[source], np.float32(self._scale[band]), out=out[band])
            out[band] += np.float32(self._shift[band])
        if self._shift.any():
            out[:, ~image.any(axis=0)] = 0.0
        return out


def _scaling(card: ModelCard) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    bands = len(card.bands)
    mean, std = card.mean or (0.0,) * bands, card.std or (1.0,) * bands
    return np.array(mean, dtype=np.float64), np.array(std, dtype=np.float64)


def _order(first: ModelCard, card: ModelCard) -> list[int]:
    """Where the first card's classes stand in another's output."""
    places = {(c.value, c.name): index for index, c in enumerate(card.classes)}
    return [places[c.value, c.name] for c in first.classes]


def combined_card(cards: Sequence[ModelCard]) -> ModelCard:
    """The card of an ensemble.

    Bands, their scaling and the classes are the first card's. The stride is the least common
    multiple, the patch the one that a member insists on, context and halo the largest.

    Args:
        cards: of the members, in their order.

    Returns:
        That of the only one as it is, else a new card; its digest is that of theirs.

    Raises:
        ModelError: in one line, naming the first two that do not fit together.
    """
    if not cards:
        raise ModelError("an ensemble must have at least one model, got none")
    first, *others = cards
    if not others:
        return first
    for card in others:
        _check_pair(first, card)
    stride = math.lcm(*(card.stride for card in cards))
    context = None
    if all(card.context is not None for card in cards):
        context = max(card.context or 0 for card in cards)
    return ModelCard(
        name="-and-".join(card.name for card in cards),
        title="Mean of " + ", ".join(card.title for card in cards),
        description="The mean probability of " + ", ".join(card.name for card in cards) + ".",
        license=" AND ".join(dict.fromkeys(card.license for card in cards)),
        bands=first.bands,
        units=first.units,
        mean=first.mean,
        std=first.std,
        patch=_patch(cards, stride),
        stride=stride,
        activation="softmax",
        classes=first.classes,
        context=context,
        halo=_halo(cards),
        training_data=tuple(dict.fromkeys(text for card in cards for text in card.training_data)),
        trained_on=tuple(dict.fromkeys(scene for card in cards for scene in card.trained_on)),
        weights="members",
        sha256=hashlib.sha256("".join(card.sha256 for card in cards).encode()).hexdigest(),
    )


def _check_pair(first: ModelCard, card: ModelCard) -> None:
    for what, one, two in (
        ("bands", sorted(first.bands), sorted(card.bands)),
        ("units", first.units, card.units),
        ("classes", _classes(first), _classes(card)),
    ):
        if one != two:
            shown = [", ".join(v) if isinstance(v, list) else v for v in (one, two)]
            raise ModelError(
                f"models of an ensemble must have the same {what}: {first.name} has {shown[0]}; "
                f"{card.name} has {shown[1]}"
            )


def _classes(card: ModelCard) -> list[str]:
    return [f"{c.value} {c.name}" for c in sorted(card.classes, key=lambda c: c.value)]


def _patch(cards: Sequence[ModelCard], stride: int) -> int | None:
    fixed = [card for card in cards if card.patch is not None]
    for one, two in pairwise(fixed):
        if one.patch != two.patch:
            raise ModelError(
                f"models of an ensemble must share a patch: {one.name} takes {one.patch} pixels "
                f"only, {two.name} {two.patch}"
            )
    patch = fixed[0].patch if fixed else None
    if patch is not None and patch % stride:
        other = next(card for card in cards if patch % card.stride)
        raise ModelError(
            f"models of an ensemble must share a patch: {fixed[0].name} takes {patch} pixels "
            f"only, {other.name} multiples of {other.stride}"
        )
    return patch


def _halo(cards: Sequence[ModelCard]) -> int | None:
    """The largest margin; one that is not known counts for what a run would give it."""
    margins = [card.halo if card.context is None else card.context for card in cards]
    if all(margin is None for margin in margins):
        return None
    return max(_UNKNOWN_MARGIN if margin is None else margin for margin in margins)
