"""The rows of a table as they were, as `History.at` tells them, for threads that share a process:
what is not surely known is told by a value, not by a warning."""

from collections.abc import Generator
from contextlib import closing
from typing import Final

from bemi.api.archive import Archive
from bemi.history import moments, state
from bemi.history.asking import key_of, moment_of
from bemi.history.change import Row
from bemi.store.refusals import told

_WHOLE: Final = "set local statement_timeout to '10min'"


def rows_at(
    archive: Archive,
    when: str,
    table: str,
    key: str | None = None,
    *,
    source: str | None,
    allow_gaps: bool,
) -> Generator[Row | str | None]:
    """First why they are not surely known, or None; then the rows. Raises as `History.at` does."""
    name = table if "." in table else f"public.{table}"
    moment, text = moment_of(when), None if key is None else key_of(key)
    with archive.connected() as conn:
        place = moments.find(conn, archive.schema, moment, name, source)
        with told(), conn.transaction():
            question = state.asked(
                conn,
                archive.schema,
                place.source,
                name,
                place.position,
                epoch=place.epoch,
                key=text,
                allow_gaps=allow_gaps,
            )
            if text is None:
                # It counts until the last row was taken, however slowly.
                conn.execute(_WHOLE)
            yield question.uncertain
            with closing(state.rows(conn, question)) as found:
                for row in found:
                    yield Row.of(row)
