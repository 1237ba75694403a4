"""What a person writes to have every night done: one TOML file, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import model_validator as check

from tilemap.cluster.table import TABLES as CLUSTER_TABLES
from tilemap.cluster.table import Bytes, ClusterTable
from tilemap.config_problem import first_problem
from tilemap.errors import ConfigError
from tilemap.files import read_toml

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*")
_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def parse_duration(value: Any) -> Any:
    """Seconds of ``"6h"``, ``"2min"``, ``"1.5d"``, or of a bare number of seconds.

    >>> parse_duration("6h"), parse_duration("90s"), parse_duration(5)
    (21600.0, 90.0, 5)
    """
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"a duration must look like 90s, 2min, 6h, 7d or 4w, got {value!r}")
    return float(found[1]) * _UNITS[found[2]]


Duration = Annotated[
    float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False, lt=1e10)
]
"""In seconds."""
Names = Annotated[tuple[str, ...], Field(min_length=1)]


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


OneOrMore = Annotated[Names, BeforeValidator(_one_or_more)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentTable(_Table):
    """Options of ``tilemap segment``; what is not given has that command's default."""

    bands: Names | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    like: str | None = None
    resolution: float | None = None
    mosaic: bool | None = None
    core: int | None = None
    halo: int | None = None
    blend: int | None = None
    device: str | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    engine: str | None = None
    tta: Literal["none", "flips", "rotations"] | None = None
    uncertainty: tuple[Literal["entropy", "margin"], ...] | None = None


class ChangeTable(_Table):
    """Options of ``tilemap change``; what is not given has that command's default."""

    method: Literal["hmm", "pcc", "cvaps"] | None = None
    rate: float | Literal["fit"] | None = None
    transitions: str | None = None
    prior: Literal["uniform", "series"] | None = None
    tau: float | None = None
    threshold: float | Literal["otsu"] | None = None
    mmu_ha: float | None = None
    like: str | None = None
    resolution: float | None = None
    extent: Literal["intersection", "union"] | None = None
    core: int | None = None
    accept_misregistration: bool | None = None
    mask: str | None = None
    """Raster of what was not observed at each date: a path with ``{scene}`` in it."""
    mask_rule: str | None = None

    @check(mode="after")
    def _both(self) -> ChangeTable:
        if (self.mask is None) != (self.mask_rule is None):
            raise ValueError("mask and mask_rule must be given together")
        if self.mask is not None and "{scene}" not in self.mask:
            raise ValueError(f"mask must have {{scene}} in it, got {self.mask!r}")
        return self


class StacTable(_Table):
    """Scenes of a STAC catalog (a file, a URL) or of a STAC API."""

    catalog: str | None = None
    """``catalog.json`` or ``collection.json`` of a static catalog."""
    api: str | None = None
    collections: tuple[str, ...] = ()
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north, degrees."""
    query: Mapping[str, Any] = Field(default_factory=dict)
    """Of the API's query extension, such as ``{"eo:cloud_cover" = {lt = 20}}``."""
    most: Annotated[int, Field(ge=1)] = 1000
    """Items taken at most in one pass, the newest first."""

    @check(mode="after")
    def _one(self) -> StacTable:
        if (self.catalog is None) == (self.api is None):
            raise ValueError("either catalog or api must be given, and not both")
        if self.api is not None and not self.collections:
            raise ValueError("an api needs collections")
        return self


class AreaTable(_Table):
    """One area of interest: where its scenes come from and what becomes of them."""

    name: Annotated[str, Field(pattern=_NAME)]
    """Of its collection in the catalog: lower case, digits, hyphen, underscore."""
    title: str | None = None
    scenes: tuple[str, ...] = ()
    """Folders and globs. In a folder each raster, STAC item and folder of rasters is a scene;
    a glob's matches are."""
    scene_pattern: str | None = None
    """Regular expression with a group ``scene``, searched in a file's name: files with the same
    ``scene`` are one scene."""
    stac: StacTable | None = None
    since: date | None = None
    until: date | None = None
    priority: int = 0
    """Areas of a higher one come first."""
    model: OneOrMore | None = None
    series: bool = True
    """Whether its dates are compared as soon as there are two."""
    segment: SegmentTable = SegmentTable()
    change: ChangeTable = ChangeTable()

    @check(mode="after")
    def _sources(self) -> AreaTable:
        if not self.scenes and self.stac is None:
            raise ValueError(f"area {self.name} must have scenes or stac")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError(f"until must not lie before since, got {self.since}, {self.until}")
        if self.scene_pattern is not None:
            try:
                groups = re.compile(self.scene_pattern).groupindex
            except re.error as error:
                raise ValueError(f"scene_pattern must be a regular expression: {error}") from None
            if "scene" not in groups:
                raise ValueError("scene_pattern must have a group (?P<scene>...)")
        return self


class NightlyTable(_Table):
    """The pass itself."""

    root: str
    """Folder of the ledger, the work and the products."""
    budget: Duration | None = None
    """After which no new scene and no new series is begun."""
    settle: Duration = 120.0
    """A file younger than this is still being copied, unless an earlier pass saw the same."""
    together: Annotated[int, Field(ge=1, le=100)] = 1
    """Scenes of one model that are mapped at a time, on the same workers."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Passes that try a scene whose failure may pass, before it is quarantined."""
    stores: str | None = None
    """Folder of a bucket, ``s3://bucket/prefix``, for the stores of the runs; default with them."""
    lease: Duration = 300.0
    """A lock whose holder has not been heard of for so long is taken over."""
    verify: Bytes = 32 << 30
    """Bytes of products that are compared with their checksums in each pass, in turn."""


class CatalogTable(_Table):
    """What the catalog says of the whole."""

    id: Annotated[str, Field(pattern=_NAME)] = "tilemap"
    title: str = "Land-cover maps and changes"
    description: str = "Land-cover maps and their changes over time, made by tilemap."
    license: str = "other"
    keywords: tuple[str, ...] = ("land cover", "change")
    geoparquet: bool = False


class PublishTable(_Table):
    """Where products and catalog go besides ``root/products``."""

    to: str | None = None
    """Such as ``s3://bucket/prefix``."""


class RetentionTable(_Table):
    """What is removed, and when. What the catalog names never is."""

    keep_dates: Annotated[int, Field(ge=2)] | None = None
    """Newest dates of each area that stay in the catalog."""
    grace: Duration = 7 * 86400.0
    """Products that the catalog does not name any more stay so long."""
    stores: bool = False
    """Keep the stores of finished runs."""
    logs: Duration = 90 * 86400.0


class TellTable(_Table):
    """Who is told what."""

    prometheus: str | None = None
    """Text file for the node exporter's collector; default ``root/tilemap.prom``."""
    on_failure: Names | None = None
    """Command and its arguments, run when a pass does not end well; the summary on its input."""
    webhook: str | None = None
    """URL that gets the summary as JSON when a pass does not end well."""
    always: bool = False
    """Tell of every pass, not of failures only."""
    timeout: Duration = 30.0
    price_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of all machines of the cluster together."""
    currency: str = "USD"


class RemoteTable(_Table):
    """Which hosts scenes may be read from."""

    allow_hosts: tuple[str, ...] = ()


class NightlyConfig(_Table):
    """The whole file."""

    nightly: NightlyTable
    model: OneOrMore | None = None
    segment: SegmentTable = SegmentTable()
    change: ChangeTable = ChangeTable()
    areas: Annotated[tuple[AreaTable, ...], Field(min_length=1)]
    cluster: ClusterTable = ClusterTable()
    catalog: CatalogTable = CatalogTable()
    publish: PublishTable = PublishTable()
    retention: RetentionTable = RetentionTable()
    tell: TellTable = TellTable()
    remote: RemoteTable = RemoteTable()

    @check(mode="after")
    def _whole(self) -> NightlyConfig:
        names = [area.name for area in self.areas]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"areas must have names of their own, {twice[0]} is there twice")
        for area in self.areas:
            if area.model is None and self.model is None:
                raise ValueError(f"area {area.name} needs a model, its own or one for all")
        return self

    @property
    def root(self) -> Path:
        """Folder of the ledger, the work and the products."""
        return Path(self.nightly.root)

    def area(self, name: str) -> AreaTable:
        """One area by its name."""
        return next(area for area in self.areas if area.name == name)

    def models(self, area: AreaTable) -> tuple[str, ...]:
        """Models of an area: its own, else those of all."""
        chosen = area.model or self.model
        assert chosen is not None
        return chosen

    def segment_options(self, area: AreaTable) -> dict[str, Any]:
        """Options of ``tilemap.segment`` for an area: its own over those of all.

        A series needs the probabilities of its dates.
        """
        return {**_merged(self.segment, area.segment), "probabilities": area.series}

    def change_options(self, area: AreaTable) -> dict[str, Any]:
        """Options of ``tilemap.change`` likewise, ``mask`` among them."""
        return _merged(self.change, area.change)


def _merged(common: BaseModel, own: BaseModel) -> dict[str, Any]:
    tables = (common.model_dump(exclude_none=True), own.model_dump(exclude_none=True))
    return {**tables[0], **tables[1]}


_TABLES: dict[str, type[BaseModel]] = {
    "": NightlyConfig,
    "nightly": NightlyTable,
    "segment": SegmentTable,
    "change": ChangeTable,
    "areas": AreaTable,
    "areas.segment": SegmentTable,
    "areas.change": ChangeTable,
    "areas.stac": StacTable,
    "cluster": ClusterTable,
    **{f"cluster.{name}": table for name, table in CLUSTER_TABLES.items()},
    "catalog": CatalogTable,
    "publish": PublishTable,
    "retention": RetentionTable,
    "tell": TellTable,
    "remote": RemoteTable,
}


def load_config(path: Path) -> NightlyConfig:
    """Read a configuration.

    Args:
        path: TOML; paths in it are relative to its folder.

    Raises:
        ConfigError: naming the key, what must hold and what came.
    """
    return parse_config(read_toml(path), path.absolute().parent, path.name)


def parse_config(table: dict[str, Any], folder: Path, name: str = "config") -> NightlyConfig:
    """A configuration from its table.

    Args:
        table: as TOML gives it.
        folder: what relative paths start from.
        name: what to call it in an error.

    Raises:
        ConfigError: see ``load_config``.
    """
    try:
        config = NightlyConfig.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{name}: {first_problem(error, _TABLES)}") from None
    return _with_paths(config, folder)


def is_remote(text: str) -> bool:
    """Whether a text is an address and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def _with_paths(config: NightlyConfig, folder: Path) -> NightlyConfig:
    """Every path absolute; a model is a path only if it is there."""

    def found(text: str | None) -> str | None:
        if text is None or is_remote(text):
            return text
        return str(folder / Path(text).expanduser())

    def models(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return None
        return tuple(str(folder / n) if (folder / n).exists() else n for n in names)

    def options(table: SegmentTable | ChangeTable) -> Any:
        paths = {key: found(getattr(table, key)) for key in ("like", "transitions", "mask")
                 if getattr(table, key, None) is not None}  # fmt: skip
        return table.model_copy(update=paths)

    areas = tuple(
        area.model_copy(
            update={
                "scenes": tuple(found(text) for text in area.scenes),
                "model": models(area.model),
                "segment": options(area.segment),
                "change": options(area.change),
                "stac": area.stac
                and area.stac.model_copy(update={"catalog": found(area.stac.catalog)}),
            }
        )
        for area in config.areas
    )
    changed: dict[str, Any] = {
        "areas": areas,
        "model": models(config.model),
        "segment": options(config.segment),
        "change": options(config.change),
        "cluster": config.cluster.relative_to(folder),
        "nightly": config.nightly.model_copy(update={"root": found(config.nightly.root)}),
        "publish": config.publish.model_copy(update={"to": found(config.publish.to)}),
        "tell": config.tell.model_copy(update={"prometheus": found(config.tell.prometheus)}),
    }
    return config.model_copy(update=changed)
