"""Which models there are, and how one becomes ready to run.

A model is a folder: the weights and ``model.json``, its card. Folders ship with the package, lie
anywhere on disk, or in the user's registry: ``models`` in ``$TILEMAP_HOME``, else in
``$XDG_DATA_HOME/tilemap``, else in ``~/.local/share/tilemap``. A shipped card may come without
its weights; it then describes a file of that digest, wherever it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilemap.errors import ModelError, OutputError
from tilemap.files import open_file, storing, system_error
from tilemap.models.card import ModelCard
from tilemap.models.engines import Settings, engine_for, start
from tilemap.models.mlm import card_from_fields, card_to_item, read_card, read_json, write_json
from tilemap.models.protocol import Model

SHIPPED = Path(__file__).parent.parent / "data" / "models"
"""Folders of the cards that come with the package."""
CARD = "model.json"
_MEASURED = ("halo", "context", "temperature", "metrics")
"""Fields of a card that a measurement may change."""
_PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".h5", ".keras")


@dataclass(frozen=True)
class ModelRef:
    """A model that was found and not yet loaded; small, and travels to any process.

    Args:
        card: what it is.
        path: the file of weights.
        digest: SHA-256 of that file, hexadecimal, as the card has it.
        card_path: the ``model.json`` the card came from.
    """

    card: ModelCard
    path: Path
    digest: str
    card_path: Path

    @property
    def shipped(self) -> bool:
        """Whether the card came with the package, whose folder may be read-only."""
        return self.card_path.is_relative_to(SHIPPED)


@dataclass(frozen=True)
class ModelEntry:
    """One line of ``tilemap models list``.

    Args:
        card: what it is.
        origin: "shipped" or "user".
        path: the file of weights; None if only the card is there.
    """

    card: ModelCard
    origin: str
    path: Path | None


def data_home(home: Path | None = None) -> Path:
    """The folder of what the user has brought along or measured.

    Args:
        home: takes precedence over the environment.
    """
    if home is not None:
        return home
    if given := os.environ.get("TILEMAP_HOME"):
        return Path(given)
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data) / "tilemap"
    return Path.home() / ".local" / "share" / "tilemap"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        ModelError: if it cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def resolve(spec: str | Path, home: Path | None = None) -> ModelRef:
    """Find a model.

    Args:
        spec: the name of a shipped model or of one in the user's registry, a model folder, or a
            file of weights that a card knows by its digest or that lies beside its card.
        home: see ``data_home``.

    Returns:
        The model; its file is there, and is verified by ``load``.

    Raises:
        ModelError: if there is none, saying what there is.
    """
    path = Path(spec)
    if path.is_dir():
        return _from_folder(path, home)
    if path.is_file():
        return _from_file(path, home)
    name = str(spec)
    for folder in _folders(home):
        if folder.name == name:
            return _from_folder(folder, home)
    names = ", ".join(entry.card.name for entry in list_models(home) if entry.path)
    if path.suffix in (".safetensors", ".onnx") or len(path.parts) > 1:
        raise ModelError(f"no such file or folder: {name}; models with a name are {names}")
    raise ModelError(
        f"no model {name!r}: must be one of {names}, a model folder, or an .onnx file "
        "that was imported with 'tilemap models import'"
    )


def _folders(home: Path | None) -> Iterator[Path]:
    for root in (SHIPPED, data_home(home) / "models"):
        if root.is_dir():
            yield from sorted(p.parent for p in root.glob(f"*/{CARD}"))


def _from_folder(folder: Path, home: Path | None) -> ModelRef:
    folder = folder.resolve()
    if not (folder / CARD).is_file():
        raise ModelError(f"{folder}: a model folder must have a {CARD}")
    card = read_card(folder / CARD)
    path = folder / card.weights
    if not path.is_file():
        known = f"give the path of a file with sha256 {card.sha256[:12]}..."
        raise ModelError(f"{card.name}: {card.weights} is not in {folder}; {known}")
    return _overlaid(ModelRef(card, path, card.sha256, folder / CARD), home)


def _from_file(path: Path, home: Path | None) -> ModelRef:
    path = path.resolve()
    if path.name == CARD:
        return _from_folder(path.parent, home)
    check_kind(path)
    beside = path.parent / CARD
    if beside.is_file() and read_card(beside).weights == path.name:
        return _from_folder(path.parent, home)
    digest = file_sha256(path)
    for folder in _folders(home):
        card = read_card(folder / CARD)
        if card.sha256 == digest:
            return _overlaid(ModelRef(card, path, digest, folder / CARD), home)
    raise ModelError(
        f"{path}: no card knows this file (sha256 {digest[:12]}...); describe it with "
        f"'tilemap models import {path.name} --card CARD'"
    )


def check_kind(path: Path) -> None:
    """Weights are of a kind that runs no code when it is read.

    Raises:
        ModelError: for anything but ``.safetensors`` and ``.onnx``.
    """
    if path.suffix in (".safetensors", ".onnx"):
        return
    why = "; loading a pickle runs whatever code is in it" if path.suffix in _PICKLED else ""
    raise ModelError(f"weights must be a .safetensors or .onnx file, got {path.name}{why}")


def _overlay_path(digest: str, home: Path | None) -> Path:
    return data_home(home) / "measured" / f"{digest}.json"


def card_store(ref: ModelRef, home: Path | None = None) -> Path:
    """The file that ``update_card`` writes to."""
    return _overlay_path(ref.digest, home) if ref.shipped else ref.card_path


def _overlaid(ref: ModelRef, home: Path | None) -> ModelRef:
    """With what was measured here, for a card that ships with the package."""
    overlay = _overlay_path(ref.digest, home)
    if not ref.shipped or not overlay.is_file():
        return ref
    return replace(ref, card=_changed(ref.card, read_json(overlay)))


def _changed(card: ModelCard, changes: dict[str, Any]) -> ModelCard:
    return card_from_fields({**card.model_dump(), **changes})


def load(
    ref: ModelRef,
    device: str = "cpu",
    precision: str = "float32",
    threads: int = 1,
    engine: str = "auto",
) -> Model:
    """Verify a model's file against its card and make it ready to run.

    Args:
        ref: from ``resolve``.
        device: "cpu" or "cuda" ("cuda:1" ...); ONNX files run on the CPU.
        precision: "float32" or "bfloat16", which ONNX Runtime refuses.
        threads: CPU threads within one forward, 1 or more.
        engine: one of ``engines.ENGINES``; "auto" is torch for ``.safetensors``, ONNX Runtime for
            ``.onnx``.

    Raises:
        ModelError: if the file is not the one the card describes, or contradicts it.
        UnavailableError: if the device or an optional package is not there.
        UsageError: if an argument has no such value, or the engine cannot run this.
    """
    settings = Settings(device, precision, threads)
    check_kind(ref.path)
    chosen = engine_for(ref.card, ref.path, settings, engine)
    found = file_sha256(ref.path)
    if found != ref.card.sha256:
        raise ModelError(
            f"{ref.path}: not the weights of {ref.card.name}: card says sha256 "
            f"{ref.card.sha256}, file has {found}"
        )
    return start(ref.card, ref.path, chosen, settings)


def list_models(home: Path | None = None) -> list[ModelEntry]:
    """Every model of the package and of the user's registry, in that order, by name."""
    entries = []
    for folder in _folders(home):
        card = read_card(folder / CARD)
        origin = "shipped" if folder.is_relative_to(SHIPPED) else "user"
        ref = _overlaid(ModelRef(card, folder / card.weights, card.sha256, folder / CARD), home)
        entries.append(ModelEntry(ref.card, origin, ref.path if ref.path.is_file() else None))
    return entries


def import_model(
    file: Path, card_path: Path, name: str | None = None, home: Path | None = None
) -> ModelRef:
    """Take a trained model into the user's registry.

    Args:
        file: ``.onnx`` or ``.safetensors``.
        card_path: its card, a STAC Item or the plain fields of ``ModelCard``; the fields ``name``,
            ``weights`` and ``sha256`` may be left out of the latter.
        name: what to call it; default the card's name.
        home: see ``data_home``.

    Returns:
        The model in its new place, after one forward of it gave what the card says.

    Raises:
        ModelError: if file and card do not fit, or the name is taken; nothing is kept then.
        OutputError: if the registry cannot be written.
    """
    check_kind(file)
    card = _card_for(file, card_path, name)
    root = data_home(home) / "models"
    target = root / card.name
    if target.exists() or (SHIPPED / card.name).exists():
        raise ModelError(f"there is a model {card.name} already; give it another name with `name`")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=root) as part:
            folder = Path(part) / card.name
            folder.mkdir()
            shutil.copyfile(file, folder / card.weights)
            write_json(card_to_item(card), folder / CARD)
            _try_out(resolve(folder, home))
            folder.rename(target)
    except OSError as error:
        raise system_error(f"{root}: cannot be written", error, root, OutputError) from error
    return resolve(target, home)


def _card_for(file: Path, card_path: Path, name: str | None) -> ModelCard:
    fields = read_json(card_path)
    if "properties" in fields:
        fields = read_card(card_path).model_dump()
    fields = {"name": file.stem.lower(), "sha256": file_sha256(file), **fields}
    fields["weights"] = f"model{file.suffix}"
    if name is not None:
        fields["name"] = name
    try:
        return card_from_fields(fields)
    except ModelError as error:
        raise ModelError(f"{card_path}: {error}") from None


def _try_out(ref: ModelRef) -> None:
    """One forward of a small patch gives probabilities of the card's classes."""
    import numpy as np

    card = ref.card
    side = card.patch or card.stride * -(-64 // card.stride)
    image = np.random.default_rng(0).normal(size=(len(card.bands), side, side))
    result = load(ref).predict(image.astype(np.float32))
    if result.shape != (len(card.classes), side, side):
        raise ModelError(
            f"{card.name}: must give {len(card.classes)} classes of {side} x {side}, "
            f"got an array of shape {result.shape}"
        )
    total = result.sum(axis=0)
    if not np.all(np.abs(total - 1) < 1e-3) or result.min() < 0:
        raise ModelError(
            f"{card.name}: classes must be probabilities that sum to 1, got sums from "
            f"{total.min():.3g} to {total.max():.3g}; is the card's activation "
            f"({card.activation}) right?"
        )


def save_card(card: ModelCard, folder: Path) -> Path:
    """Write a card as ``model.json`` into a folder that exists.

    Returns:
        The file written.

    Raises:
        OutputError: if it cannot be written.
    """
    path = folder / CARD
    with storing(f"{path}: cannot be written", kind=OutputError):
        write_json(card_to_item(card), path)
    return path


def update_card(ref: ModelRef, home: Path | None = None, **changes: Any) -> ModelRef:
    """Store what was measured of a model: into its card, or beside it if the card shipped.

    Args:
        ref: from ``resolve``.
        home: see ``data_home``; a shipped card's measurements are kept there by digest.
        changes: any of halo, context, temperature, metrics.

    Returns:
        The model with the changed card, as ``resolve`` will find it from now on.

    Raises:
        ModelError: if a field is not one that is measured, or its value cannot hold.
        OutputError: if it cannot be written.
    """
    if wrong := sorted(set(changes) - set(_MEASURED)):
        raise ModelError(f"of a card only {', '.join(_MEASURED)} are measured, got {wrong[0]}")
    card = _changed(ref.card, changes)
    if not ref.shipped:
        save_card(card, ref.card_path.parent)
        return replace(ref, card=card)
    overlay = card_store(ref, home)
    with storing(f"{overlay}: cannot be written", kind=OutputError):
        overlay.parent.mkdir(parents=True, exist_ok=True)
        before = read_json(overlay) if overlay.is_file() else {}
        write_json({**before, **changes}, overlay)
    return replace(ref, card=card)
