"""What could not be looked at, for a person."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilemap.nightly.facts import Problem


@dataclass
class Notes:
    """What could not be looked at, gathered to one problem of each kind."""

    area: str
    problems: list[Problem] = field(default_factory=list)
    _paths: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, source: str, text: str) -> None:
        """One problem."""
        self.problems.append(Problem(self.area, source, text))

    def count(self, path: str, what: str, rest: str) -> None:
        """One of many, such as a "file" that "cannot be read"."""
        self._paths.setdefault((what, rest), []).append(path)

    def all(self) -> list[Problem]:
        """Each of them."""
        found = list(self.problems)
        for (what, rest), paths in self._paths.items():
            number = f"{len(paths)} {what}s" if len(paths) > 1 else f"1 {what}"
            which = "the first is" if len(paths) > 1 else "it is"
            found.append(Problem(self.area, paths[0], f"{number} {rest}; {which} {paths[0]!r}"))
        return found
