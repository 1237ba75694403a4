"""What a teacher says of a scene: its probabilities, once, in overlapping patches as in a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tilemap.errors import ConfigError, SceneError
from tilemap.geometry import TileGrid, Window, round_up
from tilemap.models import registry
from tilemap.models.registry import ModelRef
from tilemap.run_plan import GridSettings, check_units, choose_grid
from tilemap.scene import Scene, check_same_grid
from tilemap.stages.segment import round_probability, standardise
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneSource, open_scene
from tilemap.training.config import SceneConfig, TrainingConfig
from tilemap.training.sample_store import CHUNK, SampleWriter

if TYPE_CHECKING:
    from tilemap.models.protocol import Model


@dataclass(frozen=True)
class Teacher:
    """A model that is learned from.

    Args:
        ref: where it is.
        order: for each class of the configuration, its position in the teacher's output.
    """

    ref: ModelRef
    order: tuple[int, ...]


@dataclass(frozen=True)
class Lesson:
    """What one scene needs to be taught.

    Args:
        teacher: the model.
        source: the scene with the teacher's bands.
        grid: patches; a core is a chunk of what is written.
    """

    teacher: Teacher
    source: SceneSource
    grid: TileGrid


def find_teacher(config: TrainingConfig) -> Teacher | None:
    """The teacher a configuration names, if it names one.

    Raises:
        ModelError: if there is no such model.
        ConfigError: if its classes are others.
    """
    if config.distillation is None:
        return None
    ref = registry.resolve(config.distillation.teacher)
    theirs = [c.name for c in ref.card.classes]
    ours = [c.name for c in config.classes]
    if sorted(theirs) != sorted(ours):
        raise ConfigError(
            f"classes must be those of the teacher, {ref.card.name} has {', '.join(theirs)}, the "
            f"configuration {', '.join(ours)}"
        )
    return Teacher(ref, tuple(theirs.index(name) for name in ours))


def plan_lesson(teacher: Teacher, wanted: SceneConfig, scene: Scene) -> Lesson:
    """How a scene is shown to the teacher; reads no pixels.

    Args:
        teacher: the model.
        wanted: the scene's entry in the configuration.
        scene: as the student sees it.

    Raises:
        SceneError: if the files lack a band of the teacher, or give it another grid.
    """
    card = teacher.ref.card
    source = open_scene(dataclasses.replace(wanted.request(), bands=card.bands))
    check_units(source, card.units, card.name)
    try:
        check_same_grid(scene, source.scene)
    except SceneError as error:
        raise SceneError(
            f"teacher and student must see {scene.name} on one grid ({error}); give the scene a "
            "resolution or like"
        ) from None
    core = None if card.patch is not None else round_up(CHUNK, card.stride)
    return Lesson(teacher, source, choose_grid(scene.shape, card, GridSettings(core=core)))


def load_teacher(teacher: Teacher, device: str) -> Model:
    """The model, ready to run.

    Args:
        teacher: from ``find_teacher``.
        device: "auto", "cpu" or "cuda".
    """
    if device == "auto":
        import torch

        onnx = teacher.ref.path.suffix == ".onnx"
        device = "cuda" if torch.cuda.is_available() and not onnx else "cpu"
    from tilemap.cluster import usable_cores

    threads = usable_cores() if device == "cpu" else 1
    return registry.load(teacher.ref, device=device, threads=threads)


def teach(lesson: Lesson, model: Model, writer: SampleWriter) -> None:
    """Write the teacher's probabilities of a scene, 0 where it has not seen all of its bands.

    Args:
        lesson: from ``plan_lesson``.
        model: the teacher, loaded.
        writer: has an array ``teacher`` whose chunks are the cores of the lesson.
    """
    grid, order = lesson.grid, list(lesson.teacher.order)
    with lesson.source.open() as reader:
        for tile in grid.tiles():
            patch, core = grid.patch_window(tile), grid.core_window(tile)
            image, valid = read_patch(reader, patch)
            standard = standardise(image, valid, reader.scene, model.card)
            rows, cols = core.within(patch)
            crop = Window(rows.start, cols.start, rows.stop, cols.stop)
            half = round_probability(model.predict(standard, crop))[order]
            half[:, ~valid[rows, cols]] = 0
            writer.write("teacher", tile.row, tile.col, np.ascontiguousarray(half))
