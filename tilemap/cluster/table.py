"""The ``[cluster]`` table: where tasks run, in a file of its own or in that of a nightly run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tilemap.cluster.settings import CONNECT_TIMEOUT_S, WAIT_S, ClusterSettings
from tilemap.config_problem import first_problem
from tilemap.errors import ConfigError
from tilemap.files import read_toml

if TYPE_CHECKING:
    from distributed import Client

VARIABLE = "TILEMAP_CLUSTER"
"""Environment variable that names a file with a ``[cluster]`` table."""

Kind = Literal["local", "address", "slurm", "kubernetes", "cuda"]


def _bytes(given: Any) -> Any:
    from dask.utils import parse_bytes

    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(f"must look like 2GiB or 800MB, got {given!r}")
    try:
        size = int(parse_bytes(given)) if given != "" else 0
    except (ValueError, OverflowError) as error:
        raise ValueError(f"must look like 2GiB or 800MB, got {given!r:.80}") from error
    if size <= 0:
        raise ValueError(f"must be above 0, got {given!r:.80}")
    return size


def _name(text: str) -> str:
    """What Kubernetes takes as a name."""
    import re

    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", text):
        raise ValueError(f"must be 1 to 40 of a-z, 0-9 and - and begin with a letter, got {text!r}")
    return text


Bytes = Annotated[int, BeforeValidator(_bytes)]
_MOST = 100_000  # more than any cluster has
Count = Annotated[int, Field(ge=1, le=_MOST)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dns = Annotated[str, AfterValidator(_name)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsFiles(_Table):
    """Certificates, PEM; one pair for every process that is started from here."""

    ca: Path
    """Of the authority that signed those of all processes."""
    cert: Path
    key: Path


class Adaptive(_Table):
    """How many workers there may be, as the work asks for them."""

    minimum: Annotated[int, Field(ge=0, le=_MOST)] = 0
    maximum: Count

    @model_validator(mode="after")
    def _ordered(self) -> Adaptive:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum must be at most maximum={self.maximum}, got {self.minimum}")
        return self


class SlurmTable(_Table):
    """Jobs of a Slurm site. One job has a worker process for each of its cores."""

    memory: Bytes
    """Of one job."""
    cores: Count = 1
    partition: str | None = None
    account: str | None = None
    walltime: str | None = None
    job_name: str = "tilemap"
    job_extra: tuple[str, ...] = ()
    """Further options of ``sbatch``."""
    gpu_job_extra: tuple[str, ...] = ("--gres=gpu:1",)
    """Those of jobs with a GPU; such a job has one worker process."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the worker, such as ``module load``."""
    python: str | None = None
    """Interpreter on the nodes; default the one that runs here."""
    interface: str | None = None
    """Network interface of scheduler and workers, such as ``ib0``."""
    local_directory: str | None = None
    log_directory: str | None = None
    shared_directory: str | None = None
    """Where certificates that are made for the run lie; the nodes must see it."""


PodResources = dict[Literal["requests", "limits"], dict[str, str]]


def _one_gpu() -> PodResources:
    return {"limits": {"nvidia.com/gpu": "1"}}


class KubernetesTable(_Table):
    """A cluster of Dask's operator."""

    name: Dns = "tilemap"
    namespace: Dns = "default"
    create: bool = True
    """Make it and take it away again; false joins one that is there."""
    image: str | None = None
    threads: Count = 2
    """Of each worker."""
    resources: PodResources = Field(default_factory=dict)
    """Of each worker without a GPU."""
    gpu_resources: PodResources = Field(default_factory=_one_gpu)
    env: dict[str, str] = Field(default_factory=dict)
    volumes: dict[str, str] = Field(default_factory=dict)
    """Claims by the folder where every pod sees them."""
    tls_secret: Dns | None = None
    """Secret with ``ca.crt``, ``tls.crt`` and ``tls.key`` for scheduler and workers."""


class CudaTable(_Table):
    """The GPUs of this machine, one worker process each."""

    devices: tuple[int, ...] | None = None
    """Which; default all."""
    memory_limit: Bytes | None = None
    """Host memory of each of these workers."""


TABLES: dict[str, type[BaseModel]] = {
    "tls": TlsFiles,
    "adaptive": Adaptive,
    "slurm": SlurmTable,
    "kubernetes": KubernetesTable,
    "cuda": CudaTable,
}
"""Tables within ``[cluster]`` by name; see ``config_problem.first_problem``."""


class ClusterTable(_Table):
    """The whole table; empty, it is an embedded cluster."""

    kind: Kind = "local"
    scheduler: str | None = None
    """Address of a scheduler that runs; of kubernetes, where it is reached from here."""
    workers: Count | None = None
    """Processes that have no GPU."""
    gpu_workers: Annotated[int, Field(ge=0, le=_MOST)] = 0
    """Processes that have one, besides; they segment and do nothing else."""
    memory_limit: Bytes | None = None
    """Of each worker."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What a run takes that leaves its device open; auto looks at this machine."""
    timeout_s: Seconds = CONNECT_TIMEOUT_S
    """Within which the scheduler must answer."""
    wait_s: Seconds = WAIT_S
    """How long a run waits for a worker that can do what is left."""
    insecure: bool = False
    """Reach a scheduler on another machine in the clear."""
    wheel: Path | None = None
    """Of tilemap, for workers that have none or another one."""
    tls: TlsFiles | None = None
    adaptive: Adaptive | None = None
    slurm: SlurmTable | None = None
    kubernetes: KubernetesTable | None = None
    cuda: CudaTable | None = None

    @model_validator(mode="after")
    def _fits(self) -> ClusterTable:
        kind = self.kind
        for name in ("slurm", "kubernetes", "cuda"):
            if getattr(self, name) is not None and kind != name:
                raise ValueError(f"[{name}] goes with kind = {name!r}, got kind = {kind!r}")
        if kind == "slurm" and self.slurm is None:
            raise ValueError("kind = 'slurm' must have a table [slurm] with memory")
        if kind == "address" and self.scheduler is None:
            raise ValueError("kind = 'address' must have a scheduler, such as tls://host:8786")
        if self.scheduler is not None and kind not in ("address", "kubernetes"):
            raise ValueError(f"scheduler goes with kind = 'address', got kind = {kind!r}")
        clear = self.scheduler is not None and not self.scheduler.startswith(("tls://", "wss://"))
        if self.tls is not None and clear:
            raise ValueError(f"with [tls] scheduler must be tls://..., got {self.scheduler}")
        if kind == "address" and (self.workers or self.gpu_workers):
            raise ValueError("workers of a scheduler that runs are started with it, not from here")
        if self.adaptive is not None:
            self._grows()
        return self

    def _grows(self) -> None:
        if self.kind in ("address", "cuda"):
            raise ValueError(f"adaptive cannot be with kind = {self.kind!r}")
        if self.workers is not None:
            raise ValueError("workers and adaptive cannot be given together")
        if self.gpu_workers and self.kind != "kubernetes":
            raise ValueError(
                f"adaptive cannot be with gpu_workers where kind = {self.kind!r}: it would close "
                "and start workers whatever they have"
            )

    def settings(self) -> ClusterSettings:
        """What a run takes."""
        workers = self.workers if self.adaptive is None else self.adaptive.maximum
        if self.kind == "address":
            return ClusterSettings(self.scheduler, None, self.memory_limit, self)
        limit = self.memory_limit
        if self.slurm is not None:
            limit = limit or self.slurm.memory // self.slurm.cores
        return ClusterSettings(None, workers, limit, self)

    def relative_to(self, folder: Path) -> ClusterTable:
        """With its files taken from a folder where they are not absolute."""
        changed: dict[str, Any] = {}
        if self.wheel is not None:
            changed["wheel"] = folder / self.wheel.expanduser()
        if self.tls is not None:
            files = {part: folder / getattr(self.tls, part).expanduser() for part in _PARTS}
            changed["tls"] = self.tls.model_copy(update=files)
        return self.model_copy(update=changed)


_PARTS = ("ca", "cert", "key")


def parse_table(given: Mapping[str, Any], folder: Path, name: str = "cluster") -> ClusterTable:
    """A table from what TOML or Python gives.

    Args:
        given: the keys of ``[cluster]``, or a whole file with nothing else in it.
        folder: what relative paths start from.
        name: what to call it in an error.

    Raises:
        ConfigError: naming the key, what must hold and what came.
    """
    whole = isinstance(given, Mapping) and set(given) == {"cluster"}
    inner = given["cluster"] if whole else given
    try:
        table = ClusterTable.model_validate(inner)
    except ValidationError as error:
        problem = first_problem(error, {"": ClusterTable, **TABLES})
        raise ConfigError(f"{name}: {problem}") from None
    return table.relative_to(folder)


def load_table(path: Path) -> ClusterTable:
    """A table from a TOML file; other tables in it, such as those of a nightly run, are left alone.

    Raises:
        ConfigError: if it cannot be read, or see ``parse_table``.
    """
    given = read_toml(path)
    if "cluster" in given:
        given = {"cluster": given["cluster"]}
    return parse_table(given, path.absolute().parent, path.name)


def choose_cluster(
    cluster: str | Path | Mapping[str, Any] | None = None,
    scheduler: str | Client | None = None,
    workers: int | None = None,
    memory_limit: int | None = None,
) -> ClusterSettings:
    """The cluster that a person asks for.

    Args:
        cluster: file with a ``[cluster]`` table, or its keys.
        scheduler: address or client; not with ``cluster``.
        workers: of an embedded cluster; not with ``cluster``.
        memory_limit: bytes, of one worker; goes before the table's.

    Returns:
        Without any of the first three, what the environment variable ``TILEMAP_CLUSTER`` names;
        without that an embedded cluster.

    Raises:
        ConfigError: if what is given cannot hold.
    """
    if cluster is not None and (scheduler is not None or workers is not None):
        given = "`scheduler`" if scheduler is not None else "`workers`"
        raise ConfigError(f"`cluster` says where to run; it cannot be given with {given}")
    if scheduler is not None or workers is not None:
        return ClusterSettings(scheduler, workers, memory_limit)
    if cluster is None:
        cluster = os.environ.get(VARIABLE) or None
    if cluster is None:
        return ClusterSettings(memory_limit=memory_limit)
    if isinstance(cluster, str | Path):
        table = load_table(Path(cluster))
    else:
        table = parse_table(cluster, Path.cwd())
    if memory_limit is not None:
        table = table.model_copy(update={"memory_limit": memory_limit})
    return table.settings()
