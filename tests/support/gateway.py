"""What PostgREST does with a request, in SQL: versions 11 to 14, whose program can't be run here.

One transaction, read only for GET and HEAD and for what is called without a right to write; the
settings of the transaction, in one statement; the function of db-pre-request; the statement.
https://docs.postgrest.org/en/v12/references/transactions.html
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

ROLES = ("anon", "web_user")


class Gateway:
    """Connected as its login role, which has no rights but to become one of `ROLES`."""

    def __init__(self, conn: psycopg.Connection[Any], function: str) -> None:
        self.conn = conn
        self.function = function
        self.search_path = '"public"'

    def request(
        self,
        method: str,
        path: str,
        statement: str,
        *,
        headers: Mapping[str, str] | str | None = None,
        claims: Mapping[str, Any] | str | None = None,
        role: str = "web_user",
        read_only: bool | None = None,
    ) -> list[tuple[Any, ...]]:
        """The statement's rows. `headers` and `claims` as text are sent as they are."""
        reads = method in ("GET", "HEAD") if read_only is None else read_only
        if not isinstance(claims, str):
            claims = json.dumps({**(claims or {}), "role": role}, ensure_ascii=False)
        if not isinstance(headers, str):
            headers = json.dumps({**(headers or {})}, ensure_ascii=False)
        settings = {
            "search_path": self.search_path,
            "role": role,
            "request.jwt.claims": claims,
            "request.method": method,
            "request.path": path,
            "request.headers": headers,
            "request.cookies": "{}",
        }
        sets = ", ".join(["set_config(%s, %s, true)"] * len(settings))
        access = "read only" if reads else "read write"
        self.conn.execute(f"begin isolation level read committed {access}".encode())
        try:
            self.conn.execute(
                f"select {sets}".encode(), [each for pair in settings.items() for each in pair]
            )
            schema, _, name = self.function.partition(".")
            self.conn.execute(sql.SQL("select {}()").format(sql.Identifier(schema, name)))
            cursor = self.conn.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
        except BaseException:
            self.conn.execute("rollback")
            raise
        self.conn.execute("commit")
        return rows


@contextmanager
def gateway(owner: psycopg.Connection[Any], function: str) -> Iterator[Gateway]:
    """The roles of an application behind PostgREST, which may write `todo`."""
    run = owner.execute
    run("create role authenticator login noinherit password 'plain'")
    for role in ROLES:
        run(f"create role {role} nologin".encode())
        run(f"grant {role} to authenticator".encode())
        run(f"grant all on todo to {role}".encode())
        run(f"grant usage on all sequences in schema public to {role}".encode())
    info = owner.info
    try:
        with psycopg.connect(
            host=info.host,
            port=info.port,
            dbname=info.dbname,
            user="authenticator",
            password="plain",
            autocommit=True,
        ) as conn:
            yield Gateway(conn, function)
    finally:
        for role in (*ROLES, "authenticator"):
            run(f"drop owned by {role}".encode())
            run(f"drop role {role}".encode())
