"""What may be said of an evaluation in Python, in the words of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from tilemap.cluster import ClusterSettings
from tilemap.cluster.table import choose_cluster
from tilemap.errors import UsageError
from tilemap.evaluation.request import CORE, EvaluateSettings, split_values
from tilemap.run_plan import parse_bytes

if TYPE_CHECKING:
    from distributed import Client


class EvaluateOptions(TypedDict, total=False):
    """Everything has a default.

    Of the reference: ``column`` (of a vector: its class) or ``polygon_class`` (of all
    its features), ``layer``, ``background`` (class of what no feature covers), ``area`` (vector:
    only inside does the reference count), ``classes`` (a table, .toml or .csv), ``ignore`` (values
    that do not count: "0,9", or a sequence), ``reference_nodata`` (a number instead of the one
    that a raster declares; "none" if every number is a class), ``leave_out`` (blocks of the
    model's training that do not count: "train,validation", or a sequence). Of the figures:
    ``confidence`` (percent on the map's grid; default confidence.tif beside the map),
    ``regions`` and ``region_column``, ``tolerance`` (of boundaries, pixels) or ``tolerance_m``.
    Of the work: ``core`` (pixels), ``cluster`` (a file with a ``[cluster]`` table, or its
    keys), or ``scheduler`` (an address, or a ``distributed.Client``), or ``workers``;
    ``memory_limit`` ("2GiB").
    """

    column: str | None
    polygon_class: str | None
    layer: str | None
    background: str | None
    area: str | Path | None
    classes: str | Path | None
    ignore: str | Sequence[str | int] | None
    reference_nodata: str | float | None
    leave_out: str | Sequence[str] | None
    confidence: str | Path | None
    regions: str | Path | None
    region_column: str | None
    tolerance: float | None
    tolerance_m: float | None
    core: int
    cluster: str | Path | Mapping[str, Any] | None
    scheduler: str | Client | None
    workers: int | None
    memory_limit: str | int | None


def settings_of(
    class_map: str | Path, reference: str | Path, options: EvaluateOptions
) -> tuple[EvaluateSettings, ClusterSettings]:
    """Options to settings.

    Raises:
        UsageError: for an option there is not, or one that cannot hold.
    """
    unknown = sorted(options.keys() - EvaluateOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(EvaluateOptions.__annotations__)
        raise UsageError(f"options must be among {known}; got {', '.join(unknown)}")
    limit, nodata = options.get("memory_limit"), options.get("reference_nodata")
    settings = EvaluateSettings(
        class_map=str(class_map),
        reference=str(reference),
        column=options.get("column"),
        polygon_class=options.get("polygon_class"),
        layer=options.get("layer"),
        background=options.get("background"),
        area=_text(options.get("area")),
        classes=_text(options.get("classes")),
        ignore=split_values(options.get("ignore")),
        reference_nodata=None if nodata is None else str(nodata),
        leave_out=split_values(options.get("leave_out")),
        confidence=_text(options.get("confidence")),
        regions=_text(options.get("regions")),
        region_column=options.get("region_column"),
        tolerance=options.get("tolerance"),
        tolerance_m=options.get("tolerance_m"),
        core=options.get("core", CORE),
    )
    cluster = choose_cluster(
        options.get("cluster"),
        options.get("scheduler"),
        options.get("workers"),
        None if limit is None else parse_bytes(limit),
    )
    return settings, cluster


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
