"""A history in which everything that an application can name or write is written by somebody who
means ill."""

import json
from typing import Final

from psycopg import sql

from bemi.config import Settings
from tests.support.attic import HOSTILE
from tests.support.tracked import Tracked
from tests.support.tracking import track

TABLE: Final = "<img src=x onerror=alert(1)>'\"&"
COLUMN: Final = "<svg onload=alert(1)>\"'{{7*7}}"
REQUEST: Final = "../../sign-out?x=<script>alert(2)</script>#\"'"
LONG: Final = "<script>alert(3)</script>" * 1000
DEEP: Final = 200

_EMIT: Final = "select pg_logical_emit_message(true, '_bemi', %s)"
_CONTEXT: Final = {
    "user_id": HOSTILE,
    "endpoint": f"/{HOSTILE}",
    "method": HOSTILE,
    "request_id": REQUEST,
    "trace_id": HOSTILE,
    "job": HOSTILE,
    HOSTILE: {HOSTILE: [HOSTILE]},
}


def filled(source_url: str, destination_url: str) -> Settings:
    name = sql.Identifier(TABLE)
    column = sql.Identifier(COLUMN)
    settings = Settings(source_url=source_url, destination_url=destination_url)
    tracked = Tracked(settings)
    tracked.source.execute(
        sql.SQL("create table {} (id text primary key, {} text, note jsonb, long text)").format(
            name, column
        )
    )
    tracked.close()
    settings = track(
        source_url,
        destination_url,
        tables=[f"public.{TABLE}"],
        full=[f"public.{TABLE}"],
        source="hostile",
    )
    tracked = Tracked(settings)
    with tracked.source.transaction():
        tracked.source.execute(_EMIT, [json.dumps(_CONTEXT)])
        tracked.source.execute(
            sql.SQL("insert into {} values (%s, %s, %s, %s)").format(name),
            [HOSTILE, HOSTILE, json.dumps({HOSTILE: HOSTILE, "deep": _nested()}), LONG],
        )
        tracked.source.execute(
            sql.SQL("update {} set {} = %s, note = %s, long = %s").format(name, column),
            [
                f"{HOSTILE} ",
                json.dumps({HOSTILE: f"{HOSTILE}!", "deep": _nested(), REQUEST: 1}),
                f"{LONG}!",
            ],
        )
    tracked.catch_up()
    tracked.close()
    return settings


def _nested() -> object:
    value: object = HOSTILE
    for _ in range(DEEP):
        value = {HOSTILE[:8]: value}
    return value
