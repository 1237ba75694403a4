"""The public face in Python: ``segment``, ``change``, in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast

import numpy as np

from tilemap.cluster.table import choose_cluster
from tilemap.errors import UsageError
from tilemap.evaluation.evaluate import evaluate_map
from tilemap.evaluation.options import EvaluateOptions, settings_of
from tilemap.evaluation.results import Evaluation
from tilemap.files import translating
from tilemap.models.engines import ENGINES
from tilemap.models.tta import check_mode
from tilemap.prepare import Prepared, SegmentSettings, prepare
from tilemap.progress import Progress
from tilemap.run import RunResult, execute
from tilemap.run_plan import GridSettings, parse_bytes
from tilemap.stores.geotiff import SceneRequest
from tilemap.stores.predictions import UNCERTAINTIES, Uncertainty
from tilemap.stores.remote.address import AllowList
from tilemap.stores.remote.place import RemotePlace
from tilemap.worker import Backend

if TYPE_CHECKING:
    from distributed import Client

    from tilemap.changing.execute import ChangeResult
    from tilemap.changing.settings import ChangeSettings
    from tilemap.training.interface import Listener
    from tilemap.training.train import TrainResult

DEMO_MODEL = "tilemap-demo-5class"
DEMO_CORE = 256
DEMO_SCENE = ("va_eastern_shore_10m.tif", "va_eastern_shore_20m.tif")

Paths = str | Path | Sequence[str | Path]
Models = str | Path | Sequence[str | Path]


class Options(TypedDict, total=False):
    """What may be said of a run; everything has a default.

    Of the scene: ``before`` (an earlier scene of the same place, for a model of two dates),
    ``bands`` (names of the files' bands, in order), ``nodata``, ``scale``,
    ``offset``, ``like`` (a raster whose grid is taken), ``resolution`` (in units of the CRS),
    ``allow_hosts`` (hosts and buckets that may be asked: "example.org", "s3://bucket"),
    ``mosaic`` (True: files of several days are one scene on purpose).
    Of the cut, in pixels: ``core``, ``halo``, ``blend``. Of the model: ``device`` (auto, cpu,
    cuda), ``precision`` (float32, bfloat16), ``engine`` (auto, torch, onnxruntime, openvino),
    ``tta`` (none, flips, rotations: the mean over each patch mirrored and turned). Of the
    products: ``uncertainty`` ("entropy", "margin"), ``probabilities`` (True keeps those of every
    class, for ``change``). Of the cluster: ``cluster`` (a file with a ``[cluster]`` table, or its
    keys), or ``scheduler`` (an address, or a ``distributed.Client``), or ``workers``;
    ``memory_limit`` ("2GiB", of one worker).
    ``keep_stores``; ``stores`` (an ``s3://`` folder for them), ``publish`` (one for the products
    too).
    """

    before: Paths | None
    bands: Sequence[str] | None
    nodata: float | None
    scale: float | None
    offset: float | None
    like: str | Path | None
    resolution: float | None
    allow_hosts: Sequence[str]
    mosaic: bool
    core: int | None
    halo: int | None
    blend: int | None
    device: str
    precision: str
    engine: str
    tta: str
    uncertainty: Sequence[str]
    probabilities: bool
    cluster: str | Path | Mapping[str, Any] | None
    scheduler: str | Client | None
    workers: int | None
    memory_limit: str | int | None
    keep_stores: bool
    stores: str | None
    publish: str | None


_COUNTS = frozenset({"core", "halo", "blend", "workers"})
_NUMBERS = frozenset(
    {"nodata", "scale", "offset", "resolution", "rate", "tau", "threshold", "mmu_ha"}
)
_INSTEAD = {"rate": "fit", "threshold": "otsu"}
"""Words that stand for a number."""
_WORDS = frozenset({"device", "precision", "engine", "tta", "method", "prior", "extent"})


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with Python's own numbers for those of NumPy; None leaves the default.

    Raises:
        UsageError: if a value is not of the kind that its option takes.
    """
    found = {}
    for name, value in options.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if plain is None:
            continue
        is_number = isinstance(plain, int | float) and not isinstance(plain, bool)
        if name in _COUNTS and not isinstance(plain, int):
            raise UsageError(f"{name} must be a whole number, got {plain!r}")
        if name in _NUMBERS and not is_number and plain != _INSTEAD.get(name):
            raise UsageError(f"{name} must be a number, got {plain!r}")
        if name in _WORDS and not isinstance(plain, str):
            raise UsageError(f"{name} must be a word, got {plain!r}")
        found[name] = plain
    return found


def _day(day: object) -> str:
    return f"{day:%Y-%m-%d}" if isinstance(day, date) else str(day)


def _request(scenes: Paths, options: Options) -> SceneRequest:
    options = cast("Options", _plain(options))
    several = [scenes] if isinstance(scenes, str | Path) else list(scenes)
    if not several:
        raise UsageError("at least one scene must be given, got none")
    if any(str(scene) == "" for scene in several):
        raise UsageError("a scene must be a path or an address, got an empty text")
    bands, like = options.get("bands"), options.get("like")
    before = options.get("before") or ()
    earlier = [before] if isinstance(before, str | Path) else list(before)
    return SceneRequest(
        sources=tuple(str(scene) for scene in several),
        band_names=None if bands is None else tuple(bands),
        nodata=options.get("nodata"),
        scale=options.get("scale"),
        offset=options.get("offset"),
        like=None if like is None else str(like),
        resolution=options.get("resolution"),
        before=tuple(str(scene) for scene in earlier),
        allow_hosts=_hosts(options),
        mosaic=options.get("mosaic", False),
    )


def _hosts(options: Options) -> tuple[str, ...]:
    """Hosts that may be asked, each once."""
    given = options.get("allow_hosts") or ()
    return AllowList.of([given] if isinstance(given, str) else given).entries


def _settings(options: Options) -> SegmentSettings:
    options = cast("Options", _plain(options))
    unknown = sorted(options.keys() - Options.__annotations__.keys())
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise UsageError(f"options must be among {known}; got {', '.join(unknown)}")
    precision, device = options.get("precision", "float32"), options.get("device", "auto")
    if precision not in ("float32", "bfloat16"):
        raise UsageError(f"precision must be float32 or bfloat16, got {precision}")
    if device not in ("auto", "cpu") and not device.startswith("cuda"):
        raise UsageError(f"device must be auto, cpu or cuda, got {device}")
    engine = options.get("engine", "auto")
    if engine not in ENGINES:
        raise UsageError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    limit = options.get("memory_limit")
    return SegmentSettings(
        GridSettings(options.get("core"), options.get("halo"), options.get("blend")),
        Backend(device, precision, engine=engine),
        choose_cluster(
            options.get("cluster"),
            options.get("scheduler"),
            options.get("workers"),
            None if limit is None else parse_bytes(limit),
        ),
        options.get("keep_stores", True),
        check_mode(options.get("tta", "none")),
        _measures(options.get("uncertainty", ())),
        options.get("probabilities", False),
        _bucket(options, "stores"),
        _bucket(options, "publish"),
    )


def _bucket(options: Options, name: Literal["stores", "publish"]) -> RemotePlace | None:
    """A folder on S3 that an option names."""
    url = options.get(name)
    return None if url is None else RemotePlace.parse(url, _hosts(options), UsageError)


def _measures(wanted: Sequence[str]) -> tuple[Uncertainty, ...]:
    """Measures of uncertainty in their own order, each once."""
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if unknown := sorted(set(names) - set(UNCERTAINTIES)):
        raise UsageError(
            f"uncertainty must be among {', '.join(UNCERTAINTIES)}, got {unknown[0]!r}"
        )
    return tuple(name for name in UNCERTAINTIES if name in names)


def _models(model: Models) -> list[str | Path]:
    several = [model] if isinstance(model, str | Path) else list(model)
    if not several:
        raise UsageError("at least one model must be given, got none")
    return several


@translating()
def plan(
    scenes: Paths,
    *,
    model: Models,
    out: str | Path | None = None,
    **options: Unpack[Options],
) -> Prepared:
    """Check a run and tell what it will do and cost; changes nothing.

    Args:
        scenes: a file, several (bands or neighbours of one scene), a directory, a STAC item.
        model: a name from ``tilemap models list``, a model folder, an ``.onnx`` file; or several,
            whose mean probability is mapped.
        out: directory of a run that is to be continued, if there is one.
        **options: see ``Options``.

    Returns:
        What ``execute`` runs; its ``plan`` has the figures.

    Raises:
        TilemapError: of the kind that fits.
    """
    settings = _settings(options)
    request = _request(scenes, options)
    return prepare(request, _models(model), settings, None if out is None else Path(out))


@translating()
def segment(
    scenes: Paths,
    *,
    model: Models,
    out: str | Path,
    fresh: bool = False,
    allow_other_versions: bool = False,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> RunResult:
    """Map a scene: class map and confidence as GeoTIFFs in the directory ``out``.

    The same call on the same directory continues a run that was interrupted.

    Args:
        scenes: as for ``plan``.
        model: as for ``plan``.
        out: directory of the run; made if it is not there.
        fresh: forget an earlier run in that directory.
        allow_other_versions: continue what other versions of PyTorch, ONNX Runtime, OpenVINO or
            GDAL began.
        progress: told what happens; silent by default.
        **options: see ``Options``.

    Raises:
        TilemapError: of the kind that fits. A tile that fails three times is no error: the
            result's ``status`` is "partial" then.
    """
    prepared = plan(scenes, model=model, out=None if fresh else out, **options)
    return execute(prepared, Path(out), fresh, progress, allow_other_versions=allow_other_versions)


def demo_scene() -> list[Path]:
    """Files of the scene that ships with the package."""
    folder = Path(str(resources.files("tilemap"))) / "data" / "scenes"
    return [folder / name for name in DEMO_SCENE]


def demo(
    out: str | Path = "demo-out",
    *,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> RunResult:
    """Map the scene that ships with the package with the model that ships with it.

    In small tiles, unless ``core`` says otherwise, so that there are seams to measure.
    """
    options.setdefault("core", DEMO_CORE)
    return segment(demo_scene(), model=DEMO_MODEL, out=out, progress=progress, **options)


@translating()
def evaluate(
    class_map: str | Path,
    *,
    reference: str | Path,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Compare a class map with a reference: accuracy, IoU, boundaries, calibration.

    Args:
        class_map: GeoTIFF with class names, or the directory of a run.
        reference: raster of classes on any grid, or vector file.
        out: directory of ``evaluation.html``, ``.json`` and tables; None writes nothing.
        progress: told how many tiles are done, of how many; silent by default.
        **options: see ``EvaluateOptions``.

    Raises:
        TilemapError: of the kind that fits; nothing is written then.
    """
    settings, cluster = settings_of(class_map, reference, options)
    return evaluate_map(settings, cluster, None if out is None else Path(out), progress)


class ChangeOptions(TypedDict, total=False):
    """What may be said of a series; everything has a default, see ``ChangeSettings``.

    Of the dates: ``dates``, ``masks``, ``mask_rule``, ``allow_model_mismatch``,
    ``accept_misregistration``. Of the method: ``method`` (hmm, pcc, cvaps), ``rate`` (or "fit"),
    ``transitions``, ``prior``, ``tau``, ``threshold`` (or "otsu"), ``mmu_ha``. Of the grid:
    ``like``, ``resolution``, ``extent``, ``core``. For scenes, as for ``segment``: ``bands``,
    ``nodata``, ``scale``, ``offset``, ``allow_hosts``, ``mosaic``, ``device``, ``precision``,
    ``engine``. Of the cluster: ``cluster``, ``scheduler``, ``workers``, ``memory_limit``.
    """

    dates: Sequence[str] | None
    masks: Sequence[str | Path]
    mask_rule: str | None
    allow_model_mismatch: bool
    accept_misregistration: bool
    method: str
    rate: float | str
    transitions: str | Path | None
    prior: str
    tau: float
    threshold: float | str
    mmu_ha: float
    like: str | Path | None
    resolution: float | None
    extent: str
    core: int
    bands: Sequence[str] | None
    nodata: float | None
    scale: float | None
    offset: float | None
    allow_hosts: Sequence[str]
    mosaic: bool
    device: str
    precision: str
    engine: str
    cluster: str | Path | Mapping[str, Any] | None
    scheduler: str | Client | None
    workers: int | None
    memory_limit: str | int | None


_OF_CHANGE = (
    "mask_rule", "allow_model_mismatch", "accept_misregistration", "method", "rate", "prior",
    "tau", "mmu_ha", "resolution", "extent", "core",
)  # fmt: skip
_OF_CLUSTER = ("cluster", "scheduler", "workers", "memory_limit")
_OF_SCENES = (
    "bands", "nodata", "scale", "offset", "allow_hosts", "mosaic", "device", "precision", "engine",
)  # fmt: skip


def change_settings(
    inputs: Sequence[str | Path], model: Models | None, options: Mapping[str, Any]
) -> ChangeSettings:
    """The settings of a series from its options.

    Raises:
        UsageError: if an option is unknown or cannot hold.
    """
    from tilemap.changing.settings import ChangeSettings

    if unknown := sorted(options.keys() - ChangeOptions.__annotations__.keys()):
        known = ", ".join(ChangeOptions.__annotations__)
        raise UsageError(f"options must be among {known}; got {', '.join(unknown)}")
    options = _plain(options)
    scenes = {key: options[key] for key in _OF_SCENES if key in options}
    request = _request(["-"], cast("Options", scenes))
    threshold = options.get("threshold", 0.5)
    like, transitions = options.get("like"), options.get("transitions")
    of_cluster = {key: options[key] for key in _OF_CLUSTER if key in options}
    return ChangeSettings(
        inputs=tuple(str(one) for one in inputs),
        model=() if model is None else tuple(str(m) for m in _models(model)),
        dates=tuple(_day(day) for day in options.get("dates") or ()),
        masks=tuple(str(mask) for mask in options.get("masks") or ()),
        like=None if like is None else str(like),
        transitions=None if transitions is None else str(transitions),
        threshold=None if threshold == "otsu" else float(threshold),
        cluster=_settings(cast("Options", of_cluster)).cluster,
        segment={
            "request": {
                key: getattr(request, key)
                for key in ("band_names", "nodata", "scale", "offset", "allow_hosts", "mosaic")
            },
            "settings": _settings(
                cast("Options", {k: v for k, v in scenes.items() if k in Options.__annotations__})
            ),
        },
        **{key: options[key] for key in _OF_CHANGE if key in options},
    )


@translating()
def change(
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    model: Models | None = None,
    fresh: bool = False,
    allow_other_versions: bool = False,
    progress: Progress | None = None,
    **options: Unpack[ChangeOptions],
) -> ChangeResult:
    """Compare the dates of one place: change map, dates, probabilities, tables, polygons.

    The same call on the same directory continues a run that was interrupted; with more dates it
    extends the series.

    Args:
        inputs: one per date, the oldest first: a directory of ``segment`` or a scene.
        out: directory of the series; made if it is not there.
        model: for inputs that are scenes.
        fresh: forget an earlier series in that directory.
        allow_other_versions: continue what other versions of PyTorch, ONNX Runtime, OpenVINO or
            GDAL began.
        progress: told what happens; silent by default.
        **options: see ``ChangeOptions``.

    Raises:
        TilemapError: of the kind that fits. A tile that fails three times is no error: the
            result's ``status`` is "partial" then.
    """
    from tilemap.changing.execute import execute_series
    from tilemap.changing.prepare import prepare_series

    prepared = prepare_series(change_settings(inputs, model, options), Path(out))
    return execute_series(
        prepared, Path(out), fresh, progress, allow_other_versions=allow_other_versions
    )


@translating()
def train(
    config: str | Path,
    out: str | Path,
    *,
    progress: Listener | None = None,
    fresh: bool = False,
    device: str | None = None,
    threads: int | None = None,
    allow_other_versions: bool = False,
) -> TrainResult:
    """Train a model from scenes and labels; its folder is ``out/model`` then.

    The same call on the same directory continues a training that was interrupted, and ends with
    the same weights.

    Args:
        config: TOML file, see docs/training.md.
        out: directory of the training; made if it is not there.
        progress: told what happens; silent by default.
        fresh: forget an earlier training in that directory.
        device: auto, cpu or cuda; default the configuration's.
        threads: of the CPU; default one per core.
        allow_other_versions: continue what another version of PyTorch began.

    Raises:
        TilemapError: of the kind that fits; what is wrong before the first step leaves nothing.
    """
    from tilemap.training.train import train as run

    return run(Path(config), Path(out), fresh, device, threads, progress, allow_other_versions)
