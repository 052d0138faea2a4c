"""One text for any number of rows: each table is unnested from arrays, so the server plans a statement once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepwell.adapters.postgres.tables import Row, Table


class Statement:
    """A template with ``{alias}`` where a table's rows stand behind FROM, and ``{name}`` for each single value."""

    def __init__(
        self, template: str, *tables: Table, values: Mapping[str, str] | None = None, numbered: Sequence[Table] = ()
    ) -> None:
        self._tables = tables
        self._values = tuple(values or {})
        places: dict[str, str] = {}
        number = 1
        for table in tables:
            places[table.alias] = table.source(number, numbered=table in numbered)
            number += len(table.columns)
        for name, kind in (values or {}).items():
            places[name] = f"${number}::{kind}"
            number += 1
        self.sql = template.format(**places)

    def arguments(self, *rows: Sequence[Row], **values: Any) -> list[Any]:
        """The parameters: the rows of each table in the order of the tables, and the single values."""
        arguments: list[Any] = []
        for table, given in zip(self._tables, rows, strict=True):
            arguments.extend(table.arrays(given))
        arguments.extend(values[name] for name in self._values)
        return arguments
