"""The process of one of Django's drivers: reads what to do from its input, and answers."""

# ruff: noqa: E402 - Django looks for its driver when it is imported

import io
import pickle
import sys
import warnings
from collections.abc import Sequence
from typing import Any

DRIVER = sys.argv[1]
if DRIVER == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment] # Django would prefer it

import django
from django.apps import apps
from django.conf import settings
from django.db import connections, transaction
from django.db.backends.signals import connection_created

import bemi
from bemi.context import notice


class Session:
    def __init__(self) -> None:
        self._blocks: list[tuple[Any, bool]] = []

    @property
    def _connection(self) -> Any:
        return connections["default"]

    def open(
        self, address: dict[str, Any], autocommit: bool, plain: bool, options: dict[str, Any]
    ) -> None:
        settings.BEMI = options
        connections.databases["default"].update(
            NAME=address["dbname"],
            USER=address["user"],
            PASSWORD=address.get("password", ""),
            HOST=address["host"],
            PORT=address["port"],
        )
        if plain:
            connection_created.disconnect(dispatch_uid="bemi")
        self._connection.set_autocommit(autocommit)
        if plain:
            apps.get_app_config("bemi").ready()

    def close(self) -> None:
        self._connection.close()
        del connections["default"]

    def _execute(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        text = statement.format(*["%s"] * len(parameters))
        cursor.execute(text, parameters or None)

    def run(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            self._execute(cursor, statement, parameters)
            return [] if cursor.description is None else cursor.fetchall()

    def count(self, statement: str, parameters: Sequence[Any]) -> Any:
        with self._connection.cursor() as cursor:
            self._execute(cursor, statement, parameters)
            return cursor.rowcount

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(statement.format(*["%s"] * len(rows[0])), rows)

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            statement = f"copy {table} from stdin"
            if DRIVER == "psycopg2":
                lines = "".join("\t".join(row) + "\n" for row in rows)
                cursor.copy_expert(statement, io.StringIO(lines))
                return
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def enter(self) -> None:
        """Outside of autocommit, Django's blocks are savepoints only."""
        toggled = not self._connection.in_atomic_block and not self._connection.get_autocommit()
        if toggled:
            self._connection.set_autocommit(True)
        block = transaction.atomic()
        block.__enter__()
        self._blocks.append((block, toggled))

    def leave(self, failed: bool) -> None:
        block, toggled = self._blocks.pop()
        error = ZeroDivisionError() if failed else None
        block.__exit__(error and type(error), error, None)
        if toggled:
            self._connection.set_autocommit(False)


def main() -> None:
    binding = {"server_side_binding": True} if DRIVER == "server_side_binding" else {}
    database = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": binding}
    settings.configure(
        INSTALLED_APPS=["bemi.integrations.django"], DATABASES={"default": database}, USE_TZ=True
    )
    django.setup()
    answers = sys.stdout.buffer
    session = Session()
    while True:
        try:
            name, arguments, context, told = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        notice._told.clear()
        notice._told.update(told)
        value: Any = None
        error: Exception | None = None
        with warnings.catch_warnings(record=True) as caught, bemi.context(context):
            warnings.simplefilter("always", RuntimeWarning)
            try:
                value = getattr(session, name)(*arguments)
            except Exception as raised:  # noqa: BLE001 - it is the other process's to see
                error = raised
        warned = [str(each.message) for each in caught]
        pickle.dump((value, error, warned, notice._told), answers)
        answers.flush()


if __name__ == "__main__":
    main()
