"""What the pages say is what the code does, where that can be checked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tilemap import errors

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file, and a heading of it if it has an anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_every_exit_code_is_told() -> None:
    """The table of docs/runs.md has each code an error can leave, and no other."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.TilemapError)}
    codes |= {errors.EXIT_OK, errors.EXIT_PARTIAL}
    told = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "runs.md").read_text(), re.MULTILINE)
    assert {int(code) for code in told} == codes


def test_every_layer_is_in_the_table() -> None:
    """CONTRIBUTING.md names each module of the import contract, in the same order."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["id"] == "layers")["layers"]
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## 2.")[1].split("## 3.")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) == len(layers) + 1  # and workflows/
    for row, layer in zip(rows[1:], layers, strict=True):
        named = {re.sub(r"^tilemap/|/$|\.py$", "", name) for name in re.findall(r"`([^`]+)`", row)}
        assert named == set(re.split(r" [|:] ", layer))
