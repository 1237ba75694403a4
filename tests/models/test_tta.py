"""Test-time augmentation: commutes with every turn, and is the plain mean it claims to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemap.errors import UsageError
from tilemap.geometry import TileGrid, Window
from tilemap.models.tta import TURNS, Augmented, check_mode
from tilemap.stages.tile import WindowReader
from tilemap.testing import (
    BoxModel,
    load_toy,
    map_in_memory,
    random_scene,
    tiled_probability,
    toy_card,
)

BY_NUMPY: dict[str, tuple[Any, ...]] = {
    "none": (lambda a: a,),
    "flips": (
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[:, :, ::-1],
        lambda a: np.rot90(a, 2, (1, 2)),
    ),
}
BY_NUMPY["rotations"] = (
    *BY_NUMPY["flips"],
    lambda a: np.rot90(a, 1, (1, 2)),
    lambda a: np.rot90(a, 3, (1, 2)),
    lambda a: a.transpose(0, 2, 1),
    lambda a: np.rot90(a.transpose(0, 2, 1), 2, (1, 2)),
)
BACK: dict[str, tuple[Any, ...]] = {
    "flips": BY_NUMPY["flips"],
    "rotations": (
        *BY_NUMPY["flips"],
        lambda a: np.rot90(a, -1, (1, 2)),
        lambda a: np.rot90(a, -3, (1, 2)),
        lambda a: a.transpose(0, 2, 1),
        lambda a: np.rot90(a.transpose(0, 2, 1), 2, (1, 2)),
    ),
}


class LeaningModel(BoxModel):
    """A toy that looks up, and less to the left: no symmetry at all, its context doubled."""

    def _features(self, image: np.ndarray) -> np.ndarray:
        k = self._context
        seen = np.pad(super()._features(image), ((0, 0), (k, 0), (k // 2, 0)))
        return seen[:, : image.shape[1], : image.shape[2]] * 0.7 + 0.3 * super()._features(image)


def leaning(**changes: Any) -> LeaningModel:
    """The toy, its card saying how far it looks."""
    card = toy_card(context=2, **changes)
    return LeaningModel(card)


@pytest.mark.parametrize("mode", ["flips", "rotations"])
def test_is_the_mean_over_numpys_own_turns(mode: str) -> None:
    """Against numpy's rot90 and transpose, in float64; an oblong patch."""
    model, image = leaning(), random_scene((24, 40), dtype=np.float32)
    got = Augmented(model, mode).predict(image)
    parts = [
        back(model.predict(np.ascontiguousarray(turn(image))).astype(np.float64))
        for turn, back in zip(BY_NUMPY[mode], BACK[mode], strict=True)
    ]
    np.testing.assert_allclose(got, np.mean(parts, axis=0), rtol=0, atol=1e-6)
    assert len(TURNS[mode]) == len(parts) == {"flips": 4, "rotations": 8}[mode]
    assert np.abs(got - model.predict(image)).max() > 0.01  # the toy is not symmetric by itself
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


@pytest.mark.parametrize("mode", ["flips", "rotations"])
def test_commutes_with_every_turn_of_its_group(mode: str) -> None:
    """A turned patch gives the turned map, up to the order of a float32 sum; without it not."""
    model, image = leaning(), random_scene((24, 40), dtype=np.float32)
    mapped = Augmented(model, mode).predict(image)
    plain = model.predict(image)
    for turn in TURNS[mode]:
        turned = np.ascontiguousarray(turn.apply(image))
        got = Augmented(model, mode).predict(turned)
        np.testing.assert_allclose(got, turn.apply(mapped), rtol=0, atol=1e-6)
        if turn != TURNS["none"][0]:
            assert np.abs(model.predict(turned) - turn.apply(plain)).max() > 1e-3


@settings(max_examples=25)
@given(
    st.sampled_from(["none", "flips", "rotations"]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.data(),
)
def test_a_crop_is_a_part_of_the_whole(
    mode: str, rows: int, cols: int, draw: st.DataObject
) -> None:
    """Bit for bit, wherever it lies in an oblong patch; classes sum to 1."""
    shape = (8 * rows, 8 * cols)
    image = random_scene(shape, seed=rows, dtype=np.float32)
    model = Augmented(leaning(stride=8), mode)
    top, left = draw.draw(st.integers(0, shape[0] - 1)), draw.draw(st.integers(0, shape[1] - 1))
    bottom = draw.draw(st.integers(top + 1, shape[0]))
    right = draw.draw(st.integers(left + 1, shape[1]))
    crop = Window(top, left, bottom, right)
    whole = model.predict(image)
    np.testing.assert_array_equal(model.predict(image, crop), whole[:, *crop.slices()])
    np.testing.assert_allclose(whole.sum(axis=0), 1, rtol=0, atol=1e-6)


def test_turns_are_a_group() -> None:
    """Eight different images of a square without symmetry; undo is the inverse; closed."""
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    square = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    images = [turn.apply(square) for turn in TURNS["rotations"]]
    assert len({image.tobytes() for image in images}) == 8
    for mode in ("flips", "rotations"):
        made = {turn.apply(square).tobytes() for turn in TURNS[mode]}
        for one in TURNS[mode]:
            np.testing.assert_array_equal(one.undo(one.apply(image)), image)
            again = {two.apply(one.apply(square)).tobytes() for two in TURNS[mode]}
            assert again == made


class _Reader:
    """A scene in memory."""

    def __init__(self, image: np.ndarray) -> None:
        from affine import Affine
        from odc.geo.geobox import GeoBox

        from tilemap.scene import Band, Scene

        geobox = GeoBox(image.shape[1:], Affine(10, 0, 0, 0, -10, 0), "EPSG:32618")
        self.scene = Scene(geobox, (Band("red", "float32"),) * len(image), "memory")
        self._image = image

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        pixels = self._image[:, *window.slices()]
        return pixels, np.ones(window.shape, dtype=np.bool_)


@pytest.mark.parametrize("mode", ["flips", "rotations"])
def test_the_cut_leaves_no_trace(mode: str) -> None:
    """Whatever the core, with halo for the context: equal maps, and equal to few large tiles."""
    reader: WindowReader = _Reader(random_scene((75, 110), dtype=np.float32))
    model = Augmented(leaning(stride=4), mode)
    maps = [
        map_in_memory(reader, model, TileGrid((75, 110), core, 8, 4, stride=4))
        for core in (16, 40, 128)
    ]
    for label, confidence in maps[1:]:
        np.testing.assert_array_equal(label, maps[0][0])
        np.testing.assert_array_equal(confidence, maps[0][1])
    probability = tiled_probability(reader, model, TileGrid((75, 110), 40, 8, 4, stride=4))
    assert np.unique(probability.argmax(axis=0)).size > 1


def test_none_changes_nothing() -> None:
    """One forward, the model's own bits."""
    model = load_toy(toy_card())
    image = random_scene((16, 24), dtype=np.float32)
    np.testing.assert_array_equal(Augmented(model, "none").predict(image), model.predict(image))
    assert Augmented(model, "flips").card is model.card
    assert Augmented(model, "flips").backend == "toy float64 cpu, flips"


def test_another_mode_is_a_usage_error() -> None:
    """It says which there are."""
    with pytest.raises(UsageError, match="none, flips, rotations, got 'mirror'"):
        Augmented(load_toy(toy_card()), "mirror")
    assert check_mode("flips") == "flips"
