"""What tests share: hypothesis strategies, scenes without symmetry, toy models. Tests only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tilemap.errors import ModelError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.models.card import ClassInfo, ModelCard
from tilemap.probability import quantise

if TYPE_CHECKING:
    from affine import Affine

    from tilemap.models.protocol import Model
    from tilemap.stages.tile import WindowReader
    from tilemap.stores.predictions import HalfArray, Side
    from tilemap.training.samples import Batch, Block
    from tilemap.training.split import Part

FloatArray = npt.NDArray[np.float32]

# --- strategies --------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, low: int = -40, high: int = 60, longest: int = 40) -> Window:
    """Windows of 0..longest pixels a side that begin in ``low..high``; some of them empty."""
    top, left = draw(st.integers(low, high)), draw(st.integers(low, high))
    height, width = draw(st.integers(0, longest)), draw(st.integers(0, longest))
    return Window(top, left, top + height, left + width)


@st.composite
def grids(draw: st.DrawFn, longest: int = 70, strides: Sequence[int] = (1, 2, 3, 8)) -> TileGrid:
    """Valid grids over scenes of 1..longest pixels a side, ragged edges and one tile included."""
    stride = draw(st.sampled_from(strides))
    core = stride * draw(st.integers(1, max(1, 24 // stride)))
    halo = stride * draw(st.integers(0, max(1, 12 // stride)))
    return TileGrid(
        scene=(draw(st.integers(1, longest)), draw(st.integers(1, longest))),
        core=core,
        halo=halo,
        blend=draw(st.integers(0, min(halo, core // 2))),
        stride=stride,
        fixed=draw(st.booleans()),
    )


# --- scenes ------------------------------------------------------------------------------------


def random_scene(
    shape: tuple[int, int] = (75, 110),
    bands: int = 3,
    seed: int = 0,
    dtype: npt.DTypeLike = np.uint16,
) -> npt.NDArray[np.generic]:
    """A made-up scene: waves, a slope and noise, different in every band and direction.

    Args:
        shape: rows and columns; better oblong and odd, so that a swapped axis shows.
        bands: number of bands.
        seed: of the noise and of the waves' direction and phase.
        dtype: an integer type is filled with reflectance * 10000 (or * 255 if it has 8 bits), a
            floating one with reflectance.

    Returns:
        (band, y, x) of that dtype; never 0, so that 0 may mean nodata.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    planes = []
    for _ in range(bands):
        down, right, phase = rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.25), rng.uniform(0, 6)
        wave = np.sin(down * y + right * x + phase) * np.cos(right * y - 0.5 * down * x)
        slope = 0.15 * y / shape[0] + 0.3 * x / shape[1]
        noise = rng.uniform(0, 0.05, shape)
        planes.append(np.clip(0.25 + 0.25 * wave + slope + noise, 0.01, 1.0))
    scene = np.stack(planes)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return scene.astype(dtype)
    stored: npt.NDArray[np.generic] = np.rint(scene * (255 if dtype.itemsize == 1 else 10000))
    return stored.astype(dtype)


def write_geotiff(
    path: Path,
    array: npt.NDArray[np.generic],
    *,
    crs: str | None = "EPSG:32618",
    transform: Affine | None = None,
    names: Sequence[str] = (),
    scale: float | None = None,
    **profile: object,
) -> Path:
    """Write an array as a GeoTIFF.

    Args:
        path: of the new file.
        array: (band, y, x).
        crs: None for a plain image.
        transform: default 10 m pixels, north up, from (400000, 4100000).
        names: band descriptions.
        scale: declared for every band, with offset 0.
        profile: more of rasterio's creation options, such as ``nodata``.

    Returns:
        The path.
    """
    import rasterio
    from affine import Affine

    if transform is None:
        transform = Affine(10, 0, 400_000, 0, -10, 4_100_000)
    count, height, width = array.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=array.dtype.name,
        crs=crs,
        transform=transform,
        **profile,
    ) as file:
        file.write(array)
        for index, name in enumerate(names, 1):
            file.set_band_description(index, name)
        if scale is not None:
            file.scales = (scale,) * count
            file.offsets = (0.0,) * count
    return path


# --- toy models --------------------------------------------------------------------------------

_COLORS = ("#1f78b4", "#33a02c", "#e31a1c", "#ff7f00", "#6a3d9a", "#b15928", "#a6cee3", "#b2df8a")


def toy_card(
    model: str = "box",
    *,
    bands: Sequence[str] = ("red", "green", "nir"),
    classes: int = 4,
    context: int = 3,
    stride: int = 1,
    patch: int | None = None,
    seed: int = 0,
) -> ModelCard:
    """A card that :func:`load_toy` makes a model of; it travels to a Dask worker by itself.

    Args:
        model: "box" (looks exactly ``context`` pixels around each pixel) or "pool" (the same, and
            the mean of the whole patch: no bound).
        bands: common names.
        classes: 2 to 8; class i has value i + 1, so that order and value cannot be confused.
        context: pixels.
        stride: the card's; the toy itself has none.
        patch: the card's only size, if it has one.
        seed: of the weights.
    """
    return ModelCard(
        name=f"toy-{model}",
        title="Toy",
        description="No meaning, but known properties.",
        license="Apache-2.0",
        bands=tuple(bands),
        patch=patch,
        stride=stride,
        activation="softmax",
        classes=tuple(
            ClassInfo(value=index + 1, name=f"class {index + 1}", color=_COLORS[index])
            for index in range(classes)
        ),
        architecture={"toy": model, "context": context, "seed": seed},
        context=context if model == "box" else None,
        weights="toy.none",
        sha256="0" * 64,
    )


def load_toy(card: ModelCard) -> Model:
    """The model of a :func:`toy_card`; a module-level function, so workers find it by name.

    Raises:
        ModelError: if it is no such card.
    """
    toys: dict[str, type[BoxModel]] = {"box": BoxModel, "pool": PoolingModel}
    name = str(card.architecture.get("toy"))
    if name not in toys:
        raise ModelError(f"a toy must be one of {', '.join(toys)}, got {name}")
    return toys[name](card)


class BoxModel:
    """Box mean of the (2 * context + 1)^2 pixels around each, then the nearest of seeded centres.

    Each class has a centre between 0.15 and 0.75 in every band; its probability falls with the
    fourth power of the distance, so that on reflectance every class wins somewhere.

    Beyond the patch it sees zeros, as a convolution does, so that too small a halo shows. Only
    sums, products and quotients of single pixels in a fixed order, in float64: equal
    neighbourhoods give equal bits wherever they lie in whatever patch.

    Args:
        card: of :func:`toy_card`.
    """

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._context = int(card.architecture["context"])
        rng = np.random.default_rng(int(card.architecture["seed"]))
        levels = np.linspace(0.15, 0.75, len(card.classes))
        self._centres = np.stack([rng.permutation(levels) for _ in card.bands], axis=1)

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self._card

    @property
    def backend(self) -> str:
        """For the record of the run."""
        return "toy float64 cpu"

    def _features(self, image: FloatArray) -> npt.NDArray[np.float64]:
        """Box mean, float64 (band, y, x)."""
        k = self._context
        sums: npt.NDArray[np.float64] = np.pad(image.astype(np.float64), ((0, 0), (k, k), (k, k)))
        for axis in (1, 2):
            length = sums.shape[axis] - 2 * k
            shifted = [np.take(sums, range(i, i + length), axis) for i in range(2 * k + 1)]
            sums = shifted[0]
            for part in shifted[1:]:
                sums = sums + part
        return np.asarray(sums / (2 * k + 1) ** 2)

    def predict(self, image: FloatArray, crop: Window | None = None) -> FloatArray:
        """Probabilities of one patch; see :class:`tilemap.models.protocol.Model`."""
        card = self._card
        height, width = image.shape[1:]
        if image.shape[0] != len(card.bands) or height % card.stride or width % card.stride:
            raise ModelError(
                f"a patch must be ({len(card.bands)}, y, x) with y and x multiples of "
                f"{card.stride}, got {image.shape}"
            )
        if card.patch is not None and (height, width) != (card.patch, card.patch):
            raise ModelError(f"a patch must have {card.patch} pixels a side, got {image.shape}")
        features = self._features(image)
        scores = []
        for centre in self._centres:
            distance = np.full((height, width), 1e-3)
            for at, plane in zip(centre, features, strict=True):
                distance = distance + (plane - at) * (plane - at)
            # no exp: its rounding may depend on the position
            scores.append(1.0 / (distance * distance))
        total = scores[0]
        for score in scores[1:]:
            total = total + score
        probability = np.stack([score / total for score in scores]).astype(np.float32)
        if crop is None:
            return probability
        return np.ascontiguousarray(probability[:, *crop.slices()])


class PoolingModel(BoxModel):
    """A box model that also sees the mean of its whole patch: its context has no bound."""

    def _features(self, image: FloatArray) -> npt.NDArray[np.float64]:
        pooled = image.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        return np.asarray(super()._features(image) + 0.25 * (pooled - 0.4))


# --- training without scenes -------------------------------------------------------------------


class ToyData:
    """What a training asks of its data, made up: fields of 8 pixels, a level for each class.

    Args:
        seed: of everything.
        crop: side of the crops, pixels; a multiple of 8.
        size: crops in a batch.
        classes: 2 to 8.
        noise: of a pixel, where 1 is the distance of two classes.
        blocks: of each part.
        broken: the step whose batch holds a NaN, if any.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        crop: int = 32,
        size: int = 2,
        classes: int = 3,
        noise: float = 0.5,
        blocks: int = 2,
        broken: int | None = None,
    ) -> None:
        self.seed, self.crop, self.size, self.number = seed, crop, size, classes
        self.noise, self.of_part, self.broken = noise, blocks, broken
        self.classes = toy_card(classes=classes).classes
        self.counts = np.full((3, classes), crop * crop, np.int64)
        self.counts[:, 0] *= 3

    def _field(self, key: Sequence[int], side: int) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
        """Two bands, and the class of each pixel; a tenth of them ignored."""
        random = np.random.default_rng([self.seed, *key])
        small = random.integers(0, self.number, (side // 8, side // 8))
        label = np.kron(small, np.ones((8, 8), np.int64))
        image = random.normal(0, self.noise, (2, side, side))
        image[0] += label - (self.number - 1) / 2
        label[random.random(label.shape) < 0.1] = 255
        return image.astype(np.float32), label.astype(np.uint8)

    def batch(self, step: int) -> Batch:
        """The batch of a step; see ``tilemap.training.samples``."""
        from tilemap.training.samples import Batch

        parts = [self._field((0, step, index), self.crop) for index in range(self.size)]
        image = np.stack([one for one, _ in parts])
        if step == self.broken:
            image[0, 0, 3, 3] = np.nan
        places = tuple(f"toy rows {step}, cols {index}" for index in range(self.size))
        return Batch(image, np.stack([label for _, label in parts]), None, places)

    def blocks(self, part: Part) -> Iterator[Block]:
        """Blocks of a part, each with a margin of 8 pixels."""
        from tilemap.training.samples import Block

        inner = Window(8, 8, 2 * self.crop - 8, 2 * self.crop - 8)
        for index in range(self.of_part):
            image, label = self._field((1, int(part), index), 2 * self.crop)
            kept = np.ascontiguousarray(label[inner.slices()])
            yield Block(image, kept, inner, None, f"toy {part.name} {index}")


def write_toy_scene(folder: Path, shape: tuple[int, int] = (160, 224)) -> dict[str, Any]:
    """``scene.tif`` of two bands, ``labels.tif``, and a configuration that learns from them.

    Fields of 16 pixels; the first band is 1000 times the label, with noise; label 0 is no class.

    Returns:
        The table of a quick training of the classes 1 and 2, for ``parse_config``.
    """
    random = np.random.default_rng(0)
    small = random.integers(1, 3, (shape[0] // 16, shape[1] // 16))
    label = np.kron(small, np.ones((16, 16), np.int64))
    image = random.normal(0, 200, (2, *label.shape)) + 2000
    image[0] += 1000 * label
    label[random.random(label.shape) < 0.1] = 0
    write_geotiff(folder / "scene.tif", image.astype(np.uint16), names=("red", "nir"), scale=1e-4)
    write_geotiff(folder / "labels.tif", label.astype(np.uint8)[None], nodata=0)
    return {
        "name": "toy",
        "scenes": [{"files": ["scene.tif"], "labels": "labels.tif"}],
        "classes": [{"name": "low", "value": 1}, {"name": "high field", "value": 2}],
        "model": {"arch": "unet", "encoder": "resnet18", "width": 4},
        "split": {"block": 32},
        "sampling": {"crop": 32, "batch": 2},
        "training": {
            "steps": 8, "rate": 1e-2, "validate_every": 4, "checkpoint_every": 3, "device": "cpu",
        },
    }  # fmt: skip


def write_config(path: Path, table: dict[str, Any]) -> Path:
    """A table of tables, lists of tables and plain values as TOML; the path."""
    plain = {k: v for k, v in table.items() if not _is_table(v)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in table.items():
        for one in value if isinstance(value, list) else [value]:
            if _is_table(value):
                lines.append(f"[[{key}]]" if isinstance(value, list) else f"[{key}]")
                lines += [f"{name} = {json.dumps(given)}" for name, given in one.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


# --- the pipeline without a cluster ------------------------------------------------------------


def map_in_memory(
    reader: WindowReader, model: Model, grid: TileGrid
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Every tile through the kernels of the stages, in this process and without a store.

    Returns:
        Map value and confidence, uint8 (y, x) of the scene.
    """
    from tilemap.stages.segment import segment_patch, standardise
    from tilemap.stages.stitch import needed_bands, stitch_core
    from tilemap.stages.tile import read_patch

    predictions = {}
    for tile in grid.tiles():
        image, valid = read_patch(reader, grid.patch_window(tile))
        standard = standardise(image, valid, reader.scene, model.card)
        predictions[tile] = segment_patch(grid, tile, standard, valid, model)
    values = tuple(c.value for c in model.card.classes)
    landcover = np.empty(grid.scene, dtype=np.uint8)
    confidence = np.empty(grid.scene, dtype=np.uint8)
    for tile in grid.tiles():
        frames: dict[Tile, dict[Side, HalfArray]] = {}
        for neighbour, side in needed_bands(grid, tile):
            frames.setdefault(neighbour, {})[side] = predictions[neighbour].frame[side]
        own = predictions[tile]
        core = stitch_core(grid, tile, (own.label, own.confidence), frames, values)
        place = grid.core_window(tile).slices()
        landcover[place], confidence[place] = core.landcover, core.confidence
    return landcover, confidence


def tiled_probability(reader: WindowReader, model: Model, grid: TileGrid) -> FloatArray:
    """Probabilities of every core as the model gives them, neither rounded nor blended."""
    from tilemap.stages.segment import standardise
    from tilemap.stages.tile import read_patch

    out = np.empty((len(model.card.classes), *grid.scene), dtype=np.float32)
    for tile in grid.tiles():
        patch, core = grid.patch_window(tile), grid.core_window(tile)
        standard = standardise(*read_patch(reader, patch), reader.scene, model.card)
        rows, cols = core.within(patch)
        crop = Window(rows.start, cols.start, rows.stop, cols.stop)
        out[:, *core.slices()] = model.predict(standard, crop)
    return out


# --- a series with truth -----------------------------------------------------------------------

ERRORS = ("independent", "static", "epochs", "seasons", "misregistration", "all")
"""How the errors of dates may hang together, see ``simulate_change``."""


@dataclass(frozen=True)
class TrueSeries:
    """A landscape whose changes are known, and what a model says of each date.

    Args:
        truth: class at each date, int64 (date, pixel).
        posterior: probability, float64 (date, class, pixel), of each date calibrated.
        days: of the dates, days since 1970-01-01, int64 (date,).
        epochs: name of the sensor of each date.
        shape: rows and columns of the pixels.
    """

    truth: npt.NDArray[np.int64]
    posterior: npt.NDArray[np.float64]
    days: npt.NDArray[np.int64]
    epochs: tuple[str, ...]
    shape: tuple[int, int]

    @property
    def quantised(self) -> npt.NDArray[np.uint8]:
        """Probability as it is stored, uint8 (date, class, pixel)."""
        return quantise(self.posterior)

    @property
    def changed(self) -> npt.NDArray[np.bool_]:
        """Pixels that changed at least once, (pixel,)."""
        found: npt.NDArray[np.bool_] = (self.truth != self.truth[0]).any(axis=0)
        return found


def simulate_change(
    errors: str,
    shape: tuple[int, int] = (200, 310),
    classes: int = 5,
    dates: int = 8,
    rate: float = 0.01,
    seed: int = 0,
) -> TrueSeries:
    """Simulate yearly dates of patches that change, seen with errors of one kind.

    A pixel is a mixture where patches meet; its class is the one that covers most of it. Logits
    are the covered shares times a signal, plus Gaussian noise of variance 1. The kinds part the
    noise otherwise among the dates; each date alone is the same for all of them:

    - independent: each date has its own;
    - static: 0.2 of the variance is the same at all dates;
    - epochs: 0.5 is shared by the dates of a sensor, of which there are two, one after the other;
    - seasons: 0.5 is shared by each second date;
    - misregistration: each second date lies 0.3 pixels off, in rows and in columns;
    - all: static 0.2, epochs 0.35, seasons 0.15, and misregistration.

    Probabilities are calibrated by a temperature, for pure and for mixed pixels apart, that the
    log loss against the truth of that very date chooses.

    Args:
        errors: one of ``ERRORS``.
        shape: rows and columns.
        classes: K.
        dates: T.
        rate: share of the pixels that change in a year.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    fine = _patches(random, shape, classes, dates, rate)
    straight = [_cover(one, classes, 0.0) for one in fine]  # (class, pixel) each
    shifted = errors in ("misregistration", "all")
    seen = [
        _cover(one, classes, 0.3) if shifted and t % 2 else straight[t]
        for t, one in enumerate(fine)
    ]
    parts = {
        "static": (0.2, 0.0, 0.0), "epochs": (0.0, 0.5, 0.0), "seasons": (0.0, 0.0, 0.5),
        "all": (0.2, 0.35, 0.15),
    }.get(errors, (0.0, 0.0, 0.0))  # fmt: skip
    epoch = [f"sensor {1 + 2 * t // dates}" for t in range(dates)]
    groups = (["all"] * dates, epoch, [str(t % 2) for t in range(dates)])
    pixels = shape[0] * shape[1]
    logits = np.sqrt(1 - sum(parts)) * random.normal(size=(dates, classes, pixels))
    for share, group in zip(parts, groups, strict=True):
        noise = {name: random.normal(size=(classes, pixels)) for name in dict.fromkeys(group)}
        logits += np.sqrt(share) * np.stack([noise[name] for name in group])
    logits += _SIGNAL * np.stack(seen)
    own = np.stack([one.argmax(axis=0) for one in seen])
    purity = np.digitize(np.stack(seen).max(axis=1), (0.6, 0.8, 0.999))
    posterior = np.empty_like(logits)
    for group_of in range(4):
        t, i = np.nonzero(purity == group_of)
        posterior[t, :, i] = _calibrated(logits[t, :, i], own[t, i])
    days = np.array([round((t + 40) * 365.2425) for t in range(dates)])
    truth = np.stack([one.argmax(axis=0) for one in straight])
    return TrueSeries(truth, posterior, days, tuple(epoch), shape)


_SIGNAL, _FINE = 2.2, 3


def _patches(
    random: np.random.Generator, shape: tuple[int, int], classes: int, dates: int, rate: float
) -> list[npt.NDArray[np.int64]]:
    """Class of each date in thirds of a pixel, one pixel more at the end of each axis."""
    from scipy.ndimage import gaussian_filter

    size = ((shape[0] + 1) * _FINE, (shape[1] + 1) * _FINE)

    def blobs(width: float) -> npt.NDArray[np.float64]:
        smooth: npt.NDArray[np.float64] = gaussian_filter(random.normal(size=size), width)
        return smooth

    found = [np.stack([blobs(8 * _FINE) for _ in range(classes)]).argmax(axis=0)]
    for _ in range(dates - 1):
        field = blobs(3 * _FINE)
        step = np.stack([blobs(8 * _FINE) for _ in range(classes - 1)]).argmax(axis=0) + 1
        changes = field > np.quantile(field, 1 - rate)
        found.append(np.where(changes, (found[-1] + step) % classes, found[-1]))
    return found


def _cover(fine: npt.NDArray[np.int64], classes: int, shift: float) -> npt.NDArray[np.float64]:
    """Share of each pixel that each class covers, the pixels moved down and right by a shift."""
    rows, cols = fine.shape[0] // _FINE - 1, fine.shape[1] // _FINE - 1
    part = np.clip(np.arange(2 * _FINE) + 1 - shift * _FINE, 0, 1)
    weight = part - np.clip(np.arange(2 * _FINE) + 1 - (shift + 1) * _FINE, 0, 1)
    covered = np.zeros((classes, rows, cols))
    for k in range(classes):
        inside = (fine == k).astype(np.float64)
        tall = sum(w * inside[i::_FINE][:rows] for i, w in enumerate(weight))
        covered[k] = sum(w * tall[:, i::_FINE][:, :cols] for i, w in enumerate(weight)) / _FINE**2
    return covered.reshape(classes, -1)


def _calibrated(
    logits: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Probabilities of the temperature that makes the truth likeliest, (pixel, class)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax

    part = slice(None, None, max(len(truth) // 20_000, 1))

    def loss(scale: float) -> float:
        told = log_softmax(scale * logits[part], axis=1)
        return -float(told[np.arange(len(told)), truth[part]].mean())

    found = minimize_scalar(loss, bounds=(0.0, 6.0), method="bounded")
    return np.asarray(softmax(found.x * logits, axis=1))
