"""One training: configuration, samples, loop, figures, model folder; resumed where it was stopped.

::

    OUT/model/                      weights and card
    OUT/train.json                  configuration, digests, versions, figures
    OUT/metrics.jsonl, curves.png   how it went
    OUT/checkpoint.safetensors      to go on from
    OUT/samples/                    what it reads
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tilemap import __version__
from tilemap.cluster import usable_cores
from tilemap.directory import RunDirectory, differences, digest_of
from tilemap.errors import ModelError, OutputError, UsageError
from tilemap.files import read_sealed, write_sealed
from tilemap.models.card import ModelCard
from tilemap.models.mlm import read_card
from tilemap.models.registry import CARD, file_sha256
from tilemap.training import checkpoint, history
from tilemap.training.config import TrainingConfig, load_config
from tilemap.training.curves import draw_curves
from tilemap.training.finish import WEIGHTS, described, warnings, write_model
from tilemap.training.fit import fit
from tilemap.training.interface import Listener, Place, Silent
from tilemap.training.measuring import measure
from tilemap.training.running import pick_device, reproducible
from tilemap.training.samples import TrainingData, prepare_data
from tilemap.training.split import Part
from tilemap.training.start import architecture_of, find_start, first_network, origin

MODEL, RECORD, CURVES, SAMPLES = "model", "train.json", "curves.png", "samples"
OURS = (MODEL, CURVES, history.FILE, checkpoint.FILE, SAMPLES, RECORD)
"""What a training leaves; the record last, as it says whose the rest is."""
_PATHS = ("files", "labels", "area", "like", "before")


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Args:
        model: its folder.
        card: of the model.
        record: as in ``train.json``.
    """

    model: Path
    card: ModelCard
    record: dict[str, Any]


def train(
    config: Path,
    out: Path,
    fresh: bool = False,
    device: str | None = None,
    threads: int | None = None,
    listener: Listener | None = None,
    allow_other_versions: bool = False,
) -> TrainResult:
    """Train a model, or go on where an earlier call on the same directory was stopped.

    Args:
        config: TOML, see ``config.TrainingConfig``.
        out: directory of the training; made if it is not there.
        fresh: forget an earlier training in that directory.
        device: instead of the configuration's.
        threads: of the CPU; default all cores this process may use.
        listener: told what happens; silent by default.
        allow_other_versions: continue what another version of PyTorch began.

    Raises:
        TilemapError: of the kind that fits. What is wrong before the first step leaves nothing.
    """
    listener = listener or Silent()
    wanted = load_config(config)
    chosen = device or wanted.training.device
    pick_device(chosen)
    threads = usable_cores() if threads is None else threads
    if threads < 1:
        raise UsageError(f"threads must be 1 or more, got {threads}")
    architecture_of(wanted)  # which refuses a name or an option that is unknown
    _check_free(out)
    network = first_network(wanted)
    with RunDirectory(out).hold():
        data = _prepare(wanted, out, fresh, listener)
        identity = _identity(wanted, data)
        if fresh:
            clear(out, keep=SAMPLES)
        _check_same(out, identity)
        place = Place(chosen, threads, out, digest_of(identity))
        for line in describe(wanted, data, network, place):
            listener.note(line)
        if (done := _finished(out, identity)) is not None:
            listener.note(f"done     {out} holds this training, finished; `fresh` does it again")
            return done
        if not allow_other_versions:
            _check_versions(out)
        record = _begin(out, identity, wanted, data, place)
        return _run(network, data, wanted, place, record, listener)


def _run(
    network: nn.Module,
    data: TrainingData,
    config: TrainingConfig,
    place: Place,
    record: dict[str, Any],
    listener: Listener,
) -> TrainResult:
    out = place.folder
    assert out is not None
    start = find_start(config)
    fitted = fit(network, data, config, place, listener, learned=start is not None)
    colors = {one.name: one.color for one in data.classes}
    draw_curves(fitted.lines, colors, fitted.progress.kept_step, out / CURVES)
    listener.note("test     temperature on the validation part, figures on the test part")
    with reproducible(pick_device(place.device), place.threads):
        measured = measure(fitted.network, data, config.seed)
    card = write_model(out / MODEL, fitted, data, config, measured, listener, place.threads)
    record |= {
        "status": "ok",
        "steps": fitted.progress.step,
        "best_step": fitted.progress.kept_step,
        "seconds": round(fitted.progress.seconds, 1),
        "model": described(card),
        "warnings": warnings(fitted, measured, start),
    }
    write_sealed(out / RECORD, record)
    return TrainResult(out / MODEL, card, record)


# --- the directory -----------------------------------------------------------------------------


def _check_free(out: Path) -> None:
    """The directory holds nothing, or a training."""
    if not out.is_dir() or (out / RECORD).exists():
        return
    names = {*OURS, *(f".{name}.partial" for name in OURS), *(f"{n}.partial" for n in OURS)}
    if other := sorted(path.name for path in out.iterdir() if path.name not in names):
        raise OutputError(
            f"{out} must be empty or hold a training of tilemap, it holds {', '.join(other[:3])}; "
            "give another `out`"
        )


def _prepare(config: TrainingConfig, out: Path, fresh: bool, listener: Listener) -> TrainingData:
    """The samples; anew if ``fresh``, but those of before go only when the new ones are good."""
    samples, aside = out / SAMPLES, out / f".{SAMPLES}.partial"
    if not fresh or not samples.is_dir():
        return prepare_data(config, out, listener.note)
    shutil.rmtree(aside, ignore_errors=True)
    samples.rename(aside)
    try:
        return prepare_data(config, out, listener.note)
    except BaseException:
        shutil.rmtree(samples, ignore_errors=True)
        aside.rename(samples)
        raise


def clear(out: Path, keep: str) -> None:
    """Remove what a training left in a directory; anything else stays.

    Args:
        keep: a name that stays too.
    """
    for name in OURS:
        for path in (out / f".{name}.partial", out / f"{name}.partial", out / name):
            if path == out / keep:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _identity(config: TrainingConfig, data: TrainingData) -> dict[str, Any]:
    """What makes two trainings the same: settings and inputs, not where they lie or run."""
    table = config.model_dump(mode="json")
    del table["training"]["device"]
    for scene in table["scenes"]:  # whose files enter by content, with their samples
        for key in _PATHS:
            scene.pop(key)
    for key in ("weights", "start"):
        table["model"].pop(key)
    table["model"]["origin"] = origin(config)
    if config.model.start is not None:
        table["model"]["standardised"] = {"mean": list(data.mean), "std": list(data.std)}
    if config.distillation is not None:
        table["distillation"].pop("teacher")
    return {"config": table, "samples": [scene["samples"] for scene in data.record()["scenes"]]}


def _check_same(out: Path, identity: Mapping[str, Any]) -> None:
    """A training that lies here is this one.

    Raises:
        OutputError: saying what differs.
    """
    before = read_sealed(out / RECORD)
    if not isinstance(before, dict):
        return
    lines = differences(before.get("identity"), dict(identity))
    if lines:
        more = f" (and {len(lines) - 4} more)" if len(lines) > 4 else ""
        raise OutputError(
            f"{out} belongs to another training: {'; '.join(lines[:4])}{more}\n"
            "give another `out`, or `fresh` to begin this one again"
        )


def _check_versions(out: Path) -> None:
    """An unfinished training goes on under the version of PyTorch that began it.

    Raises:
        OutputError: if there is another one now.
    """
    before = read_sealed(out / RECORD)
    if not isinstance(before, dict) or before.get("status") == "ok":
        return
    begun = before.get("versions", {}).get("torch", torch.__version__)
    if begun != torch.__version__:
        raise OutputError(
            f"{out} was begun by torch {begun}, now {torch.__version__}; the weights would be of "
            "both.\nGo on with the earlier one, start it afresh, or allow other versions"
        )


def _finished(out: Path, identity: Mapping[str, Any]) -> TrainResult | None:
    """What an earlier call has finished, if its model is whole."""
    record = read_sealed(out / RECORD)
    weights, card = out / MODEL / WEIGHTS, out / MODEL / CARD
    if not isinstance(record, dict) or record.get("status") != "ok":
        return None
    if not weights.is_file() or not card.is_file():
        return None
    try:
        found = read_card(card)
    except ModelError:
        return None  # it is damaged, and written again
    whole = file_sha256(weights) == found.sha256 == record["model"]["sha256"]
    return TrainResult(out / MODEL, found, record) if whole else None


def _begin(
    out: Path,
    identity: dict[str, Any],
    config: TrainingConfig,
    data: TrainingData,
    place: Place,
) -> dict[str, Any]:
    """Write down what is begun; without a record, what lies here is of nobody."""
    if not (out / RECORD).exists():
        (out / checkpoint.FILE).unlink(missing_ok=True)
    record = {
        "status": "training",
        "identity": identity,
        "config": config.model_dump(mode="json"),
        "data": data.record(),
        "versions": {
            "tilemap": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": str(pick_device(place.device)),
        "threads": place.threads,
    }
    write_sealed(out / RECORD, record)
    return record


# --- for a person ------------------------------------------------------------------------------


def describe(
    config: TrainingConfig, data: TrainingData, network: nn.Module, place: Place
) -> list[str]:
    """What will be done, in lines for a person."""
    loop, sampling = config.training, config.sampling
    record = data.record()
    lines = [
        f"scene    {scene['name']}: {scene['shape'][0]} x {scene['shape'][1]} pixels"
        for scene in record["scenes"]
    ]
    lines.append(f"bands    {', '.join(data.bands)} ({config.model.units})")
    for index, one in enumerate(data.classes):
        pixels = {part: int(data.counts[part, index]) for part in Part if part != Part.NONE}
        lines.append(
            f"class    {one.name}: {pixels[Part.TRAIN]} labelled pixels to train on, "
            f"{pixels[Part.VALIDATION]} to validate, {pixels[Part.TEST]} to test"
        )
    size = sum(parameter.numel() for parameter in network.parameters())
    options = architecture_of(config)
    name = options.pop("name")
    told = ", ".join(f"{key} {value}" for key, value in options.items())
    lines += [
        f"split    blocks of {config.split.block} pixels, seed {config.blocks.seed}",
        f"model    {name}{f' ({told})' if told else ''}: {size / 1e6:.2f} million weights",
        f"loss     {config.loss.name}"
        + (f", teacher {Path(config.distillation.teacher).name}" if config.distillation else ""),
        f"steps    {loop.steps} of {sampling.batch} crops of {sampling.crop} pixels, "
        f"{loop.precision} on {pick_device(place.device)}, {place.threads} threads",
    ]
    return lines + [f"note     {text}" for text in data.notes]
