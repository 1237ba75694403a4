"""Splits and counts the samples, or takes what was counted of the same samples before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilemap.directory import digest_of, read_json, write_json
from tilemap.errors import SceneError
from tilemap.models.card import BandStatistics
from tilemap.training.config import TrainingConfig
from tilemap.training.making import SceneSamples
from tilemap.training.sample_store import SampleStore
from tilemap.training.split import Part
from tilemap.training.tally import (
    Integers,
    SceneParts,
    SceneTally,
    band_statistics,
    split_scenes,
    tally_scene,
)

FORMAT = 1
FILE = "tally.json"


@dataclass(frozen=True)
class Counted:
    """What was counted of all samples.

    Args:
        parts: what each pixel is for, one per scene.
        tallies: labelled pixels, one per scene.
        statistics: of each band where it is trained on.
        notes: what the user should know.
    """

    parts: tuple[SceneParts, ...]
    tallies: tuple[SceneTally, ...]
    statistics: tuple[BandStatistics, ...]
    notes: tuple[str, ...]

    @property
    def counts(self) -> Integers:
        """Labelled pixels, int64 (part, class)."""
        return np.asarray(sum(tally.counts for tally in self.tallies), dtype=np.int64)


def count_samples(
    scenes: Sequence[SceneSamples],
    stores: Sequence[SampleStore],
    config: TrainingConfig,
    folder: Path,
    tell: Callable[[str], None],
) -> Counted:
    """Split the scenes and count them; kept in a file of the folder.

    Raises:
        ConfigError: if there are too few blocks.
        SceneError: if a class has no pixel to train on, and no teacher speaks of it.
    """
    identity = {
        "format": FORMAT,
        "samples": [one.digest for one in scenes],
        "split": dataclasses.asdict(config.blocks),
        "units": config.model.units,
    }
    before = read_json(folder / FILE)
    if isinstance(before, dict) and before.get("digest") == digest_of(identity):
        return _restored(before, stores, config.split.block)
    tell("counting classes and bands")
    counted = _count(stores, config)
    write_json(folder / FILE, {"digest": digest_of(identity), **_kept(counted)})
    return counted


def _count(stores: Sequence[SampleStore], config: TrainingConfig) -> Counted:
    classes = len(config.classes)
    notes: list[str] = []
    parts, split_notes = split_scenes(stores, config.blocks, classes)
    tallies = tuple(tally_scene(one, classes) for one in parts)
    counts = np.sum([tally.counts for tally in tallies], axis=0)
    for part in (Part.TRAIN, Part.VALIDATION, Part.TEST):
        lacking = [c.name for c, n in zip(config.classes, counts[part], strict=True) if not n]
        what = part.name.lower()
        if part is Part.TRAIN and lacking and config.distillation is None:
            raise SceneError(
                "every class must have labelled pixels in the training part, "
                f"{', '.join(lacking)} has none; label some, or leave the class out"
            )
        if len(lacking) == classes:
            notes.append(f"nothing is held out for {what}")
        elif lacking:
            notes.append(f"{what}: no pixel of {', '.join(lacking)}")
    statistics = band_statistics(parts, config.model.units, notes.append)
    return Counted(parts, tallies, statistics, (*split_notes, *notes))


def _kept(counted: Counted) -> dict[str, Any]:
    return {
        "blocks": [None if p.blocks is None else p.blocks.tolist() for p in counted.parts],
        "tallies": [
            {name: value.tolist() for name, value in vars(tally).items()}
            for tally in counted.tallies
        ],
        "statistics": [one.model_dump() for one in counted.statistics],
        "notes": counted.notes,
    }


def _restored(kept: dict[str, Any], stores: Sequence[SampleStore], block: int) -> Counted:
    parts = tuple(
        SceneParts(store, None if blocks is None else np.array(blocks, dtype=np.uint8), block)
        for store, blocks in zip(stores, kept["blocks"], strict=True)
    )
    tallies = tuple(
        SceneTally(**{name: np.array(value, dtype=np.int64) for name, value in tally.items()})
        for tally in kept["tallies"]
    )
    statistics = tuple(BandStatistics(**one) for one in kept["statistics"])
    return Counted(parts, tallies, statistics, tuple(kept["notes"]))
