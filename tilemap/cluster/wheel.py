"""A wheel of tilemap for workers that have none, or another one; by digest, once for each host.

Everything here but ``send_wheel`` runs where there may be no tilemap: it is sent as it is, and
imports nothing of it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from distributed import Client, Worker, WorkerPlugin


def cache_folder(fallback: str | None = None) -> Path:
    """Where files that were sent are kept, by digest: the user's data, or where one may write.

    Args:
        fallback: such as a worker's own directory.
    """
    home = os.environ.get("TILEMAP_HOME")
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    wanted = Path(home) if home else Path(data).expanduser() / "tilemap"
    for root in (wanted, Path(fallback or tempfile.gettempdir()) / "tilemap"):
        try:
            (root / "sent").mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(root / "sent", os.W_OK):
            return root / "sent"
    raise OSError(f"cannot write to {wanted} nor {fallback or tempfile.gettempdir()}")


def activate(digest: str, content: bytes, fallback: str | None = None) -> str:
    """Unpack a wheel unless it is there, and import tilemap from it from now on.

    Args:
        digest: SHA-256 of the content, hexadecimal.

    Returns:
        The folder it lies in.

    Raises:
        ValueError: if the content is not what was sent.
    """
    folder = cache_folder(fallback) / f"wheel-{digest}"
    if not folder.is_dir():
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise ValueError(f"the wheel must have sha256 {digest}, what came has {found}")
        part = Path(tempfile.mkdtemp(prefix=".wheel-", dir=folder.parent))
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                archive.extractall(part)
            part.chmod(0o755)
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process of this host was quicker
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    loaded = sys.modules.get("tilemap")
    if loaded is not None and not str(loaded.__file__).startswith(str(folder)):
        for name in [n for n in sys.modules if n == "tilemap" or n.startswith("tilemap.")]:
            del sys.modules[name]
    return str(folder)


class WheelPlugin(WorkerPlugin):
    """Puts a wheel into every worker process, those that join later included.

    Not a coroutine: Dask sets plugins up in their order up to the first wait, and those that
    follow are of tilemap.
    """

    name = "tilemap-wheel"

    def __init__(self, digest: str, content: bytes) -> None:
        self.digest, self.content = digest, content

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        activate(self.digest, self.content, worker.local_directory)


def wheel_code(content: bytes) -> str:
    """Digest of the modules of tilemap in a wheel, as ``versions.code_digest`` has it.

    Raises:
        ValueError: if it is no wheel of tilemap.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [n for n in archive.namelist() if n.startswith("tilemap/") and n[-3:] == ".py"]
            for name in sorted(names):
                digest.update(name.removeprefix("tilemap/").encode() + b"\0")
                digest.update(hashlib.sha256(archive.read(name)).digest())
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    if not names:
        raise ValueError("there is no tilemap in it")
    return digest.hexdigest()[:12]


def send_wheel(client: Client, path: Path) -> None:
    """Have scheduler and workers use a wheel, which must be of what runs here.

    Raises:
        ConfigError: if it cannot be read, or is of another tilemap than this one.
    """
    from tilemap.cluster.driver import by_value, put
    from tilemap.cluster.versions import code_digest
    from tilemap.errors import ConfigError
    from tilemap.files import read_file

    try:
        content = read_file(path)
        code = wheel_code(content)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cluster.wheel {path}: must be a wheel of tilemap: {error}") from error
    if code != code_digest():
        raise ConfigError(
            f"cluster.wheel {path.name} must hold the tilemap that runs here, code "
            f"{code_digest()}, it holds {code}; build it again"
        )
    digest = hashlib.sha256(content).hexdigest()
    with by_value(sys.modules[__name__]):
        client.run_on_scheduler(activate, digest, content)
        put(client, WheelPlugin(digest, content))
