"""GPUs of this machine: what dask-cuda is told, and the CPU workers beside it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from distributed import LocalCluster

from tilemap.cluster import connect, route_of
from tilemap.cluster.census import Member, Route, take_census
from tilemap.cluster.cuda import cuda_options
from tilemap.cluster.table import ClusterTable, CudaTable
from tilemap.errors import UnavailableError


def test_one_process_for_each_gpu() -> None:
    """Which, and how much memory of the host; two tasks at a time, one of which reads."""
    table = ClusterTable(kind="cuda", cuda=CudaTable(devices=(0, 2), memory_limit="8GiB"))
    options = cuda_options(table.settings())
    assert options["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert options["memory_limit"] == 8 << 30
    assert options["resources"] == {"GPU": options["threads_per_worker"]} == {"GPU": 2}
    every = cuda_options(ClusterTable(kind="cuda").settings())
    assert every["CUDA_VISIBLE_DEVICES"] is None
    assert every["memory_limit"] == "auto"


class Pretended(LocalCluster):
    """Takes what dask-cuda's cluster takes; a worker for each device, on the CPU."""

    def __init__(self, CUDA_VISIBLE_DEVICES: str | None = None, **options: Any) -> None:  # noqa: N803
        if CUDA_VISIBLE_DEVICES is None:
            raise RuntimeError("no CUDA-capable device is detected")
        super().__init__(n_workers=len(CUDA_VISIBLE_DEVICES.split(",")), processes=True, **options)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for dask-cuda."""
    module = ModuleType("dask_cuda")
    module.LocalCUDACluster = Pretended  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_cuda", module)


@pytest.mark.usefixtures("package")
def test_cpu_workers_stand_beside_them() -> None:
    """They tile and stitch, and see no GPU."""
    table = ClusterTable(kind="cuda", workers=1, cuda=CudaTable(devices=(0,)))
    with connect(table.settings()) as client:
        client.wait_for_workers(2, timeout=60)
        assert set(take_census(client).values()) == {Member(2, 2, 0), Member(2, 0, 2)}
        assert route_of(client) == Route(gpu=True, tile=True)
        seen = client.run(lambda: __import__("os").environ.get("CUDA_VISIBLE_DEVICES"))
        assert "" in seen.values()


@pytest.mark.usefixtures("package")
def test_no_gpu() -> None:
    """The driver's own words are told."""
    says = "the GPUs of this machine cannot be used: no CUDA-capable device"
    with pytest.raises(UnavailableError, match=says), connect(ClusterTable(kind="cuda").settings()):
        pass


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    says = r'pip install "tilemap\[cuda\]"'
    with pytest.raises(UnavailableError, match=says), connect(ClusterTable(kind="cuda").settings()):
        pass
