"""Sends the current context through Django's connections of psycopg2."""

from typing import Any

from bemi.integrations import psycopg2


def install(connection: Any, **options: Any) -> None:
    """`connection`: Django's, which has just been opened."""
    driver = connection.connection
    psycopg2.install(driver, **options)

    def commit() -> None:
        # Django commits by the connection's own method, where no cursor is.
        if connection.connection is driver:
            with connection.wrap_database_errors, psycopg2.committing(driver):
                pass
        type(connection)._commit(connection)  # noqa: SLF001 - the method that this one stands for

    connection._commit = commit  # noqa: SLF001
