"""Makes the sample store of each scene, or takes the one that was made from the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from tilemap.directory import digest_of
from tilemap.errors import ConfigError, SceneError
from tilemap.identity import raster_identity, scene_identity
from tilemap.run_plan import check_units
from tilemap.scene import Scene
from tilemap.stores.fingerprint import Inputs, files_of
from tilemap.stores.geotiff import SceneSource, open_scene
from tilemap.stores.opening import plain_path
from tilemap.stores.rasters import describe
from tilemap.stores.sensors import canonical
from tilemap.stores.vectors import is_vector
from tilemap.training.config import SceneConfig, TrainingConfig
from tilemap.training.labels import IGNORE, SceneLabels, label_key, open_labels
from tilemap.training.sample_store import (
    CHUNK,
    ChunkCache,
    SampleStore,
    SampleWriter,
    chunk_windows,
    is_made_from,
)
from tilemap.training.teaching import Lesson, find_teacher, load_teacher, plan_lesson, teach

if TYPE_CHECKING:
    from tilemap.models.protocol import Model

FORMAT = 1
"""Of the sample store; another one is made anew."""
GDAL_CACHE_MB = 64
Tell = Callable[[str], None]


@dataclass(frozen=True)
class SceneSamples:
    """One scene that has passed every check that needs no pixels.

    Args:
        wanted: its entry in the configuration.
        source: the scene with the bands of the model.
        labels: what is known of it; None if only a teacher knows.
        lesson: how a teacher sees it; None without one.
        inputs: the files that it is made from.
        digest: of everything it is made from.
    """

    wanted: SceneConfig
    source: SceneSource
    labels: SceneLabels | None
    lesson: Lesson | None
    inputs: Inputs
    digest: str

    @property
    def files(self) -> list[dict[str, Any]]:
        """The files for the record, with their names."""
        labels = _files_of(self.wanted.labels)
        return [
            {"role": _role(file.path, self.source, labels), "name": file.name} | file.record()
            for file in self.inputs.files
        ]

    @property
    def scene(self) -> Scene:
        """Its grid and bands."""
        return self.source.scene

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return (*self.source.warnings, *(self.labels.notes if self.labels else ()))


def open_scenes(config: TrainingConfig) -> tuple[SceneSamples, ...]:
    """Every scene of a configuration, checked; touches nothing.

    Raises:
        TilemapError: of the kind that fits.
    """
    teacher = find_teacher(config)
    bands = None if config.model.bands is None else tuple(map(canonical, config.model.bands))
    found: list[SceneSamples] = []
    for wanted in config.scenes:
        source = open_scene(wanted.request(bands))
        bands = source.scene.band_names
        check_units(source, config.model.units, "the model")
        labels = None if wanted.labels is None else open_labels(source.scene, wanted, config)
        lesson = None if teacher is None else plan_lesson(teacher, wanted, source.scene)
        taught = () if lesson is None else lesson.source.files
        beside = (*_files_of(wanted.labels), *_files_of(wanted.area))
        inputs = Inputs.of((*source.files, *taught, *beside), source.remote)
        digest = _digest(config, wanted, source, lesson, inputs)
        found.append(SceneSamples(wanted, source, labels, lesson, inputs, digest))
    return tuple(found)


def _files_of(path: str | None) -> tuple[str, ...]:
    return () if path is None else files_of(path)


def _role(path: str, source: SceneSource, labels: tuple[str, ...]) -> str:
    if path in labels:
        return "labels"
    return "scene" if path in source.files else "area"


def _digest(
    config: TrainingConfig,
    wanted: SceneConfig,
    source: SceneSource,
    lesson: Lesson | None,
    inputs: Inputs,
) -> str:
    """Name of the samples of a scene; files enter by content, wherever they are."""
    label, area = wanted.labels, wanted.area
    raster = label is not None and not is_vector(label)
    return digest_of(
        {
            "format": FORMAT,
            **scene_identity(source, inputs),
            "label_files": inputs.records(_files_of(label)),
            "label_raster": raster_identity(describe(str(plain_path(label or ""))), inputs)
            if raster
            else None,
            "area_files": inputs.records(_files_of(area)),
            "labels": wanted.model_dump(
                mode="json", include={"layer", "column", "background", "area_layer", "area_split"}
            ),
            "classes": [[c.name, [label_key(v) for v in c.meanings]] for c in config.classes],
            "ignored": [label_key(v) for v in config.ignore_labels],
            "teacher": None
            if lesson is None
            else [
                lesson.teacher.ref.card.identity(),
                dataclasses.asdict(lesson.grid),
                scene_identity(lesson.source, inputs),
            ],
        }
    )


def make_samples(
    scenes: tuple[SceneSamples, ...], config: TrainingConfig, folder: Path, tell: Tell
) -> tuple[SampleStore, ...]:
    """The store of each scene, made where it is not there yet.

    Args:
        scenes: from ``open_scenes``.
        config: the whole.
        folder: where stores lie.
        tell: told what takes time.

    Raises:
        SceneError: if a label value is of no class, or a scene has no labelled pixel.
    """
    cache = ChunkCache()
    model: Model | None = None
    stores = []
    for number, one in enumerate(scenes):
        path = folder / f"scene-{number}.zarr"
        if not is_made_from(path, one.digest):
            if one.lesson is not None and model is None:
                model = load_teacher(one.lesson.teacher, config.training.device)
            tell(f"reading {one.scene.name}, {one.scene.shape[0]} x {one.scene.shape[1]} pixels")
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB):  # else a share of the machine's memory
                _make(path, one, model)
        stores.append(SampleStore(path, one.scene, cache))
    return tuple(stores)


def _make(path: Path, one: SceneSamples, model: Model | None) -> None:
    classes, chunk = 0, CHUNK
    if one.lesson is not None:
        classes, chunk = len(one.lesson.teacher.order), one.lesson.grid.core
    by_area = one.labels is not None and one.labels.by_area
    writer = SampleWriter(path, one.scene, by_area, classes, chunk)
    labelled = 0
    with one.source.open() as reader:
        for row, col, window in chunk_windows(one.scene.shape):
            image, valid = reader.read(window)
            writer.write("image", row, col, image)
            writer.write("valid", row, col, valid)
            if one.labels is not None:
                label, part = one.labels.read(window)
                label[~valid] = IGNORE
                labelled += int(np.count_nonzero(label != IGNORE))
                writer.write("label", row, col, label)
                if part is not None:
                    writer.write("part", row, col, part)
    if one.labels is not None:
        one.labels.labels.check()
        if not labelled:
            raise SceneError(
                f"{one.scene.name} must have pixels that are observed and labelled, "
                f"{Path(one.wanted.labels or '').name} labels none"
            )
    if one.lesson is not None and model is not None:
        teach(one.lesson, model, writer)
        _label_where_taught(writer, one.labels is not None)
    one.inputs.confirm()
    writer.finish(one.digest)


def _label_where_taught(writer: SampleWriter, labelled: bool) -> None:
    """Labels only where the teacher says something; where nobody else does, its own."""
    for row, col, window in chunk_windows(writer.scene.shape):
        teacher = writer.read("teacher", window)
        if labelled:
            label = writer.read("label", window).copy()
        else:
            label = teacher.argmax(axis=0).astype(np.uint8)
            label[~writer.read("valid", window)] = IGNORE
        label[~teacher.any(axis=0)] = IGNORE
        writer.write("label", row, col, label)


def check_crop(config: TrainingConfig, stride: int) -> None:
    """Crops are what the network takes.

    Raises:
        ConfigError: if not.
    """
    crop = config.sampling.crop
    if crop % stride:
        near = max(stride, round(crop / stride) * stride)
        raise ConfigError(
            f"sampling.crop must be a multiple of {stride} pixels for {config.model.arch}, got "
            f"{crop}; {near} is near"
        )
