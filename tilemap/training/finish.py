"""From a trained network to a model folder: weights, card, halo."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import nn

from tilemap.errors import OutputError, TilemapError
from tilemap.files import system_error
from tilemap.models.card import ModelCard
from tilemap.models.registry import ModelRef, file_sha256, resolve, save_card
from tilemap.probing import probe_model
from tilemap.stores.geotiff import open_scene
from tilemap.training.interface import Fitted, Listener
from tilemap.training.measuring import Measured, Metrics, below_baseline
from tilemap.training.split import Part
from tilemap.training.start import architecture_of, find_start, origin, stride_for

if TYPE_CHECKING:
    from tilemap.training.config import TrainingConfig
    from tilemap.training.samples import TrainingData

WEIGHTS = "model.safetensors"


def write_model(
    folder: Path,
    fitted: Fitted,
    data: TrainingData,
    config: TrainingConfig,
    measured: Measured,
    listener: Listener,
    threads: int,
) -> ModelCard:
    """Write weights and card, probe the halo, and give the folder its name.

    Args:
        folder: replaced if it is there.
        threads: of the probe.

    Returns:
        The card, with the halo where one was found.

    Raises:
        OutputError: if it cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        _save_weights(fitted.network, partial / WEIGHTS)
        card = _card(fitted, data, config, measured, file_sha256(partial / WEIGHTS))
        save_card(card, partial)
        card = _probed(resolve(partial), config, data, listener, threads)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        what = f"{folder}: cannot be written"
        raise system_error(what, error, folder.parent, OutputError) from error
    return card


def _save_weights(network: nn.Module, path: Path) -> None:
    # Each tensor a copy of its own: safetensors takes none that share memory.
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
    }
    save_file(tensors, path)
    path.chmod(0o644)


def _card(
    fitted: Fitted,
    data: TrainingData,
    config: TrainingConfig,
    measured: Measured,
    digest: str,
) -> ModelCard:
    architecture = architecture_of(config)
    start = find_start(config)
    warned = warnings(fitted, measured, start)
    metrics: Metrics = dict(measured.metrics)
    kept = fitted.progress.kept_step
    if kept is not None:
        metrics["validation_miou"] = round(fitted.progress.best, 5)
    metrics |= {
        "train_pixels": int(data.counts[Part.TRAIN].sum()),
        "validation_pixels": int(data.counts[Part.VALIDATION].sum()),
        "steps": fitted.progress.step if kept is None else kept,
        "seed": config.seed,
    }
    return ModelCard(
        name=config.name,
        title=config.title or config.name,
        description=" ".join([config.description or _description(config), *warned]),
        license=config.license,
        source="tilemap train",
        bands=data.bands,
        units=config.model.units,
        mean=data.mean,
        std=data.std,
        stride=stride_for(config),
        activation="logits",
        classes=data.classes,
        architecture=architecture,
        temperature=measured.temperature,
        metrics=metrics,
        training_data=training_data(config),
        trained_on=data.trained_on(),
        statistics=data.statistics,
        gsd_m=data.gsd_m,
        derived_from=None if start is None else start.digest,
        weights=WEIGHTS,
        sha256=digest,
    )


def warnings(fitted: Fitted, measured: Measured, start: ModelRef | None) -> list[str]:
    """What a person must know before they use the model, a sentence each; mostly nothing."""
    lines = []
    if start is not None and fitted.progress.kept_step == 0:
        lines.append(
            f"No step made {start.card.name} better on the validation blocks, so its weights are "
            "kept as they were."
        )
    if (below := below_baseline(measured.metrics, fitted.progress.best)) is not None:
        lines.append(below)
    return lines


def _description(config: TrainingConfig) -> str:
    names = ", ".join(c.name for c in config.classes)
    scenes = f"{len(config.scenes)} scene{'s' * (len(config.scenes) > 1)}"
    return (
        f"Tells {names}. Trained on {scenes}; it knows no other landscape, season or sensor. "
        "Figures test_* are of blocks held out of the same scenes."
    )


def training_data(config: TrainingConfig) -> tuple[str, ...]:
    """What a model was trained on, a line per file and one of how.

    Raises:
        ModelError: if a file is gone.
    """
    lines = []
    for scene in config.scenes:
        files = [("scene", str(path)) for path in open_scene(scene.request()).files]
        files += [(role, getattr(scene, role)) for role in ("labels", "area")]
        lines += [
            f"{role} {Path(path).name} sha256 {file_sha256(Path(path))}"
            for role, path in files
            if path is not None
        ]
    if (began := origin(config)) is not None:
        lines.append(began)
    if (start := find_start(config)) is not None:  # whose files this model has learned from too
        kept = r"(scene|labels|area) .* sha256 [0-9a-f]{64}"
        lines += [line for line in start.card.training_data if re.fullmatch(kept, line)]
    if config.distillation is not None:
        teacher = resolve(config.distillation.teacher)
        lines.append(
            f"teacher {teacher.card.name}, {teacher.card.license}, sha256 {teacher.digest}"
        )
    sampling = config.sampling
    lines.append(
        f"licence {config.license}; seed {config.seed}, {config.training.steps} steps of "
        f"{sampling.batch} crops of {sampling.crop} x {sampling.crop} pixels"
    )
    return tuple(dict.fromkeys(lines))


def _probed(
    ref: ModelRef, config: TrainingConfig, data: TrainingData, listener: Listener, threads: int
) -> ModelCard:
    """The card with the halo measured on the first scene that is large enough for the probe."""
    from tilemap.models import registry
    from tilemap.models.probe import region_side

    side = region_side(registry.load(ref))
    for scene in config.scenes:
        request = scene.request(data.bands)
        if min(open_scene(request).scene.shape) < side:
            continue
        listener.note("halo     being measured")
        try:
            return probe_model(ref, request, threads=threads)[0].card
        except TilemapError as error:
            listener.note(f"halo     not measured: {error}")
            return ref.card
    listener.note(
        f"halo     not measured, no scene has {side} x {side} pixels; see 'tilemap models probe'"
    )
    return ref.card


def described(card: ModelCard) -> dict[str, Any]:
    """What ``train.json`` tells of the model."""
    return {
        "name": card.name,
        "sha256": card.sha256,
        "temperature": card.temperature,
        "halo": card.halo,
        "metrics": dict(card.metrics),
    }
