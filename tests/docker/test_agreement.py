"""What one file under docker/ says of another, and of tilemap, is so."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tilemap import errors

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = {f"tilemap:{PROJECT['version']}-{target}" for target in ("cpu", "cuda")}
SCHEDULER = "tls://tilemap-scheduler:8786"


def let_through(name: str) -> bool:
    """Whether .dockerignore leaves a path in the context: the last line that matches decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        heads = ["/".join(name.split("/")[: n + 1]) for n in range(name.count("/") + 1)]
        if any(fnmatch.fnmatch(head, pattern) for head in heads):
            kept = line.startswith("!")
    return kept


def sources() -> list[str]:
    """What the Dockerfile copies from the context."""
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    copies = [line for line in lines if line.startswith("COPY ") and "--from=" not in line]
    return [word for line in copies for word in line.split()[1:-1]]


def test_every_file_the_image_copies_is_let_through() -> None:
    """What .dockerignore leaves of the context holds every source of a COPY, and little else."""
    assert len(sources()) > 5
    for source in sources():
        found = sorted(ROOT.glob(source))
        assert found, source
        for path in found:
            assert let_through(str(path.relative_to(ROOT))), path
    assert let_through("tilemap/data/models/tilemap-demo-5class/model.json")
    for name in ("tests/conftest.py", ".git/config", "docker/compose.yaml", "in/scene.tif"):
        assert not let_through(name), name


def test_the_image_copies_what_its_script_reads(docker: Path) -> None:
    """Each file beside install.sh that it names."""
    script = (docker / "install.sh").read_text()
    names = {f"docker/requirements-{kind}.txt" for kind in ("cpu", "cuda", "build")}
    names |= {f"docker/{name}.py" for name in ("health", "certificates")}
    names.add("docker/requirements.txt")
    assert "for name in health certificates" in script
    copied = {str(path.relative_to(ROOT)) for source in sources() for path in ROOT.glob(source)}
    assert names <= copied


def test_base_image_is_pinned(docker: Path) -> None:
    """By digest, at the Python that the hashes are for; no other image is pulled."""
    text = (docker / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert len(stages) == len(re.findall("^FROM ", text, re.MULTILINE))
    known = {"${PYTHON_IMAGE}"}
    for source, name in stages:
        assert source in known, source
        known.add(name)
    assert {"cpu", "cuda"} <= known
    assert f'version="{PROJECT["version"]}"' in text
    assert "USER 1000:1000" in text
    assert "(3, 11)" in (docker / "install.sh").read_text()


def images(node: Any) -> list[str]:
    """Every image that a parsed file names."""
    if isinstance(node, list):
        return [found for item in node for found in images(item)]
    if not isinstance(node, dict):
        return []
    own = [node["image"]] if isinstance(node.get("image"), str) else []
    return own + [found for item in node.values() for found in images(item)]


def test_images_are_those_that_the_dockerfile_makes(compose: Any, manifests: list[Any]) -> None:
    """Named by release and target; none without a tag, none that moves."""
    assert set(images(compose["services"])) == IMAGES
    assert set(images(manifests)) == IMAGES
    for name, service in compose["services"].items():
        assert service["image"].endswith("-" + service["build"]["target"]), name
    for path in [*ROOT.glob("docker/**/*"), ROOT / "docs" / "deployment.md"]:
        if path.is_file():
            assert ":latest" not in path.read_text(), path


def test_services_of_compose_are_confined(compose: Any) -> None:
    """No root, no capability, no way to get one; a limit to memory; certificates read-only."""
    for name, service in compose["services"].items():
        assert service["user"] == "1000:1000", name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        for volume in service["volumes"]:
            if isinstance(volume, str) and volume.startswith("certificate-"):
                assert name == "certificates" or volume.endswith(":/certs:ro"), name
            assert name == "certificates" or not str(volume).startswith("authority"), name


def test_volumes_and_networks_of_compose_are_there(compose: Any) -> None:
    """Each that a service names is declared, and each that is declared is used."""
    volumes, networks = set(), set()
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source[0] not in "./$":
                volumes.add(source)
        networks |= set(service.get("networks", ()))
        for path in service.get("env_file", ()):
            assert (ROOT / "docker" / path).is_file()
        assert set(service.get("depends_on", ())) <= set(compose["services"])
    assert volumes == set(compose["volumes"])
    assert networks == set(compose["networks"])
    aliases = compose["services"]["scheduler"]["networks"]["cluster"]["aliases"]
    assert f"tls://{aliases[0]}:8786" == SCHEDULER


def references(spec: Any) -> set[tuple[str, str]]:
    """Kind and name of all that a pod needs to be there."""
    found = {("ServiceAccount", spec["serviceAccountName"])}
    for volume in spec["volumes"]:
        if "secret" in volume:
            found.add(("Secret", volume["secret"]["secretName"]))
        elif "configMap" in volume:
            found.add(("ConfigMap", volume["configMap"]["name"]))
        elif "persistentVolumeClaim" in volume:
            found.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    for container in spec["containers"]:
        for source in container.get("envFrom", ()):
            found.add(("ConfigMap", source["configMapRef"]["name"]))
    return found


def test_everything_a_pod_names_is_there(
    docker: Path, manifests: list[Any], kustomization: Any, pods: dict[str, Any]
) -> None:
    """Claims, accounts, maps and secrets; each pod mounts each volume it has, once or more."""
    script = (docker / "k8s" / "secrets.sh").read_text()
    (roles,) = re.findall(r"^for role in (.+); do$", script, re.MULTILINE)
    there = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    there |= {("ConfigMap", g["name"]) for g in kustomization["configMapGenerator"]}
    there |= {("Secret", f"tilemap-tls-{role}") for role in roles.split()}
    needed = set().union(*(references(spec) for spec in pods.values()))
    assert needed <= there
    unused = there - needed
    assert {kind for kind, _ in unused} & {"ConfigMap", "Secret", "PersistentVolumeClaim"} == set()
    for name, spec in pods.items():
        every = [*spec["containers"], *spec.get("initContainers", ())]
        mounted = {mount["name"] for c in every for mount in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}, name


def test_pods_are_confined(pods: dict[str, Any]) -> None:
    """What the restricted standard asks for, a root that is not written to, no token, a limit."""
    for name, spec in pods.items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] == 1000, name
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["readOnlyRootFilesystem"], name
            assert context["allowPrivilegeEscalation"] is False, name
            assert container["resources"]["limits"]["memory"], name


def test_each_role_sees_its_own_certificate(pods: dict[str, Any], compose: Any) -> None:
    """And at the paths that Dask is told."""
    roles = {"scheduler": "scheduler", "worker": "worker", "worker-gpu": "worker"}
    for name, role in {**roles, "nightly": "client"}.items():
        spec = pods[name]
        secrets = [v for v in spec["volumes"] if "secret" in v]
        assert [v["secret"]["secretName"] for v in secrets] == [f"tilemap-tls-{role}"]
        paths = {item["path"] for item in secrets[0]["secret"]["items"]}
        assert paths == {"ca.pem", "cert.pem", "key.pem"}
        mounts = spec["containers"][0]["volumeMounts"]
        assert [m["mountPath"] for m in mounts if m["name"] == "certificate"] == ["/certs"]
        assert f"certificate-{role}:/certs:ro" in compose["services"][name]["volumes"]


def test_dask_is_told_where_certificates_lie(dask_env: dict[str, str], docker: Path) -> None:
    """dask.env, and nightly.toml for the driver, name files of the mount."""
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    told = {key.removeprefix(prefix): v for key, v in dask_env.items() if key.startswith(prefix)}
    expected = {"CA_FILE": "/certs/ca.pem"}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        expected |= {f"{role}__CERT": "/certs/cert.pem", f"{role}__KEY": "/certs/key.pem"}
    assert told == expected
    assert dask_env["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
    cluster = tomllib.loads((docker / "nightly.toml").read_text())["cluster"]
    assert set(cluster["tls"].values()) == {"/certs/ca.pem", "/certs/cert.pem", "/certs/key.pem"}
    assert cluster["scheduler"] == SCHEDULER


def test_workers_of_a_standing_cluster_are_set_up_as_embedded_ones(
    dask_env: dict[str, str],
) -> None:
    """dask.env says what tilemap.cluster.embedded says."""
    import dask

    from tilemap.cluster.embedded import CONFIGURATION, ENVIRONMENT

    told = dask.config.collect_env(dask_env)
    for key, value in CONFIGURATION.items():
        if key != "distributed.nanny.pre-spawn-environ":
            assert dask.config.get(key, config=told) == value, key
    assert {key: dask_env[key] for key in ENVIRONMENT} == ENVIRONMENT


def options(words: list[str]) -> set[str]:
    """Options of a command that are the same wherever it runs."""
    return {word for word in words if not word.startswith("--name=")}


def test_compose_and_kubernetes_start_the_same(compose: Any, pods: dict[str, Any]) -> None:
    """Entry point and options of scheduler and workers, memory within the container's."""
    for name in ("scheduler", "worker", "worker-gpu"):
        service, (container,) = compose["services"][name], pods[name]["containers"]
        assert service["entrypoint"] == container["command"], name
        assert options(service["command"]) == options(container["args"]), name
        probe = container["livenessProbe"]["exec"]["command"]
        assert ["CMD", *probe] == service["healthcheck"]["test"], name
        limit = re.search(r"--memory-limit=(\d+)GiB", " ".join(service["command"]))
        if limit is not None:
            assert int(limit[1]) < int(service["mem_limit"].removesuffix("g")), name
            memory = container["resources"]["limits"]["memory"]
            assert int(limit[1]) < int(memory.removesuffix("Gi")), name
    assert compose["services"]["nightly"]["command"] == pods["nightly"]["containers"][0]["args"]
    assert pods["worker-gpu"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "--resources=GPU=2" in pods["worker-gpu"]["containers"][0]["args"]


def test_ports(docker: Path, pods: dict[str, Any], manifests: list[Any], load_script: Any) -> None:
    """Those that are listened on are declared, let through, and looked at by the health check."""
    health = load_script(docker / "health.py")
    declared = {
        name: {port["containerPort"] for port in spec["containers"][0].get("ports", ())}
        for name, spec in pods.items()
    }
    assert declared["scheduler"] == {8786, 8787}
    assert declared["worker"] == declared["worker-gpu"] == {8788, 8789}
    assert declared["nightly"] == set()
    assert (health.SCHEDULER_PORT, health.WORKER_PORT) == (8786, 8788)
    for name in ("worker", "worker-gpu"):
        assert "--worker-port=8788" in pods[name]["containers"][0]["args"]
        assert "--nanny-port=8789" in pods[name]["containers"][0]["args"]
    (cluster,) = [m for m in manifests if m["kind"] == "DaskCluster"]
    service = cluster["spec"]["scheduler"]["service"]
    assert {port["port"] for port in service["ports"]} == {8786, 8787}
    assert f"tls://{cluster['metadata']['name']}-scheduler:8786" == SCHEDULER


def opened(rules: list[Any]) -> set[int]:
    """TCP ports of a policy's rules."""
    ports = [port for rule in rules for port in rule["ports"] if port["protocol"] == "TCP"]
    return {n for p in ports for n in range(p["port"], p.get("endPort", p["port"]) + 1)}


def test_network_lets_through_what_is_needed(manifests: list[Any]) -> None:
    """All is shut; each listener's ports are open to those, and only those, that name them."""
    policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
    assert policies["tilemap-none"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    scheduler, worker = policies["tilemap-scheduler"], policies["tilemap-worker"]
    assert opened(scheduler["ingress"]) == {8786, 8787}
    assert opened(worker["ingress"]) == opened(scheduler["egress"]) == {8788, 8789}
    assert opened(worker["egress"]) == {8786, 8788, 8789}
    assert opened(policies["tilemap-nightly"]["egress"]) == {8786}
    (cron,) = [m for m in manifests if m["kind"] == "CronJob"]
    labels = cron["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert policies["tilemap-nightly"]["podSelector"]["matchLabels"] == labels
    callers = [one["podSelector"]["matchLabels"] for one in scheduler["ingress"][0]["from"]]
    assert labels in callers
    assert worker["podSelector"]["matchLabels"] in callers


def exit_codes() -> set[int]:
    """Every code that `tilemap` leaves other than 0."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.TilemapError)}
    return codes | {errors.EXIT_PARTIAL}


def test_every_exit_code_is_decided_upon(manifests: list[Any], docker: Path) -> None:
    """Kubernetes, systemd and Slurm agree which of them are tried again, and none is forgotten."""
    again = {69, 74, 75}
    (cron,) = [m for m in manifests if m["kind"] == "CronJob"]
    rules = cron["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    (final,) = [set(r["onExitCodes"]["values"]) for r in rules if r["action"] == "FailJob"]
    assert final == exit_codes() - again
    unit = (docker / "systemd" / "tilemap-nightly.service").read_text()
    (prevented,) = re.findall(r"^RestartPreventExitStatus=(.+)$", unit, re.MULTILINE)
    assert {int(code) for code in prevented.split()} == final
    assert "\nSuccessExitStatus=75 143\n" in unit
    batch = (docker / "slurm" / "nightly.sbatch").read_text()
    (once_more,) = re.findall(r"^(\d+(?: \| \d+)*)\) .*not there just now$", batch, re.MULTILINE)
    assert {int(code) for code in once_more.split(" | ")} == again - {75}
    page = (ROOT / "docs" / "deployment.md").read_text()
    rows = re.findall(r"^\| ([0-9, ]+) \|", page, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(", ")} == exit_codes() | {0}


@pytest.mark.parametrize("name", ["nightly.toml", "systemd/nightly.toml", "slurm/nightly.toml"])
def test_configurations_are_read(docker: Path, name: str) -> None:
    """Every key is one that `tilemap nightly` knows."""
    from tilemap.nightly.config import load_config

    config = load_config(docker / name)
    assert config.root.is_absolute()
    assert config.areas


def test_configuration_of_a_slurm_allocation_is_read(docker: Path, tmp_path: Path) -> None:
    """As gpu.sbatch fills it in; it names nothing relative, for it is put elsewhere."""
    from tilemap.nightly.config import load_config

    script = (docker / "slurm" / "gpu.sbatch").read_text()
    text = (docker / "slurm" / "gpu.toml").read_text()
    blanks = set(re.findall("@[A-Z]+@", text))
    assert blanks == set(re.findall("@[A-Z]+@", script))
    filled = text.replace("@SCHEDULER@", "tls://10.0.0.1:10001").replace("@CERTIFICATES@", "/certs")
    (tmp_path / "nightly.toml").write_text(filled)
    config = load_config(tmp_path / "nightly.toml")
    assert str(tmp_path) not in config.model_dump_json()
    assert config.cluster.scheduler == "tls://10.0.0.1:10001"
