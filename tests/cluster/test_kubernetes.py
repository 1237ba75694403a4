"""Kubernetes: manifests that the operator's own schemas take, and an API that takes them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from distributed import LocalCluster

from tilemap.cluster import connect, thread_count
from tilemap.cluster.kubernetes import manifests, scheduler_address
from tilemap.cluster.table import ClusterTable, parse_table
from tilemap.errors import ConfigError, UnavailableError

kr8s_versions = pytest.importorskip("kr8s._constants")
KUBERNETES_MAXIMUM_SUPPORTED_VERSION = kr8s_versions.KUBERNETES_MAXIMUM_SUPPORTED_VERSION
operator = pytest.importorskip("dask_kubernetes.operator")
CRDS = Path(operator.__file__).parent / "deployment/helm/dask-kubernetes-operator/crds"
BASE: dict[str, Any] = {
    "kind": "kubernetes", "workers": 3, "memory_limit": "3GiB",
    "kubernetes": {
        "name": "tiles", "namespace": "land", "image": "registry.example/tilemap:1",
        "tls_secret": "tiles-tls", "volumes": {"/data": "scenes", "/out": "maps"},
        "env": {"TILEMAP_HOME": "/data/home"},
        "resources": {"requests": {"cpu": "1", "memory": "3Gi"}, "limits": {"memory": "3Gi"}},
    },
}  # fmt: skip


def _table(**more: Any) -> ClusterTable:
    return parse_table({**BASE, **more}, Path("/"))


def _schema(kind: str) -> dict[str, Any]:
    """What the operator's definition of a kind asks of it; keys it does not know are refused."""
    crd = yaml.safe_load((CRDS / f"{kind.lower()}.yaml").read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return {**_strict(schema), "additionalProperties": True}


def _strict(schema: Any) -> Any:
    """The API server drops keys that a schema does not have, in silence; here they are refused."""
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("type", None)
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(found.get("properties"), dict) and "type" in schema and not open_ended:
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.parametrize(
    "more", [{}, {"gpu_workers": 2}, {"adaptive": {"minimum": 0, "maximum": 9}, "workers": None}]
)
def test_the_operator_takes_what_is_asked(more: dict[str, Any]) -> None:
    """Every manifest holds against the definition that ships with the operator."""
    given = {key: value for key, value in {**BASE, **more}.items() if value is not None}
    asked = manifests(parse_table(given, Path("/")))
    assert [m["kind"] for m in asked] == [
        "DaskCluster",
        *(["DaskWorkerGroup"] if "gpu_workers" in more else []),
        *(["DaskAutoscaler"] if "adaptive" in more else []),
    ]
    for manifest in asked:
        jsonschema.validate(json.loads(json.dumps(manifest)), _schema(manifest["kind"]))
    broken = json.loads(json.dumps(asked[0]))
    broken["spec"]["worker"]["spec"]["containers"][0]["argz"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, _schema("DaskCluster"))


def _container(spec: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_every_pod_sees_the_data_and_the_certificates() -> None:
    """At the same place, so that paths hold everywhere; and speaks TLS."""
    (whole,) = manifests(_table())
    for part in ("scheduler", "worker"):
        spec = whole["spec"][part]
        container = _container(spec)
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts) == {"/data", "/out", "/tls"}
        assert {v["name"] for v in spec["spec"]["volumes"]} == set(mounts.values())
        assert container["image"] == "registry.example/tilemap:1"
        arguments = container["args"]
        assert arguments[arguments.index("--protocol") + 1] == "tls"
        assert arguments[arguments.index("--tls-key") + 1] == "/tls/tls.key"
        assert {"name": "TILEMAP_HOME", "value": "/data/home"} in container["env"]
    worker = _container(whole["spec"]["worker"])
    assert worker["args"][0] == "tls://tiles-scheduler.land:8786"
    assert worker["resources"]["limits"] == {"memory": "3Gi"}
    assert whole["spec"]["worker"]["replicas"] == 3


def test_gpu_workers_are_a_group_of_their_own() -> None:
    """They ask Kubernetes for a GPU and tell Dask that they have one."""
    whole, group = manifests(_table(gpu_workers=2))
    assert group["spec"]["cluster"] == "tiles"
    assert group["spec"]["worker"]["replicas"] == 2
    container = _container(group["spec"]["worker"])
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert "GPU=2" in container["args"]
    assert "TILE=2" in _container(whole["spec"]["worker"])["args"]


def test_no_pod_in_the_clear_unless_it_is_wanted() -> None:
    """And no pod without an image."""
    bare = {**BASE["kubernetes"]}
    del bare["tls_secret"]
    with pytest.raises(ConfigError, match="must name a tls_secret"):
        manifests(_table(kubernetes=bare))
    clear = _table(kubernetes=bare, insecure=True)
    assert "--protocol" not in _container(manifests(clear)[0]["spec"]["worker"])["args"]
    assert scheduler_address(clear) == "tcp://tiles-scheduler.land:8786"
    with pytest.raises(ConfigError, match="must name an image"):
        manifests(_table(kubernetes={"tls_secret": "t"}))


class Api(BaseHTTPRequestHandler):
    """As much of a Kubernetes API as is asked."""

    made: dict[str, Any]
    calls: list[str]
    refuses = ""

    def _answer(self, code: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        """Which resources there are."""
        path = self.path.split("?")[0].rstrip("/")
        if path == "/version":
            newest = ".".join(map(str, KUBERNETES_MAXIMUM_SUPPORTED_VERSION.release))
            self._answer(200, {"gitVersion": f"v{newest}"})
        elif path == "/apis":
            self._answer(200, {"kind": "APIGroupList", "groups": []})
        else:
            self._answer(200, {"items": [], "resources": [], "versions": ["v1"]})

    def do_POST(self) -> None:
        """Make one."""
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size))
        self.calls.append(f"make {body['kind']} {self.path.split('?')[0]}")
        if body["kind"] == self.refuses:
            self._answer(403, {"kind": "Status", "message": "not allowed", "code": 403})
            return
        self.made[body["kind"]] = body
        self._answer(201, body)

    def do_DELETE(self) -> None:
        """Take one away."""
        self.calls.append(f"delete {self.path.split('?')[0]}")
        self._answer(200, {"kind": "Status", "status": "Success"})

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Api]]:
    """A server that stands in for the API, and the configuration that leads there."""
    kind = type("Own", (Api,), {"made": {}, "calls": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "land"}}
        ],
    }  # fmt: skip
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    yield kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_made_for_the_run_and_taken_away(api: type[Api]) -> None:
    """Cluster and group are made, the scheduler is joined, and both go when the run is over."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp",
        dashboard_address="127.0.0.1:0",
    ) as there:  # fmt: skip
        table = _table(gpu_workers=1, scheduler=there.scheduler_address)
        with connect(table.settings()) as client:
            assert thread_count(client) == 2
            assert api.made["DaskCluster"]["metadata"] == {"name": "tiles", "namespace": "land"}
            assert len(api.calls) == 2
    path = "/apis/kubernetes.dask.org/v1/namespaces/land"
    assert api.calls == [
        f"make DaskCluster {path}/daskclusters",
        f"make DaskWorkerGroup {path}/daskworkergroups",
        f"delete {path}/daskworkergroups/tiles-gpu",
        f"delete {path}/daskclusters/tiles",
    ]


def test_what_was_made_goes_if_the_rest_is_refused(api: type[Api]) -> None:
    """Nothing is left behind, and the API's own words are told."""
    api.refuses = "DaskWorkerGroup"
    table = _table(gpu_workers=1, wait_s=1)
    says = "DaskWorkerGroup tiles-gpu must be made"
    with pytest.raises(UnavailableError, match=says), connect(table.settings()):
        pass
    assert api.calls[-1].endswith("daskclusters/tiles")


def test_a_cluster_that_stands_is_joined(api: type[Api]) -> None:
    """Nothing is made, nothing is taken away."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp",
        dashboard_address="127.0.0.1:0",
    ) as there:  # fmt: skip
        table = _table(
            kubernetes={"name": "tiles", "create": False}, scheduler=there.scheduler_address
        )
        with connect(table.settings()) as client:
            assert thread_count(client) == 1
    assert api.calls == []


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", None)
    with pytest.raises(UnavailableError, match=r'pip install "tilemap\[kubernetes\]"'):
        manifests(_table())
