"""What a training starts from: fresh weights, an encoder's, or those of a whole model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tilemap.errors import ConfigError, ModelError
from tilemap.models import registry
from tilemap.models.networks import (
    bounded_context,
    build,
    load_encoder_weights,
    stride_of,
    weights_file,
)
from tilemap.models.prune import unpruned
from tilemap.models.registry import ModelRef
from tilemap.models.torch_model import load_network
from tilemap.stores.geotiff import open_scene

if TYPE_CHECKING:
    from tilemap.training.config import TrainingConfig


def find_start(config: TrainingConfig) -> ModelRef | None:
    """The model whose weights are gone on with, if there is one.

    Raises:
        ModelError: if there is none of that name, its weights are no network's of ours, or it has
            other classes.
    """
    if config.model.start is None:
        return None
    ref = registry.resolve(config.model.start)
    if ref.path.suffix != ".safetensors":
        raise ModelError(f"model.start must be a torch model, {ref.card.name} is an ONNX file")
    own, theirs = ([c.name for c in classes] for classes in (config.classes, ref.card.classes))
    if own != theirs:
        raise ModelError(
            f"model.start must have the classes {', '.join(own)} in this order, "
            f"{ref.card.name} has {', '.join(theirs)}"
        )
    return ref


def architecture_of(config: TrainingConfig) -> dict[str, Any]:
    """What the card of the trained model will say of its network.

    Raises:
        ModelError: if a name or an option is unknown.
    """
    start = find_start(config)
    architecture = config.model.architecture if start is None else dict(start.card.architecture)
    bounded_context(unpruned(architecture)[0])  # knows names and options, or says so
    return architecture


def stride_for(config: TrainingConfig) -> int:
    """Sides of crops are multiples of this, pixels.

    Raises:
        ModelError: see ``architecture_of``.
    """
    return stride_of(unpruned(architecture_of(config))[0])


def check_weights(config: TrainingConfig) -> None:
    """The file of encoder weights is there.

    Raises:
        ConfigError: if it is not.
        UnavailableError: if it is in a package that is not installed.
    """
    weights = config.model.weights
    if weights is not None and not weights_file(weights).is_file():
        raise ConfigError(f"model.weights must be a file, there is no {weights}")


def first_network(config: TrainingConfig) -> nn.Module:
    """The network before its first step.

    Raises:
        TilemapError: if the architecture, the weights or the first scene are no good.
    """
    bands = open_scene(config.scenes[0].request(config.model.bands)).scene.band_names
    start = find_start(config)
    if start is not None:
        if tuple(start.card.bands) != tuple(bands):
            raise ModelError(
                f"model.start takes the bands {', '.join(start.card.bands)}, the training has "
                f"{', '.join(bands)}; give model.bands"
            )
        registry.load(start)  # verifies the digest
        return load_network(start.card, start.path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build(config.model.architecture, len(bands), len(config.classes))
    if config.model.weights is not None:
        load_encoder_weights(network, config.model.weights, bands)
    return network


def origin(config: TrainingConfig) -> str | None:
    """Where the first weights came from, for the card; None if they were drawn.

    Raises:
        ModelError: if a file is gone.
    """
    if (start := find_start(config)) is not None:
        return f"first weights {start.card.name}, {start.card.license}, sha256 {start.digest}"
    if config.model.weights is None:
        return None
    path: Path = weights_file(config.model.weights)
    return f"encoder weights {path.name} sha256 {registry.file_sha256(path)}"
