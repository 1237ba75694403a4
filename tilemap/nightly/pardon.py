"""What a person may tell the ledger to try again, or to know no more."""

from __future__ import annotations

from tilemap.nightly.ledger import Ledger


def retry(
    ledger: Ledger, area: str | None = None, key: str | None = None
) -> list[tuple[str, str, str]]:
    """Try again what is set aside or has failed: its failures count no more.

    Args:
        ledger: to write into.
        area: only of this one [default: all].
        key: only this scene, or ``CHANGE_ID``.

    Returns:
        (area, kind, id) of each that had something to forgive, in order.
    """
    these = "(:area IS NULL OR area = :area) AND (:key IS NULL OR id = :key)"
    failed = f"{these} AND counts AND status IN ('failed', 'partial')"
    with ledger.database.transaction() as connection:
        rows = ledger.database.read(
            f"SELECT area, kind, id FROM quarantine WHERE {these}"
            f" UNION SELECT area, kind, id FROM attempt WHERE {failed} ORDER BY 1, 2, 3",
            area=area, key=key,
        )  # fmt: skip
        connection.execute(
            f"UPDATE attempt SET counts = 0 WHERE {failed}", {"area": area, "key": key}
        )
        for row in rows:
            ledger.release(*row)
    return [(row["area"], row["kind"], row["id"]) for row in rows]


def forget(ledger: Ledger, area: str, key: str) -> bool:
    """Know nothing of a scene, or of a series: the next pass finds it new and does it.

    Its attempts go too. Its products stay published until the new ones take their place: no work
    has their digest any more.

    Args:
        ledger: to write into.
        area: name of the area.
        key: of the scene; ``CHANGE_ID`` for the series.

    Returns:
        Whether anything was known.
    """
    known = 0
    with ledger.database.transaction() as connection:
        for statement in (
            "DELETE FROM scene WHERE area = ? AND id = ?",
            "DELETE FROM attempt WHERE area = ? AND id = ?",
            "UPDATE product SET forgotten = 1 WHERE area = ? AND id = ? AND listed",
        ):
            known += connection.execute(statement, (area, key)).rowcount
        known += ledger.release(area, "map", key)
        known += ledger.release(area, "change", key)
    return known > 0
