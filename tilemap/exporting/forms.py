"""A model to another form: ONNX, int8, fewer channels; through the parity gate, on real pixels.

A new form is made in a folder of its own beside the place it is meant for, run on crops of a real
scene next to the form it was made of, and renamed into place only if few enough labels differ. Of a
refused one nothing is left.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilemap.errors import ModelError, OutputError, SceneError, UnavailableError, UsageError
from tilemap.exporting.ground import find_ground
from tilemap.files import storing, system_error
from tilemap.models import registry
from tilemap.models.card import ModelCard
from tilemap.models.mlm import card_from_fields
from tilemap.models.parity import EXACT_LIMIT, INT8_LIMIT, Parity, check_parity, compare
from tilemap.models.protocol import FloatArray, Model
from tilemap.models.registry import ModelRef
from tilemap.scene import SceneRequest

REGIONS = 4
ENGINES = ("onnxruntime", "openvino")
"""What runs an ONNX file."""
FORMS = ("onnx",)
"""What a model can be exported to."""


@dataclass(frozen=True)
class ExportResult:
    """A model in another form.

    Args:
        ref: the new model, in its place.
        parity: how far it is from the original, by engine.
        missing: engines that are not installed, so that nothing is known of them.
    """

    ref: ModelRef
    parity: Mapping[str, Parity]
    missing: tuple[str, ...]


def export_model(
    ref: ModelRef,
    request: SceneRequest,
    out: Path,
    to: str = "onnx",
    regions: int = REGIONS,
    threads: int = 1,
) -> ExportResult:
    """Export a torch model, if every engine at hand then gives its labels.

    Args:
        ref: a model with ``.safetensors`` weights.
        request: a real scene with the model's bands.
        out: folder of the new model; it must not be there yet.
        to: one of ``FORMS``.
        regions: crops of the scene to compare on.
        threads: of each engine.

    Returns:
        The new model; its card has the shares of differing labels as ``parity_ENGINE``.

    Raises:
        ModelError: if an engine gives other labels than float32 torch on more than 0.5 % of the
            pixels, or the crops show one class only; nothing is left then.
        UnavailableError: if no engine is installed.
        OutputError: if the folder is there or cannot be written.
        SceneError: if the scene lacks what the model takes.
        UsageError: if the model is no torch model.
    """
    from tilemap.models.torch_model import TorchModel

    if to not in FORMS:
        raise UsageError(f"a model can be exported to {', '.join(FORMS)}, got {to!r}")
    if ref.path.suffix != ".safetensors":
        raise UsageError(f"{ref.card.name} is an ONNX file already: {ref.path}")
    _check_new(out)
    engines, missing = engines_at_hand()
    registry.load(ref)  # verifies the digest
    # As it was trained: a fault in folding would be in the exported file too.
    original = TorchModel(ref.card, ref.path, threads=threads, fold=False)
    patches = find_ground(original, request, regions).patches
    with _new_folder(out) as folder:
        _write_onnx(ref, folder / "model.onnx")
        made = _card(ref, folder / "model.onnx", name=f"{ref.card.name}-onnx")
        parity = _gate(original, made, folder, patches, (engines, EXACT_LIMIT, threads))
    return ExportResult(registry.resolve(out), parity, missing)


def quantise_model(
    ref: ModelRef,
    request: SceneRequest,
    out: Path,
    allow: float = INT8_LIMIT,
    regions: int = REGIONS,
    threads: int = 1,
) -> ExportResult:
    """Make an ONNX file that computes with 8-bit integers, if few enough labels change.

    Args:
        ref: a torch model or a float32 ONNX file.
        request: a real scene with the model's bands; ranges are found on some crops of it, labels
            compared on others.
        out: folder of the new model; it must not be there yet.
        allow: largest share of the labels that may change, above 0 and below 1.
        regions: crops of each kind.
        threads: of each engine.

    Returns:
        The new model; its card has ``parity_ENGINE`` and ``miou_with_original``, and none of the
        original's metrics, which were not measured of it.

    Raises:
        ModelError: if more labels change, the crops show one class only, or the model is int8
            already; nothing is left then.
        UnavailableError: if ``onnx`` or ONNX Runtime is not installed.
        OutputError: if the folder is there or cannot be written.
        SceneError: if the scene lacks what the model takes, or is too small for both kinds.
        UsageError: if ``allow`` cannot hold.
    """
    from tilemap.models.quantize import quantise_onnx

    if not 0 < allow < 1:
        raise UsageError(f"allow must lie between 0 and 1, got {allow}")
    if ref.card.architecture.get("int8"):
        raise ModelError(f"{ref.card.name} computes with 8-bit integers already")
    _check_new(out)
    engines, missing = engines_at_hand()
    original = registry.load(ref, "cpu", "float32", threads)
    patches = find_ground(original, request, 2 * regions).patches
    if len(patches) < 2:
        raise SceneError("ranges and labels need a crop each, the scene has room for one")
    with _new_folder(out) as folder:
        source = ref.path
        if source.suffix != ".onnx":
            source = folder.parent / "float32.onnx"
            _write_onnx(ref, source)
        quantise_onnx(ref.card, source, folder / "model.onnx", patches[::2])
        made = _card(
            ref,
            folder / "model.onnx",
            name=f"{ref.card.name}-int8",
            description=f"{ref.card.description} Quantised to 8-bit integers.",
            architecture={**ref.card.architecture, "int8": True},
            metrics={},
        )
        limits = (engines, allow, threads)
        parity = _gate(original, made, folder, patches[1::2], limits, "miou_with_original")
    return ExportResult(registry.resolve(out), parity, missing)


def prune_model(
    ref: ModelRef, share: float, out: Path, criterion: str = "scale"
) -> tuple[ModelRef, dict[str, int]]:
    """Remove inner channels of a torch model; it should be trained on afterwards.

    Args:
        ref: a model with ``.safetensors`` weights, of a network of ours.
        share: at most this share of each part's inner channels is removed.
        out: folder of the new model; it must not be there yet.
        criterion: see ``prune.importance``.

    Returns:
        The new model, without the measured halo, temperature and metrics of the original, which are
        not its own; and the new width of each part that lost channels.

    Raises:
        ModelError: if its inner channels are not known, or none can be removed.
        OutputError: if the folder is there or cannot be written.
        UsageError: if an argument cannot hold.
    """
    from safetensors.torch import save_file

    from tilemap.models.prune import prune_channels, unpruned
    from tilemap.models.torch_model import load_network

    if ref.path.suffix != ".safetensors":
        raise UsageError(f"only torch models (.safetensors) can be pruned, got {ref.path.name}")
    architecture = {**ref.card.architecture, "pruned": True}
    unpruned(architecture)
    _check_new(out)
    registry.load(ref)  # verifies the digest
    network = load_network(ref.card, ref.path)
    widths = prune_channels(network, share, criterion)
    with _new_folder(out) as folder:
        save_file(network.state_dict(), folder / "model.safetensors")
        made = _card(
            ref,
            folder / "model.safetensors",
            name=f"{ref.card.name}-pruned",
            description=f"{ref.card.description} Pruned: up to {share:.0%} of the inner channels "
            "of each part removed, not trained since.",
            architecture=architecture,
            halo=None,
            temperature=1.0,
            metrics={},
        )
        registry.save_card(made, folder)
        registry.load(registry.resolve(folder))
    return registry.resolve(out), widths


def engines_at_hand() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of ``ENGINES`` are installed, and which are not.

    Raises:
        UnavailableError: if none is.
    """
    here = tuple(name for name in ENGINES if importlib.util.find_spec(name) is not None)
    if not here:
        raise UnavailableError(
            "the new model must be tried out in ONNX Runtime or OpenVINO: "
            "pip install 'tilemap[export]'"
        )
    return here, tuple(name for name in ENGINES if name not in here)


def engines_of(ref: ModelRef) -> tuple[str, ...]:
    """What can run a model here: torch, or the engines at hand for an ONNX file."""
    return ("torch",) if ref.path.suffix == ".safetensors" else engines_at_hand()[0]


def _write_onnx(ref: ModelRef, path: Path) -> None:
    from tilemap.models.export import export_onnx
    from tilemap.models.torch_model import load_network

    export_onnx(load_network(ref.card, ref.path), len(ref.card.bands), ref.card.stride, path)


def _card(ref: ModelRef, weights: Path, **changes: Any) -> ModelCard:
    """The card of a form that was made of another."""
    told = {"weights": weights.name, "sha256": registry.file_sha256(weights)}
    fields = {**ref.card.model_dump(), "derived_from": ref.digest, **told, **changes}
    return card_from_fields(fields)


def _gate(
    original: Model,
    card: ModelCard,
    folder: Path,
    patches: Sequence[FloatArray],
    limits: tuple[Sequence[str], float, int],
    miou: str | None = None,
) -> dict[str, Parity]:
    """Run a new form in every engine, refuse it, or save its card with what was found.

    Args:
        limits: engines, largest share of differing labels, threads.
        miou: name of the metric for the smallest mIoU, if it is to be kept.
    """
    engines, limit, threads = limits
    registry.save_card(card, folder)
    made = registry.resolve(folder)
    found: dict[str, Parity] = {}
    for engine in engines:
        model = registry.load(made, threads=threads, engine=engine)
        found[engine] = compare(original, model, patches)
        check_parity(found[engine], limit, f"{card.name} in {engine}")
    metrics: dict[str, float | int | str] = {
        f"parity_{engine}": round(parity.labels_differ, 6) for engine, parity in found.items()
    }
    if miou is not None:
        metrics[miou] = round(min(parity.miou for parity in found.values()), 4)
    registry.update_card(made, metrics={**card.metrics, **metrics})
    return found


def _check_new(out: Path) -> None:
    if out.exists():
        raise OutputError(f"{out} must not be there yet: each model has a folder of its own")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that takes its place when all went well, and else is gone."""
    target = out.absolute()
    near = next(parent for parent in target.parents if parent.exists())
    try:
        part = tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=near)
    except OSError as error:
        raise system_error(f"{near}: cannot be written", error, kind=OutputError) from error
    with part as name:
        folder = Path(name) / "model"
        folder.mkdir()
        yield folder
        with storing(f"{target}: cannot be written", kind=OutputError):
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
