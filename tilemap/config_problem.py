"""What is wrong with a configuration, in one line for a person."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

_LONGEST = 400
_ORDER = ("extra_forbidden", "missing")  # a misspelt key is the cause of one that is missing


def first_problem(error: ValidationError, tables: Mapping[str, type[BaseModel]]) -> str:
    """Key, what must hold, what came.

    Args:
        error: of a whole configuration.
        tables: the model of each table by its name, as ``areas.segment``; "" is the whole.
    """
    problems = error.errors(include_url=False)
    found = {_key(problem["loc"], tables): problem for problem in reversed(problems)}
    for key in [key for key in found if any(other.startswith(key + "[") for other in found)]:
        del found[key]  # a list is too short because one of it is wrong
    rank = {kind: at for at, kind in enumerate(_ORDER)}
    key, problem = min(
        reversed(found.items()), key=lambda item: rank.get(item[1]["type"], len(rank))
    )
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    text = " ".join(_told(key, problem, tables).split())  # a key may hold anything
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") + more


def _key(place: tuple[int | str, ...], tables: Mapping[str, type[BaseModel]]) -> str:
    """``scenes[0].files``: without the branches of a union that pydantic tells after the key."""
    key, table, inside = "", "", True
    for part in place:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part == "options":  # which a person does not write
            continue
        elif not inside:
            break
        else:
            key += f".{part}" if key else part
            table = f"{table}.{part}" if table else part
            inside = table in tables
    return key


def _told(key: str, problem: Any, tables: Mapping[str, type[BaseModel]]) -> str:
    if problem["type"] == "extra_forbidden":
        return f"{key} is no key that is known; {_resembling(problem['loc'], tables)}"
    if problem["type"] == "missing":
        return f"{key} must be given"
    text = problem["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if problem["type"] == "value_error":
        return f"{key}: {text}" if key else text
    return f"{key}: {text}, got {repr(problem['input'])[:80]}"


def _resembling(place: tuple[int | str, ...], tables: Mapping[str, type[BaseModel]]) -> str:
    """A hint at the key that was probably meant."""
    table = ""
    for part in place[:-1]:
        if isinstance(part, str) and (longer := f"{table}.{part}" if table else part) in tables:
            table = longer
    fields = tables[table].model_fields
    near = difflib.get_close_matches(str(place[-1]), fields, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
