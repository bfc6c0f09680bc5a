"""Opens connections to the source and the destination, and says why one can't be had.

A connection that half opens must not hang a worker for ever: TCP keepalive and
`tcp_user_timeout` end it. Errors never show a password.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final, Literal

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bemi.errors import BemiError, ConfigError, PassingError, RefusedError, SetupError

Role = Literal["source", "destination", "target"]
"""`target`: a database that neither is, which a command writes to."""

_DEFAULTS: Final[dict[str, str]] = {
    "application_name": "bemi",
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}

# libpq gives no SQLSTATE for a connection that was refused, only the server's words.
# https://www.postgresql.org/docs/current/errcodes-appendix.html (57P03, 53300, 57P01)
_PASSING_WORDS: Final = (
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "the database system is not accepting connections",
    "too many clients already",
    "too many connections",
    "remaining connection slots are reserved",
    "number of requested standby connections exceeds",
    "terminating connection",
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING_CLASSES: Final = ("08", "40", "53", "57", "58")
_PASSING_CODES: Final = ("55006", "55P03", "25P03", "25P04")

# What a role or a database may have set, and a connection that lasts for days can't live with.
_LASTING: Final = {
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    # A worker that froze in the middle must not hold up the one that takes over for ever.
    "idle_in_transaction_session_timeout": "5min",
    # Nor must one whose machine lost power: the server finds out as the client would.
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
}


def connect(
    url: str,
    *,
    what: Role,
    autocommit: bool = True,
    replication: bool = False,
    options: str = "",
    **parameters: str,
) -> psycopg.Connection[Any]:
    """Open a connection; `options` are added to those of the URL.

    Raises `PassingError` when the server is refusing, starting or full, `ConfigError` for a
    URL that does not parse, and `SetupError` for what waiting will not mend.
    """
    if replication:
        parameters["replication"] = "database"
    given = conninfo(url, what=what, options=options, **parameters)
    try:
        conn = psycopg.connect(given, autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise _refused(error, url, what) from error
    if not (conn.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
        # A role or database may prefer another one, in which psycopg reads no times.
        with explained(what):
            conn.execute("set datestyle to 'ISO'")
            conn.commit()
    return conn


def conninfo(url: str, *, what: Role, options: str = "", **parameters: str) -> str:
    """What `connect` connects with. Raises `ConfigError` for a URL that does not parse."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ConfigError(
            f"the {what}'s connection URL does not parse",
            fix="use a form like postgresql://user:password@host:5432/database",
        ) from error
    # psycopg gives bytes for text where the encoding, by default the server's, is SQL_ASCII.
    merged: dict[str, Any] = {**_DEFAULTS, **given, "client_encoding": "UTF8", **parameters}
    merged["options"] = f"{given.get('options') or ''} {options}".strip()
    if not merged["options"]:
        del merged["options"]
    return make_conninfo("", **merged)


def make_lasting(conn: psycopg.Connection[Any]) -> None:
    """Set a session up to last: no limits but against peers that are gone."""
    settings = dict(_LASTING)
    if conn.info.server_version >= 170000:
        settings["transaction_timeout"] = "0"
    for name, value in settings.items():
        # Without parameters: a replication connection takes the simple protocol only.
        conn.execute(
            sql.SQL("set session {} to {}").format(sql.Identifier(name), sql.Literal(value))
        )
    if not conn.autocommit:
        conn.commit()


def describe(url: str) -> str:
    """`host:port/database` of a URL, for messages: no user, no password."""
    given = conninfo_to_dict(url)
    host = given.get("host") or given.get("hostaddr") or "local socket"
    database = given.get("dbname") or given.get("user") or "?"
    return f"{host}:{given.get('port') or 5432}/{database}"


@contextlib.contextmanager
def explained(what: Role) -> Iterator[None]:
    """Turns psycopg's errors into Bemi's, by SQLSTATE: one that passes, or one that stays."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, what) from error


def explain(error: psycopg.Error, what: Role) -> BemiError:
    """The error of Bemi that `error`, met on an open connection, amounts to."""
    code = error.sqlstate
    words = first_line(error)
    if code is None:
        # The connection is gone, or the driver itself can't do what it was asked to.
        if isinstance(error, psycopg.OperationalError):
            return PassingError(f"the {what} broke off: {words}")
        return SetupError(f"the {what} can't be used: {words}")
    if code[:2] in _PASSING_CLASSES or code in _PASSING_CODES:
        return PassingError(f"the {what} broke off: {words}")
    if code == "25006":
        return SetupError(
            f"the {what} is read-only: {words}",
            fix=f"point the {what}'s URL at a server that takes writes "
            "(not a standby; default_transaction_read_only off)",
        )
    if code == "42501":
        return SetupError(
            f"a privilege is missing on the {what}: {words}",
            fix="grant it to the role of its URL"
            if what == "target"
            else "`bemi doctor` lists the privileges that are missing and the SQL that grants them",
        )
    return SetupError(f"the {what} refused: {words}")


def first_line(error: BaseException) -> str:
    """The server's message without its detail, which may hold row values."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _telling_line(text: str) -> str:
    """Of what libpq says, over several lines and tries: the server's words, else the first."""
    lines = text.strip().splitlines() or ["no answer"]
    told = next((line for line in reversed(lines) if "FATAL:" in line), lines[0])
    return told.rpartition(" failed: ")[2]


def _refused(error: psycopg.OperationalError, url: str, what: Role) -> BemiError:
    words = _telling_line(str(error))
    where = f"{what} {describe(url)}"
    message = f"can't connect to the {where}: {words}"
    if "FATAL:" not in words and "password" not in words:
        # The server was not reached, or hung up without a word. A host name that does not
        # resolve may come back, so it is waited for too; the message says what is tried.
        return PassingError(message, fix=f"is PostgreSQL running there? check the {what}'s URL")
    if any(phrase in words for phrase in _PASSING_WORDS):
        return PassingError(message)
    variable = "the URL that was given" if what == "target" else f"BEMI_{what.upper()}_URL"
    if what == "destination":
        variable += " (BEMI_SOURCE_URL, where that is not set)"
    if "password" in words or "authentication" in words:
        fix = f"check user and password in {variable}"
    elif "database" in words and "does not exist" in words:
        fix = f"check the database's name in {variable}, or create it"
    elif "pg_hba.conf" in words:
        fix = "allow this host and user in the server's pg_hba.conf"
    elif any(phrase in words.lower() for phrase in ("walsender", "wal sender", "replication")):
        fix = "ALTER ROLE … REPLICATION; on a managed service, grant its replication role"
    else:
        return RefusedError(message, fix=f"check {variable}")
    return SetupError(message, fix=fix)
