"""Dates brought onto the grid of a series: the same bytes however it is cut."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.geometry import TileGrid, Window
from tilemap.probability import LEAST_LABEL, VALUES, quantise, shares
from tilemap.stages.gather import GatherReader, from_labels, to_quantised
from tilemap.stores.masks import Rule
from tilemap.stores.probabilities import ProbabilityStore, StoredClass
from tilemap.testing import write_geotiff

ROWS, COLS = 83, 111
PLACE = Affine(30, 0, 500_010, 0, -30, 9_000_000)
TARGETS = {
    "same pixels, other corner": GeoBox((70, 90), Affine(30, 0, 500_310, 0, -30, 9_000_120), 32718),
    "half a pixel away": GeoBox((70, 90), Affine(30, 0, 500_325, 0, -30, 8_999_985), 32718),
    "coarser": GeoBox((31, 40), Affine(77, 0, 500_100, 0, -77, 8_999_990), 32718),
    "turned": GeoBox((90, 90), Affine(25, 9, 500_000, 8, -26, 9_000_000), 32718),
    "degrees": GeoBox((75, 90), Affine(3e-4, 0, -74.9999, 0, -3e-4, -9.0456), 4326),
}


def _smooth(seed: int) -> np.ndarray:
    """Three probabilities that vary over some pixels; a hole that was not observed."""
    random = np.random.default_rng(seed)
    coarse = random.random((3, ROWS // 6 + 2, COLS // 6 + 2)).repeat(6, 1).repeat(6, 2)
    sure = coarse[:, :ROWS, :COLS] ** 3 + 0.01
    quantised: np.ndarray = quantise(sure / sure.sum(axis=0))
    quantised[:, 20:33, 40:49] = 255
    return quantised


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A store, a mask on another grid, and what the store holds."""
    folder = tmp_path_factory.mktemp("gather")
    planes, grid = _smooth(1), TileGrid((ROWS, COLS), 32, 16, 8)
    kinds = tuple(StoredClass(i, f"c{i}", "#010203") for i in range(3))
    geobox = GeoBox((ROWS, COLS), PLACE, 32718)
    about = {"digest": "d", "model_sha256": "s", "date": None}
    store = ProbabilityStore.make(folder / "p.zarr", grid, geobox, kinds, about)
    for tile in grid.tiles():
        store.write(tile, planes[:, *grid.core_window(tile).slices()])
    mask = np.random.default_rng(2).integers(0, 12, (1, 33, 44)).astype(np.uint8)
    write_geotiff(
        folder / "scl.tif", mask, crs="EPSG:32718", transform=Affine(70, 0, 500_200, 0, -70, 9e6)
    )
    return folder / "p.zarr", folder / "scl.tif", planes


def _reader(made: tuple[Path, Path, np.ndarray], name: str, masked: bool = False) -> GatherReader:
    rule = Rule.parse("scl") if masked else None
    return GatherReader(made[0], None, (0, 1, 2), TARGETS[name], made[1] if masked else None, rule)


def _whole(reader: GatherReader) -> Window:
    rows, cols = reader.geobox.shape
    return Window(0, 0, int(rows), int(cols))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.sampled_from(sorted(TARGETS)), st.booleans(),
    st.integers(0, 60), st.integers(0, 80), st.integers(1, 60), st.integers(1, 60),
)  # fmt: skip
def test_every_window_has_the_bytes_of_the_whole(
    made: tuple[Path, Path, np.ndarray],
    name: str, masked: bool, top: int, left: int, height: int, width: int,
) -> None:  # fmt: skip
    """Same pixels, shifted, averaged, turned, or of another CRS; masked or not."""
    reader = _reader(made, name, masked)
    whole = _whole(reader)
    window = Window(top, left, top + height, left + width).intersect(whole)
    if window.size:
        expected = reader.read(whole)[:, *window.slices()]
        np.testing.assert_array_equal(reader.read(window), expected)


def test_the_same_pixels_are_copied(made: tuple[Path, Path, np.ndarray]) -> None:
    """To the bit, 255 where the target reaches beyond the date."""
    reader = _reader(made, "same pixels, other corner")
    want = np.full((3, 70, 90), 255, np.uint8)
    want[:, 4:] = made[2][:, :66, 10:100]
    np.testing.assert_array_equal(reader.read(_whole(reader)), want)


def test_half_a_pixel_away_is_the_mean_of_four(made: tuple[Path, Path, np.ndarray]) -> None:
    """Of probabilities, and rounded once; where all four were observed."""
    reader = _reader(made, "half a pixel away")
    got = reader.read(_whole(reader))
    # centres lie on corners of the source: rows 0 and 1, columns 10 and 11 for the first
    probability = shares(made[2][:, :71, 10:101]).astype(float)
    mean = (
        probability[:, :-1, :-1] + probability[:, 1:, :-1]
        + probability[:, :-1, 1:] + probability[:, 1:, 1:]
    ) / 4  # fmt: skip
    seen = made[2][0, :71, 10:101] != 255
    clear = seen[:-1, :-1] & seen[1:, :-1] & seen[:-1, 1:] & seen[1:, 1:]
    away = np.abs(got[:, clear] - quantise(mean[:, clear]).astype(float))
    assert clear.mean() > 0.8
    assert away.max() <= 1  # the sum of four, rounded in another order, may fall beyond a half
    assert (away > 0).mean() < 0.01


@pytest.mark.parametrize("name", ["half a pixel away", "coarser", "turned", "degrees"])
def test_what_is_observed_sums_to_one_and_the_rest_is_none(
    made: tuple[Path, Path, np.ndarray], name: str
) -> None:
    """Never half a pixel observed in one class and not in another."""
    reader = _reader(made, name)
    got = reader.read(_whole(reader))
    hidden = got == 255
    np.testing.assert_array_equal(hidden.all(axis=0), hidden.any(axis=0))
    assert 0 < hidden[0].mean() < 0.5
    assert np.abs(VALUES[got[:, ~hidden[0]]].sum(axis=0) - 1).max() <= 0.02


def test_the_mask_hides_what_its_rule_says(made: tuple[Path, Path, np.ndarray]) -> None:
    """Point by point: the mask's pixel under each centre; hidden where it has none."""
    import rasterio

    reader, bare = (_reader(made, "half a pixel away", masked) for masked in (True, False))
    got, free = reader.read(_whole(reader)), bare.read(_whole(bare))
    hides = {0, 1, 3, 8, 9, 10}
    with rasterio.open(made[1]) as file:
        numbers, inverse = file.read(1), ~file.transform
    affine, compared = TARGETS["half a pixel away"].affine, 0
    for row, col in np.ndindex(got.shape[1:]):
        x = affine.c + affine.a * (col + 0.5)
        y = affine.f + affine.e * (row + 0.5)
        i = int(np.floor(inverse.e * y + inverse.f))
        j = int(np.floor(inverse.a * x + inverse.c))
        inside = 0 <= i < 33 and 0 <= j < 44
        hidden = not inside or numbers[i, j] in hides
        want = np.full(3, 255) if hidden else free[:, row, col]
        assert got[:, row, col].tolist() == want.tolist()
        compared += hidden
    assert 500 < compared < got[0].size - 500


def test_a_reader_travels_and_is_used_by_many_threads(
    made: tuple[Path, Path, np.ndarray],
) -> None:
    """Small when pickled; each thread opens its own files."""
    reader = _reader(made, "coarser", masked=True)
    assert len(pickle.dumps(reader)) < 4000
    again: GatherReader = pickle.loads(pickle.dumps(reader))
    assert again == reader
    want = reader.read(_whole(reader))
    parts = [Window(top, 0, min(top + 4, 31), 40) for top in range(0, 31, 4)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(again.read, parts))
    np.testing.assert_array_equal(np.concatenate(got, axis=1), want)


def test_a_run_made_anew_is_opened_anew(tmp_path: Path) -> None:
    """Another run in the same place is another reader, in the same thread."""
    geobox = GeoBox((5, 7), PLACE, 32718)
    for number, core in ((10, 3), (20, 64)):
        path = tmp_path / "p.zarr"
        if path.exists():
            path.rename(tmp_path / "old.zarr")
        grid = TileGrid((5, 7), core, 0, 0)
        kinds = (StoredClass(1, "a", "#000000"),)
        about = {"digest": str(number), "model_sha256": "s", "date": None}
        store = ProbabilityStore.make(path, grid, geobox, kinds, about)
        for tile in grid.tiles():
            shape = grid.core_window(tile).shape
            store.write(tile, np.full((1, *shape), number, np.uint8))
        reader = GatherReader(path, None, (1,), geobox, digest=str(number))
        assert (reader.read(Window(0, 0, 5, 7)) == number).all()


def test_a_damaged_store_is_told_and_left_alone(tmp_path: Path) -> None:
    """The error says which store and how it is mended."""
    geobox, grid = GeoBox((5, 7), PLACE, 32718), TileGrid((5, 7), 4, 0, 0)
    about = {"digest": "d", "model_sha256": "s", "date": None}
    kinds = (StoredClass(1, "a", "#000000"),)
    store = ProbabilityStore.make(tmp_path / "p.zarr", grid, geobox, kinds, about)
    store.write((0, 0), np.zeros((1, 4, 4), np.uint8))  # type: ignore[arg-type]
    reader = GatherReader(tmp_path / "p.zarr", None, (1,), geobox)
    assert not reader.read(Window(0, 0, 4, 4)).any()
    with pytest.raises(StoreError, match=r"p\.zarr.*mends it"):
        reader.read(Window(0, 0, 5, 4))


def test_quantised_and_back() -> None:
    """Probabilities of what was stored are stored as they were, to one step."""
    random = np.random.default_rng(4)
    probability = random.dirichlet([0.3] * 5, (9, 11)).transpose(2, 0, 1).astype(np.float32)
    valid = random.random((9, 11)) > 0.3
    quantised = to_quantised(probability, valid)
    np.testing.assert_array_equal(quantised[:, valid], quantise(probability)[:, valid])
    assert (quantised[:, ~valid] == 255).all()
    again = to_quantised(shares(quantised), valid)
    assert np.abs(again.astype(int) - quantised).max() <= 2
    np.testing.assert_allclose(shares(quantised)[:, valid].sum(axis=0), 1, rtol=1e-6)


def test_labels_are_certain() -> None:
    """But for a little doubt; what is 255 was not observed."""
    least = LEAST_LABEL
    got = from_labels(np.array([[0, 2, 255]], np.uint8), 3)
    assert got.tolist() == [[[254, least, 255]], [[least, least, 255]], [[least, 254, 255]]]


def test_a_pixel_without_any_probability_was_not_observed() -> None:
    """All classes at 0 is no distribution: 255, even where the pixel counts as valid."""
    probability = np.zeros((3, 2, 2), dtype=np.float32)
    probability[:, 0, 0] = 0.2, 0.2, 0.4
    probability[:, 1, 0] = 0.5, 0.5, 0.0
    valid = np.array([[True, True], [False, True]])
    quantised = to_quantised(probability, valid)
    assert VALUES[quantised[:, 0, 0]] == pytest.approx([0.25, 0.25, 0.5], abs=0.0052)
    assert (quantised[:, [0, 1, 1], [1, 0, 1]] == 255).all()
