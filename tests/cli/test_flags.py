"""Messages name options as each interface has them: ``like`` in Python, ``--like`` in a shell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilemap
from tilemap.api import ChangeOptions, Options
from tilemap.cli.flags import with_flags

ROOT = Path(tilemap.__file__).parent
OTHER_PROGRAMS = ("cluster/slurm.py", "cluster/kubernetes.py", "cluster/table.py")
"""Modules that hold the arguments of other programs."""


def texts(path: Path) -> Iterator[str]:
    """The strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def test_no_message_of_the_core_names_a_flag() -> None:
    """Whoever calls from Python, or writes a TOML file, has none; whole commands may be quoted."""
    found = []
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("cli/") or name in OTHER_PROGRAMS:
            continue
        for text in texts(path):
            commands = re.sub(r"(['`])(tilemap |segment ).*?(\1|$)|--(card CARD|root )", "", text)
            found += [f"{name}: {text}" for _ in re.findall(r"--[a-z]", commands)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bring one onto the other with `like`", "bring one onto the other with --like"),
        ("list a.org in `allow_hosts`", "list a.org in --allow-host"),
        ("give another `out`, or `fresh`", "give another --out, or --fresh"),
        ("`polygon_class` and `column`", "--class and --column"),
        ("run `tilemap ledger rebuild`", "run `tilemap ledger rebuild`"),
        ("`nonsense` is no option", "`nonsense` is no option"),
    ],
)
def test_options_are_shown_as_flags(text: str, shown: str) -> None:
    """On the command line; commands and other words stay as they are."""
    assert with_flags(text) == shown


def test_every_option_of_the_api_has_a_flag() -> None:
    """A message may name any of them."""
    names = {*Options.__annotations__, *ChangeOptions.__annotations__} - {"masks"}  # --mask
    assert {name for name in names if not with_flags(f"`{name}`").startswith("--")} == set()
