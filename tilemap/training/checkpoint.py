"""A training on disk: everything its next step depends on, in one file that is whole or not there.

Tensors by name in a safetensors file, the rest as JSON in its header; nothing is pickled. The file
is written under another name, flushed and renamed, so a kill at any moment leaves the last one.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tilemap.errors import OutputError, StoreError
from tilemap.files import decode_json, system_error

FILE = "checkpoint.safetensors"
VERSION = 1
_META = "tilemap"
_SEAL = "header_crc32"
"""Key of the checksum of all that the header says; not in an older file."""

Tensors = dict[str, Tensor]


@dataclass
class Progress:
    """Where a training is; all that is no tensor.

    Args:
        step: steps done.
        best: best mIoU on the validation part so far, 0..1; -1 before the first.
        best_step: the step after which it was measured; 0 for the weights it began with.
        stale: validations since then.
        losses: sum of the losses since the last logged step.
        counted: how many these are.
        seconds: spent in training so far.
        ended: whether no further step will be made.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    stale: int = 0
    losses: float = 0.0
    counted: int = 0
    seconds: float = 0.0
    ended: bool = False

    @property
    def kept_step(self) -> int | None:
        """The step whose weights are the best on the validation part; None if none was measured."""
        return None if self.best < 0 else self.best_step


@dataclass
class Checkpoint:
    """A training between two steps.

    Args:
        progress: where it is.
        identity: name of the training it belongs to; another's is refused.
        model: the network's state.
        average: state of the moving average, if there is one.
        best: state of the best network so far, if one was validated.
        optimiser: from ``optimiser_tensors``.
        made_with: versions, threads and device; for the record.
    """

    progress: Progress
    identity: str
    model: Tensors
    average: Tensors | None = None
    best: Tensors | None = None
    optimiser: Tensors = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)


def optimiser_tensors(network: nn.Module, optimiser: torch.optim.Optimizer) -> Tensors:
    """Moments and counters of an optimiser by the names of the parameters: ``NAME/MOMENT``."""
    tensors = {}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = torch.as_tensor(value)
    return tensors


def restore_optimiser(
    network: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Give a new optimiser the moments that ``optimiser_tensors`` took; in place.

    Args:
        tensors: on any device; moments go to the parameter's, counters stay.

    Raises:
        StoreError: if there is one for a parameter the network does not have.
    """
    parameters = dict(network.named_parameters())
    for full, value in tensors.items():
        name, _, key = full.rpartition("/")
        if name not in parameters:
            raise StoreError(f"the checkpoint has moments of {name}, the network has no such")
        parameter = parameters[name]
        moved = value.clone() if value.dim() == 0 else torch.empty_like(parameter).copy_(value)
        optimiser.state[parameter][key] = moved


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one before stays until this one is on the disk.

    Raises:
        OutputError: if it cannot be written, such as for want of space.
    """
    tensors = {
        f"{part}:{name}": value.detach().cpu().contiguous()
        for part in ("model", "average", "best", "optimiser")
        for name, value in (getattr(checkpoint, part) or {}).items()
    }
    # tensors that share memory are written twice
    seen: set[int] = set()
    for name, value in tensors.items():
        if value.data_ptr() in seen:
            tensors[name] = value.clone()
        seen.add(value.data_ptr())
    header = {
        "version": VERSION,
        "progress": asdict(checkpoint.progress),
        "identity": checkpoint.identity,
        "made_with": checkpoint.made_with,
        "crc32": _crc(tensors),
    }
    header[_SEAL] = _header_crc(header, tensors)
    replace_file(
        path,
        lambda partial: save_file(tensors, partial, {_META: json.dumps(header, sort_keys=True)}),
    )


def replace_file(path: Path, write: Any) -> None:
    """Write a file beside its place, flush it to the disk and rename it.

    Args:
        write: called with the path to write to.

    Raises:
        OutputError: if it cannot be written; what was there before stays.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        partial.chmod(0o644)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        what = f"{path}: cannot be written"
        raise system_error(what, error, path.parent, OutputError) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _crc(tensors: Mapping[str, Tensor]) -> int:
    """Of all bytes in the order of the names."""
    total = 0
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1).view(torch.uint8)
        total = zlib.crc32(flat.numpy().data, total)
    return total


def _header_crc(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Of what the header says, and of the names, shapes and types of the tensors."""
    said = {key: value for key, value in header.items() if key != _SEAL}
    layout = [(name, list(t.shape), str(t.dtype)) for name, t in sorted(tensors.items())]
    return zlib.crc32(json.dumps([said, layout], sort_keys=True).encode())


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, its tensors on the CPU.

    Raises:
        StoreError: if the file is damaged or of another kind.
        OutputError: if it is of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header, other = decode_json((file.metadata() or {})[_META]), None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["version"] != VERSION:
            other = header["version"]
        elif _crc(tensors) != header["crc32"] or (
            _SEAL in header and header[_SEAL] != _header_crc(header, tensors)
        ):
            raise ValueError("its checksum is wrong")
        progress = Progress(**header["progress"])
        identity, made_with = str(header["identity"]), dict(header["made_with"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: the checkpoint cannot be used: {error}") from None
    if other is not None:
        raise OutputError(
            f"{path}: the checkpoint must be of version {VERSION}, it is of version {other}; "
            "begin again with `fresh`"
        )
    parts: dict[str, Tensors] = {"model": {}, "average": {}, "best": {}, "optimiser": {}}
    for full, value in tensors.items():
        part, _, name = full.partition(":")
        parts.setdefault(part, {})[name] = value
    return Checkpoint(
        progress,
        identity,
        parts["model"],
        parts["average"] or None,
        parts["best"] or None,
        parts["optimiser"],
        made_with,
    )
