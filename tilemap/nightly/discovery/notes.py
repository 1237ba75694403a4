"""What could not be looked at, for a person."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilemap.nightly.facts import Problem

NO_RASTERS = "without an asset that is .tif, .tiff or .jp2"


@dataclass
class Notes:
    """What could not be looked at, gathered to one problem of each kind."""

    area: str
    problems: list[Problem] = field(default_factory=list)
    _counts: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, source: str, text: str) -> None:
        """One problem."""
        self.problems.append(Problem(self.area, source, text))

    def count(self, path: str, what: str, rest: str, why: str = "") -> None:
        """One of many, such as a "file" that "cannot be read"; why is told of the first only."""
        self._counts.setdefault((what, rest), []).append((path, why))

    def all(self) -> list[Problem]:
        """Each of them."""
        found = list(self.problems)
        for (what, rest), each in self._counts.items():
            path, why = each[0]
            many = len(each) > 1
            number, which = (f"{len(each)} {what}s", "the first is") if many else (f"1 {what}", "")
            text = f"{number} {rest}; {which or 'it is'} {path!r}" + (f": {why}" if why else "")
            found.append(Problem(self.area, path, text))
        return found
