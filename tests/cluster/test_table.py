"""The ``[cluster]`` table: what each kind takes, what is refused, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tilemap import api
from tilemap.cluster import ClusterSettings
from tilemap.cluster.table import VARIABLE, ClusterTable, choose_cluster, load_table, parse_table
from tilemap.errors import ConfigError
from tilemap.evaluation.options import settings_of

SLURM = {"kind": "slurm", "slurm": {"memory": "8GB", "cores": 4}}


def test_an_empty_table_is_an_embedded_cluster() -> None:
    """As if there were none."""
    settings = ClusterTable().settings()
    assert settings.embedded
    assert (settings.scheduler, settings.workers, settings.memory_limit) == (None, None, None)
    assert settings.timeout_s == ClusterSettings().timeout_s == 20


@pytest.mark.parametrize(
    ("given", "scheduler", "workers", "memory"),
    [
        ({"workers": 3, "memory_limit": "2GiB"}, None, 3, 2 << 30),
        ({"adaptive": {"maximum": 5}}, None, 5, None),
        ({"kind": "address", "scheduler": "tls://a:1"}, "tls://a:1", None, None),
        ({**SLURM, "workers": 12}, None, 12, 2_000_000_000),
        ({**SLURM, "adaptive": {"minimum": 1, "maximum": 9}}, None, 9, 2_000_000_000),
        ({"kind": "kubernetes", "kubernetes": {"image": "i"}, "workers": 2}, None, 2, None),
        ({"kind": "cuda", "workers": 1}, None, 1, None),
    ],
)
def test_each_kind_becomes_settings(
    given: dict[str, Any], scheduler: str | None, workers: int | None, memory: int | None
) -> None:
    """Plans take the number of workers and the memory of one from them."""
    settings = parse_table(given, Path("/")).settings()
    assert (settings.scheduler, settings.workers, settings.memory_limit) == (
        scheduler, workers, memory,
    )  # fmt: skip
    assert settings.embedded == (given.get("kind", "local") == "local")
    assert settings.asked


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kinf": "local"}, "kinf is no key that is known; did you mean 'kind'?"),
        ({"kind": "slurm", "slurm": {"memry": "1GB"}}, "slurm.memry is no key that is known; did"),
        ({"tls": {"ca": "a", "certs": "b", "key": "c"}}, "tls.certs is no key .* 'cert'"),
        ({"kind": "pbs"}, "kind: input should be 'local', 'address'.*got 'pbs'"),
        ({"kind": "slurm"}, r"kind = 'slurm' must have a table \[slurm\]"),
        ({"slurm": {"memory": "1GB"}}, r"\[slurm\] goes with kind = 'slurm', got kind = 'local'"),
        ({"kind": "address"}, "must have a scheduler"),
        ({"scheduler": "tls://a:1"}, "scheduler goes with kind = 'address'"),
        ({"kind": "address", "scheduler": "tls://a:1", "workers": 2}, "are started with it"),
        (
            {"kind": "address", "scheduler": "a:1", "tls": {"ca": "a", "cert": "b", "key": "c"}},
            "scheduler must be tls://..., got a:1",
        ),
        ({"workers": 2, "adaptive": {"maximum": 3}}, "workers and adaptive cannot"),
        ({"gpu_workers": 1, "adaptive": {"maximum": 3}}, "adaptive cannot be with gpu_workers"),
        ({"kind": "cuda", "adaptive": {"maximum": 3}}, "adaptive cannot be with kind = 'cuda'"),
        ({"adaptive": {"minimum": 4, "maximum": 3}}, "minimum must be at most maximum=3, got 4"),
        ({"memory_limit": "much"}, "memory_limit: must look like 2GiB or 800MB, got 'much'"),
        ({"memory_limit": 0}, "memory_limit: must be above 0"),
        ({"workers": 0}, "workers: input should be greater than or equal to 1, got 0"),
        ({"timeout_s": float("inf")}, "timeout_s: input should be a finite number"),
        ({"kind": "kubernetes", "kubernetes": {"name": "Mine"}}, "begin with a letter, got 'Mine'"),
    ],
)
def test_what_cannot_hold_is_refused(given: dict[str, Any], says: str) -> None:
    """In one line, with the key; a misspelt one with the one that was meant."""
    with pytest.raises(ConfigError, match=says) as caught:
        parse_table(given, Path("/"), "mine.toml")
    assert caught.value.exit_code == 78
    assert str(caught.value).startswith("mine.toml: ")
    assert "\n" not in str(caught.value)


def test_a_file_may_hold_more_than_the_table(tmp_path: Path) -> None:
    """A nightly configuration serves as it is; paths are relative to the file."""
    file = tmp_path / "nightly.toml"
    text = '[cluster]\nkind = "address"\nscheduler = "tls://a:1"\nwheel = "t.whl"\n'
    tls = '[cluster.tls]\nca = "ca.pem"\ncert = "/abs/cert.pem"\nkey = "key.pem"\n'
    file.write_text(text + tls + "[nightly]\nroot = 'x'\n")
    table = load_table(file)
    assert table.wheel == tmp_path / "t.whl"
    assert table.tls is not None
    assert table.tls.ca == tmp_path / "ca.pem"
    assert table.tls.cert == Path("/abs/cert.pem")
    file.write_text("workers = 2\n")  # the keys alone
    assert load_table(file).workers == 2
    for text, says in (("workers = ", "is not TOML"), ("[clusters]", "clusters is no key")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            load_table(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_table(tmp_path / "nothing.toml")


def test_the_environment_says_where_if_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workflow moves to a cluster without being edited; what is said goes before."""
    file = tmp_path / "cluster.toml"
    file.write_text("[cluster]\nworkers = 7\n")
    monkeypatch.setenv(VARIABLE, str(file))
    assert choose_cluster().workers == 7
    assert choose_cluster(memory_limit=5).memory_limit == 5
    assert choose_cluster(workers=2).workers == 2
    assert choose_cluster(scheduler="127.0.0.1:1").table is None
    assert choose_cluster({"workers": 3}).workers == 3
    _, cluster = settings_of("map.tif", "reference.tif", {})
    assert cluster.workers == 7
    change = api.change_settings(["a", "b"], None, {})
    assert change.cluster.workers == 7
    monkeypatch.setenv(VARIABLE, "")
    assert not choose_cluster().asked


def test_one_place_at_a_time(tmp_path: Path) -> None:
    """A table and an address, or a table and a number of workers, contradict each other."""
    with pytest.raises(ConfigError, match="cannot be given with `scheduler`"):
        choose_cluster({}, scheduler="127.0.0.1:1")
    with pytest.raises(ConfigError, match="cannot be given with `workers`"):
        choose_cluster({}, workers=2)
