"""What a person writes to have a model trained: one TOML file, checked before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError
from pydantic import model_validator as check

from tilemap.config_problem import first_problem
from tilemap.errors import ConfigError, SceneError
from tilemap.files import read_toml
from tilemap.models.card import ClassInfo
from tilemap.scene import SceneRequest
from tilemap.training.split import Split

LabelValue = StrictInt | StrictStr
"""A number of a label raster, or a number or text of a vector's attribute."""
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_MOST_CLASSES = 254
_PALETTE = (
    "#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3",
    "#937860", "#da8bc3", "#8c8c8c", "#ccb974", "#64b5cd",
)  # fmt: skip


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassConfig(_Table):
    """One class; the order in the file is the order of the model's output."""

    name: Annotated[str, Field(min_length=1)]
    value: Annotated[int, Field(ge=0, le=254)]
    """Of the class map."""
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None
    labels: tuple[LabelValue, ...] | None = None
    """Label values that mean this class; default the class's own ``value``."""

    @property
    def meanings(self) -> tuple[int | str, ...]:
        """Label values that mean this class."""
        return (self.value,) if self.labels is None else self.labels


class SceneConfig(_Table):
    """One scene, with what is known of it."""

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    bands: tuple[str, ...] | None = None
    """Names of the files' bands, in their order, instead of what the files say."""
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    resolution: float | None = None
    like: str | None = None
    mosaic: bool = False
    """Files of several days are one scene on purpose."""
    labels: str | None = None
    """A raster on any grid, or polygons."""
    layer: str | None = None
    column: str | None = None
    """Attribute of the polygons that tells their class; without it all are of one class."""
    background: str | None = None
    """Class of what no polygon covers, or of a label raster's nodata; without it that is not
    learned from."""
    area: str | None = None
    """Polygons inside which alone the labels are complete."""
    area_layer: str | None = None
    before: tuple[str, ...] = ()
    """An earlier scene of the same place: its bands are ``before_red`` ..., the others
    ``after_red`` ..."""
    area_split: str | None = None
    """Attribute of the area: train, validation or test."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How often crops are drawn from this scene, in proportion to the others."""

    @check(mode="after")
    def _needs(self) -> SceneConfig:
        for key, needed in (
            ("layer", "labels"),
            ("column", "labels"),
            ("background", "labels"),
            ("area", "labels"),
            ("area_layer", "area"),
            ("area_split", "area"),
        ):
            if getattr(self, key) is not None and getattr(self, needed) is None:
                raise ValueError(f"{key} says something about {needed}, but there is no {needed}")
        self.request()
        return self

    def request(self, bands: tuple[str, ...] | None = None) -> SceneRequest:
        """What ``open_scene`` takes.

        Args:
            bands: of the model, in its order; None for all there are.
        """
        try:
            return SceneRequest(
                sources=self.files, bands=bands, band_names=self.bands, nodata=self.nodata,
                scale=self.scale, offset=self.offset, like=self.like, resolution=self.resolution,
                before=self.before, mosaic=self.mosaic,
            )  # fmt: skip
        except SceneError as error:
            raise ValueError(str(error)) from None


class ModelConfig(_Table):
    """The network: keys beyond those below are options of its architecture."""

    arch: str = "unet"
    bands: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Common names; default all bands of the first scene."""
    units: Literal["reflectance", "stored"] = "stored"
    weights: str | None = None
    """Pretrained encoder: a file, or "efficientnet-lite0" for the weights of that package."""
    start: str | None = None
    """A model whose network and weights are gone on with, such as a pruned one."""
    options: dict[str, str | StrictInt | float | bool] = Field(default_factory=dict)
    """Of the architecture: encoder, width ..."""

    @check(mode="before")
    @classmethod
    def _collect(cls, table: Any) -> Any:
        """Keys that are none of ours are the architecture's."""
        if not isinstance(table, dict):
            return table
        own = {key: value for key, value in table.items() if key in cls.model_fields}
        rest = {key: value for key, value in table.items() if key not in cls.model_fields}
        given = own.pop("options", {})
        return {**own, "options": {**given, **rest} if isinstance(given, dict) else given}

    @check(mode="after")
    def _one_start(self) -> ModelConfig:
        if self.start is not None and (
            self.weights is not None or self.options or "arch" in self.model_fields_set
        ):
            raise ValueError("start brings its own network: leave out arch, its options, weights")
        return self

    @property
    def architecture(self) -> dict[str, str | int | float | bool]:
        """What ``networks.build`` takes and the card keeps."""
        return {"name": self.arch, **self.options}


class SplitConfig(_Table):
    """Blocks of a scene are for training, for validation or for the test."""

    block: Annotated[int, Field(ge=1)] = 256
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.2
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    seed: int | None = None

    @check(mode="after")
    def _leaves_training(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must be below 1, got {self.validation} + {self.test}"
            )
        return self


class SamplingConfig(_Table):
    """How crops are drawn."""

    crop: Annotated[int, Field(ge=8, le=4096)] = 256
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    balanced: Share = 0.5
    """Share of crops centred on a pixel of a class drawn evenly; the rest anywhere with labels."""


class AugmentConfig(_Table):
    """How crops are varied; each 0 or false is off.

    Amounts are drawn anew for every crop. Radiometric ones act on physical values (stored numbers
    where ``units = "stored"``), never on labels, never on what was not observed.
    """

    flip: bool = True
    rotate: bool = True
    """Quarter turns."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest magnification."""
    turn: bool = False
    """By any angle."""
    gain: Amount = 0.1
    """Standard deviation of a factor on all bands together (its logarithm)."""
    band_gain: Amount = 0.03
    """The same for each band by itself."""
    offset: Amount = 0.05
    """Standard deviation of what is added to a band, in its standard deviations."""
    haze: Amount = 0.2
    """Most that is added to blue, in its standard deviations; longer waves get less."""
    shadow: Share = 0.1
    """How often the soft shadow of a cloud falls on a crop."""
    season: Share = 0.1
    """How often vegetation is greener or drier than it was."""
    noise: Amount = 0.02
    """Standard deviation of the noise of a pixel, in the band's standard deviations."""

    @check(mode="after")
    def _ascending(self) -> AugmentConfig:
        low, high = self.scale
        if not 0.25 <= low <= high <= 4:
            raise ValueError(
                f"scale must be two ascending numbers from 0.25 to 4, got {low}, {high}"
            )
        return self


class LossConfig(_Table):
    """What is minimised."""

    name: Literal["cross_entropy", "focal", "dice", "cross_entropy+dice", "focal+dice"] = (
        "cross_entropy"
    )
    weights: Literal["none", "balanced"] | tuple[Amount, ...] = "none"
    gamma: Amount = 2.0
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class LoopConfig(_Table):
    """The loop: how long, how fast, how exact."""

    steps: Annotated[int, Field(ge=1)] = 2000
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    schedule: Literal["cosine", "onecycle"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Amount = 1e-2
    clip: Amount = 1.0
    """Largest norm of the gradient; 0 lets any pass."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    validate_every: Annotated[int, Field(ge=1)] = 200
    patience: Annotated[int, Field(ge=0)] = 0
    """Validations without a better mean IoU before it stops; 0 never stops early."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"


class DistillationConfig(_Table):
    """A model whose probabilities are learned."""

    teacher: str
    """A name of the registry, a model folder or a file of weights."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.5
    share: Share = 1.0
    """Of the soft loss; the rest goes to the labels."""


class TrainingConfig(_Table):
    """A whole configuration; paths in it are absolute."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    title: str = ""
    description: str = ""
    license: str = "unknown"
    seed: Annotated[int, Field(ge=0)] = 0
    scenes: Annotated[tuple[SceneConfig, ...], Field(min_length=1)]
    classes: Annotated[tuple[ClassConfig, ...], Field(min_length=2, max_length=_MOST_CLASSES)]
    ignore_labels: tuple[LabelValue, ...] = ()
    """Label values that are not learned from."""
    model: ModelConfig = ModelConfig()
    split: SplitConfig = SplitConfig()
    sampling: SamplingConfig = SamplingConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    training: LoopConfig = LoopConfig()
    distillation: DistillationConfig | None = None

    @check(mode="after")
    def _consistent(self) -> TrainingConfig:
        for what in ("name", "value"):
            told = [getattr(c, what) for c in self.classes]
            if twice := [one for one in told if told.count(one) > 1]:
                raise ValueError(f"the {what}s of classes must differ, got {twice[0]!r} twice")
        taken = [value for c in self.classes for value in c.meanings] + list(self.ignore_labels)
        if doubled := [value for value in taken if taken.count(value) > 1]:
            raise ValueError(f"a label value must mean one class, {doubled[0]!r} means several")
        names = [c.name for c in self.classes]
        for index, scene in enumerate(self.scenes):
            if scene.background is not None and scene.background not in names:
                raise ValueError(
                    f"scenes[{index}].background must be one of the classes {', '.join(names)}, "
                    f"got {scene.background!r}"
                )
            if scene.labels is None and self.distillation is None:
                raise ValueError(f"scenes[{index}] must have labels, or [distillation] a teacher")
        given = self.loss.weights
        if not isinstance(given, str) and len(given) != len(names):
            raise ValueError(
                f"loss.weights must have one number per class ({len(names)}), got {len(given)}"
            )
        return self

    @property
    def class_infos(self) -> tuple[ClassInfo, ...]:
        """The classes as the card has them; those without a colour get one."""
        return tuple(
            ClassInfo(value=c.value, name=c.name, color=c.color or _PALETTE[i % len(_PALETTE)])
            for i, c in enumerate(self.classes)
        )

    @property
    def blocks(self) -> Split:
        """How scenes are divided."""
        split = self.split
        seed = self.seed if split.seed is None else split.seed
        return Split(split.block, split.validation, split.test, seed)


def load_config(path: Path) -> TrainingConfig:
    """Read a configuration.

    Args:
        path: TOML; paths in it are relative to its folder.

    Raises:
        ConfigError: naming the key, what must hold and what came.
    """
    return parse_config(read_toml(path), path.absolute().parent, path.name)


def parse_config(table: dict[str, Any], folder: Path, name: str = "config") -> TrainingConfig:
    """A configuration from its table.

    Args:
        table: as TOML gives it.
        folder: what relative paths start from.
        name: what to call it in an error.

    Raises:
        ConfigError: see ``load_config``.
    """
    try:
        config = TrainingConfig.model_validate(table)
    except ValidationError as error:
        text = first_problem(error, {"": TrainingConfig, **_TABLES})
        raise ConfigError(f"{name}: {text}") from None
    return _with_paths(config, folder)


def _with_paths(config: TrainingConfig, folder: Path) -> TrainingConfig:
    """Every path absolute; a teacher is a path only if it is there."""

    def found(text: str | None) -> str | None:
        return None if text is None else str(folder / Path(text).expanduser())

    scenes = tuple(
        scene.model_copy(
            update={
                "files": tuple(found(file) for file in scene.files),
                "before": tuple(found(file) for file in scene.before),
                **{key: found(getattr(scene, key)) for key in ("like", "labels", "area")},
            }
        )
        for scene in config.scenes
    )
    changed: dict[str, Any] = {
        "scenes": scenes,
    }
    if config.model.weights != "efficientnet-lite0":  # a word; networks.PACKAGED would load torch
        changed["model"] = config.model.model_copy(update={"weights": found(config.model.weights)})
    start = config.model.start
    if start is not None and (folder / start).exists():
        changed["model"] = config.model.model_copy(update={"start": found(start)})
    taught = config.distillation
    if taught is not None and (folder / taught.teacher).exists():
        changed["distillation"] = taught.model_copy(update={"teacher": found(taught.teacher)})
    return config.model_copy(update=changed)


_TABLES: dict[str, type[BaseModel]] = {
    "scenes": SceneConfig,
    "classes": ClassConfig,
    "model": ModelConfig,
    "split": SplitConfig,
    "sampling": SamplingConfig,
    "augment": AugmentConfig,
    "loss": LossConfig,
    "training": LoopConfig,
    "distillation": DistillationConfig,
}
