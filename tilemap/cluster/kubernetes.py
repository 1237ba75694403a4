"""A cluster of Dask's operator for Kubernetes: made for a run, or one that stands.

The operator's own client speaks to the scheduler in the clear only. So what is asked of the
operator is written here, from its template, and the scheduler is reached as any other one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from distributed import Client

from tilemap.cluster.address import reached
from tilemap.cluster.census import GPU, TILE
from tilemap.cluster.embedded import ENVIRONMENT
from tilemap.cluster.settings import ClusterSettings
from tilemap.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from tilemap.cluster.table import ClusterTable, KubernetesTable, PodResources

VERSION = "kubernetes.dask.org/v1"
PORT = 8786
SECRET = "/tls"
"""Where the certificates lie in every pod."""
AGAIN_S = 1.0


def scheduler_address(table: ClusterTable) -> str:
    """Where the scheduler is reached: as the table says, else by its service's name."""
    if table.scheduler is not None:
        return table.scheduler
    of = _of(table)
    scheme = "tcp" if of.tls_secret is None else "tls"
    return f"{scheme}://{of.name}-scheduler.{of.namespace}:{PORT}"


def manifests(table: ClusterTable) -> list[dict[str, Any]]:
    """What the operator is asked for: a cluster, workers with GPUs, growth.

    Raises:
        ConfigError: if there is no image, or no certificates where they are needed.
        UnavailableError: if dask-kubernetes is not installed.
    """
    make_cluster_spec = _operator()
    of = _of(table)
    if of.image is None:
        raise ConfigError("cluster.kubernetes must name an image for scheduler and workers")
    if of.tls_secret is None and not table.insecure:
        raise ConfigError(
            "cluster.kubernetes must name a tls_secret, or the table must say insecure = true "
            "where the network of the pods is yours alone"
        )
    count = table.workers or 1
    if table.adaptive is not None:
        count = max(1, table.adaptive.minimum)
    whole: dict[str, Any] = make_cluster_spec(
        name=of.name, image=of.image, n_workers=count, env={**ENVIRONMENT, **of.env}
    )
    whole["metadata"]["namespace"] = of.namespace
    spec = whole["spec"]
    template = spec["worker"]
    spec["worker"] = _workers(
        table, template, count, TILE if table.gpu_workers else None, of.resources
    )
    pod = spec["scheduler"]["spec"]
    pod["containers"][0] |= {
        "command": ["dask", "scheduler"],
        "args": ["--port", str(PORT), "--dashboard-address", ":8787", *_tls(of)],
        "resources": {},
    }
    _mount(of, pod)
    asked = [whole]
    if table.gpu_workers:
        group = _workers(table, template, table.gpu_workers, GPU, of.gpu_resources)
        asked.append(_resource("DaskWorkerGroup", f"{of.name}-gpu", of, {"worker": group}))
    if table.adaptive is not None:
        between = {"minimum": table.adaptive.minimum, "maximum": table.adaptive.maximum}
        asked.append(_resource("DaskAutoscaler", of.name, of, between))
    return asked


def _of(table: ClusterTable) -> KubernetesTable:
    from tilemap.cluster.table import KubernetesTable

    return table.kubernetes or KubernetesTable()


def _operator() -> Any:
    try:
        from dask_kubernetes.operator import make_cluster_spec
    except ImportError as error:
        raise UnavailableError(
            'kind = "kubernetes" needs dask-kubernetes; pip install "tilemap[kubernetes]"'
        ) from error
    return make_cluster_spec


def _resource(kind: str, name: str, of: KubernetesTable, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": of.namespace},
        "spec": {"cluster": of.name, **spec},
    }


def _workers(
    table: ClusterTable,
    template: dict[str, Any],
    count: int,
    what_for: str | None,
    resources: PodResources,
) -> dict[str, Any]:
    """Pods of one kind; one worker process each."""
    of = _of(table)
    scheme = "tcp" if of.tls_secret is None else "tls"
    limit = [] if table.memory_limit is None else ["--memory-limit", str(table.memory_limit)]
    wanted = [] if what_for is None else ["--resources", f"{what_for}={of.threads}"]
    container = {
        **template["spec"]["containers"][0],
        "command": ["dask", "worker"],
        # The operator would have them reach the scheduler in the clear: the address is said here.
        "args": [
            f"{scheme}://{of.name}-scheduler.{of.namespace}:{PORT}",
            "--name", "$(DASK_WORKER_NAME)", "--nworkers", "1", "--nthreads", str(of.threads),
            "--no-dashboard", "--death-timeout", "120", *limit, *wanted, *_tls(of),
        ],
        "resources": dict(resources),
        "ports": [],
    }  # fmt: skip
    pod = {"containers": [container]}
    _mount(of, pod)
    return {"replicas": count, "spec": pod}


def _tls(of: KubernetesTable) -> list[str]:
    if of.tls_secret is None:
        return []
    return [
        "--protocol", "tls", "--tls-ca-file", f"{SECRET}/ca.crt",
        "--tls-cert", f"{SECRET}/tls.crt", "--tls-key", f"{SECRET}/tls.key",
    ]  # fmt: skip


def _mount(of: KubernetesTable, pod: dict[str, Any]) -> None:
    """The claims and the certificates, in every pod at the same place."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for number, (folder, claim) in enumerate(of.volumes.items()):
        volumes.append({"name": f"data-{number}", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": f"data-{number}", "mountPath": folder})
    if of.tls_secret is not None:
        volumes.append({"name": "tls", "secret": {"secretName": of.tls_secret}})
        mounts.append({"name": "tls", "mountPath": SECRET, "readOnly": True})
    pod["volumes"] = volumes
    pod["containers"][0] = {**pod["containers"][0], "volumeMounts": mounts}


@contextmanager
def on_kubernetes(settings: ClusterSettings) -> Iterator[Client]:
    """A client of the cluster; what was made here is taken away again.

    Raises:
        ConfigError: see ``manifests``.
        UnavailableError: if the API does not do as it is asked, or no scheduler answers in time.
    """
    table = settings.table
    assert table is not None
    with ExitStack() as stack:
        if _of(table).create:
            for manifest in manifests(table):
                stack.enter_context(_made(manifest))
        yield stack.enter_context(_patient(scheduler_address(table), settings))


@contextmanager
def _made(manifest: dict[str, Any]) -> Iterator[None]:
    """One resource, for as long as it is needed."""
    import kr8s
    from httpx import HTTPError
    from kr8s.objects import new_class

    kind = manifest["kind"]
    failures = (kr8s.ServerError, kr8s.APITimeoutError, HTTPError, ValueError, OSError)
    try:
        made = new_class(kind, VERSION, asyncio=False)(
            manifest,
            namespace=manifest["metadata"]["namespace"],
            api=kr8s.api(kubeconfig=os.environ.get("KUBECONFIG")),
        )
        made.create()
    except failures as error:
        name = manifest["metadata"]["name"]
        raise UnavailableError(f"{kind} {name} must be made, the API says: {error}") from error
    try:
        yield
    finally:
        made.delete()


@contextmanager
def _patient(address: str, settings: ClusterSettings) -> Iterator[Client]:
    """Reach a scheduler whose pod is only just being made."""
    deadline = time.monotonic() + settings.wait_s
    with ExitStack() as stack:
        while True:
            try:
                client = stack.enter_context(reached(address, settings))
                break
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_S)
        yield client
