"""A network as an ONNX file that takes patches of any size, alone or in batches."""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tilemap.errors import ModelError, UnavailableError
from tilemap.models.torch_model import fold_normalisation

OPSET = 17
"""Of the exporter by tracing; the other writes 18, the oldest it has."""
INPUT, OUTPUT = "patch", "logits"


def export_onnx(network: nn.Module, bands: int, stride: int, path: Path) -> str:
    """Write a network as ONNX, weights and all in the one file.

    Normalisation is folded into the convolutions before it. Input ``patch`` (batch, band, height,
    width) and output ``logits`` (batch, class, height, width) are float32; batch, height and width
    are free (the sides multiples of ``stride``). The same network gives the same bytes with the
    same version of torch.

    torch has two exporters. The one by tracing takes a second and is there from torch 2.4 on, but
    will go; the one by ``torch.export`` takes ten times as long and needs onnxscript. The first
    that can is taken.

    Args:
        network: in evaluation mode, on the CPU, float32; not changed.
        bands: planes of the input.
        stride: sides of a patch are multiples of it.
        path: written; its folder is there.

    Returns:
        Which exporter wrote it: "tracing" or "torch.export".

    Raises:
        ModelError: if neither can.
        UnavailableError: if ``onnx`` or onnxscript is missing, and the first cannot do without.
    """
    folded = copy.deepcopy(network).eval()
    fold_normalisation(folded)
    # Sides and batch differ, and none is 1, so that none is taken for a constant.
    patch = torch.zeros(2, bands, 4 * stride, 6 * stride)
    failures: list[str] = []
    for name, write in (("tracing", _by_tracing), ("torch.export", _by_torch_export)):
        try:
            with _quiet():
                write(folded, patch, path)
        except UnavailableError as missing:
            raise UnavailableError(f"{missing} (by tracing: {failures[0]})") from None
        except Exception as error:  # exporters raise whatever the network's code raises in them
            failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")
            continue
        return name
    raise ModelError(f"the network cannot be written as ONNX: {failures[0]}")


def _by_tracing(network: nn.Module, patch: torch.Tensor, path: Path) -> None:
    free = {0: "batch", 2: "height", 3: "width"}
    # torch 2.4 has no such argument and only this exporter.
    choice: dict[str, Any] = {"dynamo": False} if "dynamo" in _parameters(torch.onnx.export) else {}
    torch.onnx.export(
        network,
        (patch,),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: free, OUTPUT: free},
        opset_version=OPSET,
        **choice,
    )


def _by_torch_export(network: nn.Module, patch: torch.Tensor, path: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401  the exporter needs it
    except ImportError:
        raise UnavailableError(
            "to write ONNX needs the packages of pip install 'tilemap[export]'"
        ) from None
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        network,
        (patch,),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
        opset_version=18,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(str(path))
    _strip(model.graph)
    onnx.save(model, str(path))


def _strip(graph: Any) -> None:
    """Drop notes on where in the source each node came from: they hold this machine's paths."""
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def _parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own warnings and log lines."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
