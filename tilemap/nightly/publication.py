"""What may change in the transaction that publishes."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime

from tilemap.nightly.database import Database
from tilemap.nightly.facts import Product
from tilemap.nightly.rows import product_of, product_values, to_text


class Publication:
    """A change of what is published; given by ``Ledger.publishing``."""

    def __init__(self, database: Database, connection: sqlite3.Connection) -> None:
        self._database = database
        self._connection = connection

    def products(self) -> list[Product]:
        """What the catalog is to name, as this change has it by now: by area, kind, day and id."""
        rows = self._database.read(
            "SELECT * FROM product WHERE listed ORDER BY area, kind, day, id"
        )
        return [product_of(row) for row in rows]

    def add(self, product: Product) -> Product | None:
        """List a product; the one it takes the place of, which is listed no more.

        A product with the same folder was published before: it is listed again.
        """
        row = self._database.row(
            "SELECT * FROM product WHERE area = ? AND kind = ? AND id = ? AND listed"
            " AND folder <> ?",
            product.area, product.kind, product.id, product.folder,
        )  # fmt: skip
        replaced = None if row is None else product_of(row)
        if replaced is not None:
            self.unlist(replaced, product.published)
            replaced = replace(replaced, listed=False, unlisted=product.published)
        values = {**product_values(product), "listed": 1, "unlisted": None, "forgotten": 0}
        values |= {"mirrored": 0, "removed": 0}
        self._connection.execute(
            f"INSERT INTO product ({', '.join(values)})"
            f" VALUES ({', '.join(f':{name}' for name in values)})"
            " ON CONFLICT (folder) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in values),
            values,
        )
        return replaced

    def correct(self, product: Product) -> None:
        """Have the row of a folder say what the record in the folder says."""
        values = product_values(product)
        kept = {"folder"} if product.digest else {"folder", "digest"}  # it was forgotten
        changed = ", ".join(f"{name} = :{name}" for name in values if name not in kept)
        self._connection.execute(f"UPDATE product SET {changed} WHERE folder = :folder", values)

    def unlist(self, product: Product, now: datetime) -> None:
        """The catalog names a product no more."""
        self._connection.execute(
            "UPDATE product SET listed = 0, unlisted = ? WHERE folder = ? AND listed",
            (to_text(now), product.folder),
        )

    def removed(self, product: Product) -> None:
        """A product's folder is gone. If it was mirrored, it is ``left_over`` until that is too."""
        self._connection.execute(
            "DELETE FROM product WHERE folder = ? AND NOT mirrored", (product.folder,)
        )
        self._connection.execute(
            "UPDATE product SET listed = 0, removed = 1 WHERE folder = ?", (product.folder,)
        )

    def mirrored(self, product: Product) -> None:
        """A product lies where products are mirrored to."""
        self._connection.execute(
            "UPDATE product SET mirrored = 1 WHERE folder = ?", (product.folder,)
        )

    def unmirrored(self, product: Product) -> None:
        """A product does not lie there any more; of a removed one nothing is left to know."""
        self._connection.execute(
            "DELETE FROM product WHERE folder = ? AND removed", (product.folder,)
        )
        self._connection.execute(
            "UPDATE product SET mirrored = 0 WHERE folder = ?", (product.folder,)
        )
