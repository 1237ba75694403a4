"""What the loop learns from: batches as a function of the step, and blocks that are held out."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tilemap.area import CellArea
from tilemap.errors import OutputError, TilemapError
from tilemap.files import system_error
from tilemap.geometry import Window, round_up
from tilemap.models.card import BandStatistics, ClassInfo, ModelCard
from tilemap.models.registry import file_sha256
from tilemap.models.trained_on import Part, TrainedArea, TrainedScene, encode_blocks
from tilemap.stages.segment import standardise
from tilemap.stages.tile import read_patch
from tilemap.stores.grids import whole
from tilemap.training.augment import vary
from tilemap.training.config import TrainingConfig
from tilemap.training.counting import Counted, count_samples
from tilemap.training.cropping import Crop, cut, place_window
from tilemap.training.drawing import Spots
from tilemap.training.labels import IGNORE
from tilemap.training.making import SceneSamples, check_crop, make_samples, open_scenes
from tilemap.training.pose import draw_pose, strike
from tilemap.training.tally import SceneParts

__all__ = ["IGNORE", "Batch", "Block", "TrainingData", "prepare_data"]

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
FOLDER = "samples"
_MARGIN = 64  # pixels a model sees around a block that is held out


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Args:
        image: float32 (batch, band, y, x), standardised, 0 where not observed or held out.
        label: class index, uint8 (batch, y, x), IGNORE where there is no loss.
        teacher: probability, float32 (batch, class, y, x), where there is a teacher; where no
            label is known but the teacher's, ``label`` is its most probable class.
        places: where each crop was taken, for messages.
    """

    image: FloatArray
    label: ByteArray
    teacher: FloatArray | None
    places: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A block that is held out, with what a model sees around it.

    Args:
        image: float32 (band, y, x), standardised, sides multiples of the network's stride.
        label: class index, uint8 (y, x) of ``inner``, IGNORE where not of this part.
        inner: the block, in pixels of ``image``.
        teacher: probability, float32 (class, y, x) of ``inner``, where there is a teacher.
        place: where it lies, for messages.
    """

    image: FloatArray
    label: ByteArray
    inner: Window
    teacher: FloatArray | None
    place: str


class TrainingData:
    """Samples of all scenes; made by ``prepare_data``.

    ``batch`` depends on the configuration and the step alone, so a training that is resumed needs
    no state of a generator. It may be called from several threads.

    Attributes:
        classes: in the order of the output.
        bands: common names, in the order of the input.
        mean: per band, of observed pixels of the training part; that of the model that is gone on
            with, where there is one in the same units, since its weights know no other.
        std: likewise, above 0.
        statistics: per band, of observed pixels of the training part.
        gsd_m: smallest and largest true side of a pixel, metres; None without a CRS.
        counts: labelled pixels, int64 (part, class): training, validation, test.
        notes: what the user should know.
        units: "reflectance" or "stored".
        stride: sides of crops and blocks are multiples of it.
    """

    def __init__(
        self,
        config: TrainingConfig,
        scenes: tuple[SceneSamples, ...],
        counted: Counted,
        stride: int,
        start: ModelCard | None = None,
    ) -> None:
        self._config, self._scenes, self._counted = config, scenes, counted
        self._start = start
        self.stride = stride
        self.units = config.model.units
        self.classes: tuple[ClassInfo, ...] = config.class_infos
        self.bands = scenes[0].scene.band_names
        self.statistics: tuple[BandStatistics, ...] = counted.statistics
        self.mean = tuple(one.mean for one in counted.statistics)
        self.std = self._spread = tuple(one.std for one in counted.statistics)
        if start is not None and (start.units, start.bands) == (self.units, self.bands):
            self.mean, self.std = start.mean or self.mean, start.std or self.std
        self.counts = counted.counts
        self.gsd_m = _ground_sample_distance(scenes)
        notes = [note for one in scenes for note in one.notes]
        self.notes = tuple(dict.fromkeys([*notes, *counted.notes]))
        self._spots = Spots(counted.parts, counted.tallies, [one.wanted.weight for one in scenes])
        self._card = self._input_card()

    def batch(self, step: int) -> Batch:
        """What step ``step`` learns from: the same whenever it is asked for.

        Raises:
            StoreError: if a chunk of the samples is damaged.
        """
        drawn = [self._draw(step, index) for index in range(self._config.sampling.batch)]
        crops = [crop for crop, _ in drawn]
        teachers = [crop.teacher for crop in crops if crop.teacher is not None]
        return Batch(
            image=np.stack([crop.image for crop in crops]),
            label=np.stack([crop.label for crop in crops]),
            teacher=np.stack(teachers) if teachers else None,
            places=tuple(place for _, place in drawn),
        )

    def _draw(self, step: int, index: int) -> tuple[Crop, str]:
        """One crop, standardised, and its place."""
        config = self._config
        random = np.random.default_rng([config.seed, step, index])
        spot = self._spots.draw(random, config.sampling.balanced)
        parts = self._counted.parts[spot.scene]
        side = config.sampling.crop
        pose = draw_pose(random, config.augment)
        read = pose.source_side(side)
        window = place_window(spot, parts.store.scene.shape, read, read)
        crop = strike(cut(parts, window, self.units == "reflectance"), pose, side)
        std = np.array(self._spread, dtype=np.float32)
        image = vary(crop.image, crop.valid, self.bands, std, config.augment, random)
        dtype: Any = parts.store.scene.dtype
        if self.units == "stored" and np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            image = np.clip(image, limits.min, limits.max)
        crop = Crop(self._standardised(image, crop.valid), crop.valid, crop.label, crop.teacher)
        return crop, self._place(spot.scene, window)

    def _standardised(self, image: FloatArray, valid: npt.NDArray[np.bool_]) -> FloatArray:
        mean = np.array(self.mean, dtype=np.float32)[:, None, None]
        std = np.array(self.std, dtype=np.float32)[:, None, None]
        out = (image - mean) / std
        np.copyto(out, 0, where=~valid)
        return out

    def blocks(self, part: Part) -> Iterator[Block]:
        """Every block of a part that has labelled pixels, scene by scene, row by row.

        Around it the model sees what it would see in production, of whatever part that is.
        """
        for number, tally in enumerate(self._counted.tallies):
            for row, col in np.argwhere(tally.blocks[:, :, part] > 0):
                yield self._block(number, int(row), int(col), part)

    def _block(self, number: int, row: int, col: int, part: Part) -> Block:
        parts = self._counted.parts[number]
        store = parts.store
        window = parts.block_window(row, col)
        margin = round_up(_MARGIN, self.stride)
        height, width = (round_up(side, self.stride) for side in window.shape)
        patch = Window(window.top, window.left, window.top + height, window.left + width)
        image, valid = read_patch(store, patch.grow(margin))
        return Block(
            image=standardise(image, valid, store.scene, self._card),
            label=parts.label(window, part),
            inner=Window(margin, margin, margin + window.height, margin + window.width),
            teacher=store.teacher(window).astype(np.float32) if store.taught else None,
            place=self._place(number, window),
        )

    def record(self) -> dict[str, Any]:
        """What the model was trained on, for its card and ``train.json``."""
        return {
            "scenes": [
                {
                    "name": one.scene.name,
                    "shape": list(one.scene.shape),
                    "crs": None if one.scene.geobox.crs is None else str(one.scene.geobox.crs),
                    "files": list(one.files),
                    "samples": one.digest,
                    "counts": tally.counts.tolist(),
                }
                for one, tally in zip(self._scenes, self._counted.tallies, strict=True)
            ],
            "classes": [one.name for one in self.classes],
            "bands": list(self.bands),
            "units": self.units,
            "counts": self.counts.tolist(),
            "split": dataclasses.asdict(self._config.blocks),
            "gsd_m": None if self.gsd_m is None else list(self.gsd_m),
            "notes": list(self.notes),
        }

    def trained_on(self) -> tuple[TrainedScene, ...]:
        """Scenes and blocks for the card; those of the model that is gone on with stay."""
        pairs = zip(self._scenes, self._counted.parts, strict=True)
        own = [_trained_scene(one, parts) for one, parts in pairs]
        before = () if self._start is None else self._start.trained_on
        return tuple(dict.fromkeys([*before, *own]))

    def _place(self, number: int, window: Window) -> str:
        name = Path(self._scenes[number].wanted.files[0]).name
        return f"{name} rows {window.top}-{window.bottom}, cols {window.left}-{window.right}"

    def _input_card(self) -> ModelCard:
        """What ``standardise`` asks of a card; it has no weights yet."""
        return ModelCard(
            name=self._config.name, title="", description="", license="", bands=self.bands,
            units=self.units, mean=self.mean, std=self.std, stride=self.stride,
            classes=self.classes, weights="none", sha256="0" * 64,
        )  # fmt: skip


def prepare_data(
    config: TrainingConfig, out: Path, tell: Callable[[str], None] = lambda text: None
) -> TrainingData:
    """Check a configuration against its files and make the samples, or take those of before.

    Args:
        config: from ``load_config``.
        out: directory of the training; samples go into its folder ``samples``.
        tell: told, in a line, of what takes time.

    Raises:
        TilemapError: of the kind that fits; nothing is left on the disk then that was not there.
    """
    from tilemap.training.start import check_weights, find_start, stride_for

    stride = stride_for(config)
    check_crop(config, stride)
    check_weights(config)
    scenes = open_scenes(config)
    folder = out / FOLDER
    new = [path for path in (folder, out) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise system_error(f"{folder}: cannot be made", error, kind=OutputError) from error
    try:
        stores = make_samples(scenes, config, folder, tell)
        counted = count_samples(scenes, stores, config, folder, tell)
        begun = find_start(config)
        return TrainingData(config, scenes, counted, stride, None if begun is None else begun.card)
    except TilemapError:
        if folder in new:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            for partial in folder.glob("*.partial"):
                shutil.rmtree(partial, ignore_errors=True)
        if out in new and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise


def _trained_scene(one: SceneSamples, parts: SceneParts) -> TrainedScene:
    geobox, labels = one.scene.geobox, one.wanted.labels
    areas: tuple[TrainedArea, ...] = ()
    if parts.blocks is None:
        assert one.labels is not None
        assert one.labels.area is not None
        areas = tuple(
            TrainedArea.model_validate(
                {
                    "part": Part(value - 1).name.lower(),
                    "wkt": shapely.to_wkt(geometry, rounding_precision=-1),
                }
            )
            for geometry, value in one.labels.area.polygons
        )
    rows, cols = one.scene.shape
    return TrainedScene(
        crs=None if geobox.crs is None else str(geobox.crs),
        transform=tuple(geobox.affine)[:6],
        shape=(rows, cols),
        block=parts.block,
        blocks="" if parts.blocks is None else encode_blocks(parts.blocks),
        areas=areas,
        labels=None if labels is None else file_sha256(Path(labels)),
    )


def _ground_sample_distance(scenes: tuple[SceneSamples, ...]) -> tuple[float, float] | None:
    sides = []
    for one in scenes:
        area = CellArea(one.scene.geobox).mean_km2(whole(one.scene.geobox))
        if not math.isnan(area):
            sides.append(1000 * math.sqrt(area))
    return (min(sides), max(sides)) if sides else None
