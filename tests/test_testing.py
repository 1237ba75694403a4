"""The toys keep what they promise; else every test built on them proves nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import ModelError
from tilemap.geometry import Window
from tilemap.models.protocol import Model
from tilemap.testing import load_toy, random_scene, toy_card, write_geotiff

SCENE = random_scene((60, 83), 3, seed=1, dtype=np.float32)


@given(
    context=st.integers(0, 5),
    top=st.integers(0, 20),
    left=st.integers(0, 30),
    height=st.integers(12, 40),
    width=st.integers(12, 50),
)
def test_box_model_sees_exactly_its_context(
    context: int, top: int, left: int, height: int, width: int
) -> None:
    """Bits equal the whole scene's, ``context`` pixels from the patch's edge; not nearer."""
    model: Model = load_toy(toy_card(context=context))
    whole = model.predict(SCENE)
    window = Window(top, left, top + height, left + width)
    inner = window.grow(-context)
    part = model.predict(np.ascontiguousarray(SCENE[:, *window.slices()]))
    assert np.array_equal(part[:, *inner.within(window)], whole[:, *inner.slices()])
    if context:
        edge = np.s_[:, :, context - 1]
        assert not np.array_equal(part[edge], whole[:, *window.slices()][edge]) or left == 0


@pytest.mark.parametrize("name", ["box", "pool"])
def test_toys_give_probabilities_of_several_classes(name: str) -> None:
    """Float32, C-contiguous, 0..1, sum 1; more than one class wins; a crop is the part."""
    model = load_toy(toy_card(name, classes=5))
    whole = model.predict(SCENE)
    assert whole.dtype == np.float32
    assert whole.shape == (5, 60, 83)
    assert whole.min() >= 0
    np.testing.assert_allclose(whole.sum(axis=0), 1, atol=1e-6)
    assert len(np.unique(whole.argmax(axis=0))) >= 3
    part = model.predict(SCENE, Window(3, 5, 30, 50))
    assert part.flags.c_contiguous
    assert np.array_equal(part, whole[:, 3:30, 5:50])


def test_pooling_model_has_no_bounded_context() -> None:
    """A change in one corner reaches the opposite one."""
    model = load_toy(toy_card("pool"))
    moved = SCENE.copy()
    moved[:, 0, 0] += 5
    assert not np.array_equal(model.predict(SCENE)[:, -1, -1], model.predict(moved)[:, -1, -1])


def test_a_toy_travels_by_name() -> None:
    """Card and factory survive pickling, as on their way to a worker."""
    load, card = pickle.loads(pickle.dumps((load_toy, toy_card(context=2, seed=4))))
    assert np.array_equal(
        load(card).predict(SCENE), load_toy(toy_card(context=2, seed=4)).predict(SCENE)
    )


@pytest.mark.parametrize(
    ("card", "shape", "said"),
    [
        (toy_card(), (2, 8, 8), "must be (3, y, x)"),
        (toy_card(stride=8), (3, 8, 12), "multiples of 8"),
        (toy_card(patch=16), (3, 16, 8), "16 pixels a side"),
    ],
)
def test_a_toy_refuses_what_its_card_does_not_take(card, shape, said) -> None:  # type: ignore[no-untyped-def]
    """Wrong bands, wrong multiple, wrong fixed size."""
    with pytest.raises(ModelError) as error:
        load_toy(card).predict(np.zeros(shape, np.float32))
    assert said in str(error.value)


def test_an_unknown_toy_is_refused() -> None:
    """The card must name one of the toys."""
    with pytest.raises(ModelError, match="got mystery"):
        load_toy(toy_card("mystery"))


def test_random_scene_has_no_symmetry() -> None:
    """No flip or turn, no other band and no other seed gives the same pixels."""
    scene = random_scene((40, 40), 2, seed=3)
    for other in (scene[:, ::-1], scene[:, :, ::-1], scene.swapaxes(1, 2), scene[::-1]):
        assert np.mean(scene == other) < 0.05
    assert np.mean(scene == random_scene((40, 40), 2, seed=4)) < 0.05
    assert scene.min() > 0


def test_write_geotiff_is_read_back_by_rasterio(tmp_path: Path) -> None:
    """Pixels, grid, names, scale and nodata arrive."""
    array = random_scene((31, 45), 2, seed=2)
    path = write_geotiff(
        tmp_path / "a.tif", array, names=("red", "nir"), scale=0.0001, nodata=0, compress="deflate"
    )
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), array)
        assert file.crs.to_epsg() == 32618
        assert tuple(file.transform)[:6] == (10, 0, 400_000, 0, -10, 4_100_000)
        assert file.descriptions == ("red", "nir")
        assert file.scales == (0.0001, 0.0001)
        assert file.nodata == 0
