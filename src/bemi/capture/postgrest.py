"""The function on the source that PostgREST calls before each request: writes get a context.

It lives in a schema of its own, which PostgREST does not show, and is one SQL function: no client,
no trigger. What it sends is in `spec/context.md`; which claims and headers it takes stands in its
text, and in its comment, by which it is found again.
https://docs.postgrest.org/en/stable/references/transactions.html#pre-request
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import msgspec
import psycopg

from bemi.connections import explained
from bemi.context import wire
from bemi.errors import SetupError, UsageError

SCHEMA: Final = "bemi_postgrest"
FUNCTION: Final = "send_context"

_CLAIMS: Final = {"user_id": "sub", "role": "role"}
_OWN: Final = ("method", "endpoint", "request_id", "trace_id", wire.NOTES)
_GIVEN: Final = "bemi-context"
_MOST: Final = 30
"""Of claims and of headers each: with all of them at their longest, a message is half full."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,99}")
_SCHEMA: Final = re.compile(r"(?!pg_)[^.\"@$\\\0-\x20]{1,63}")
_MARK: Final = "Bemi: sends the context of PostgREST's requests; "
_SCHEMA_COMMENT: Final = "Bemi: what PostgREST calls before each request"


class Options(msgspec.Struct, frozen=True):
    """What the function takes from a request, besides method, path and the ids of request and
    trace."""

    schema: str = SCHEMA
    claims: Mapping[str, str] = msgspec.field(default_factory=lambda: {**_CLAIMS})
    """Members of the context, and the claims they are from: names, or paths with dots."""
    headers: Mapping[str, str] = {}
    trusted: tuple[str, ...] = ()
    """Members that clients may say in the header `bemi-context`; `*` is all."""

    @property
    def function(self) -> str:
        """As PostgREST's settings name it: without quotes."""
        return f"{self.schema}.{FUNCTION}"

    @property
    def identifier(self) -> str:
        return f"{_identifier(self.schema)}.{FUNCTION}"


class Installed(msgspec.Struct, frozen=True):
    options: Options
    current: bool
    """Whether it is this version's, word for word."""


def options(
    *,
    schema: str = SCHEMA,
    claims: Sequence[str] = (),
    headers: Sequence[str] = (),
    trusted: Sequence[str] = (),
) -> Options:
    """From flags: `NAME`, or `MEMBER=NAME` where the context is to call it otherwise.

    Raises `UsageError`.
    """
    if not _callable(schema):
        raise UsageError(
            f"--postgrest-schema {schema}: PostgREST can't be told of that",
            fix="choose a name of at most 63 bytes that does not begin with pg_, and has no dots,"
            " quotes, blanks, backslashes, @ and $",
        )
    found = Options(
        schema,
        {**_CLAIMS, **_members("--claim", claims)},
        {
            member.lower() if member == name else member: name.lower()
            for member, name in _members("--header", headers).items()
        },
        tuple(dict.fromkeys(trusted)),
    )
    for name in found.trusted:
        if name != "*" and (not _NAME.fullmatch(name) or name in ("method", "endpoint")):
            raise UsageError(
                f"--trust-context {name}: clients can't say that",
                fix="name a member of the context, or '*' for all but endpoint and method",
            )
    return found


def _callable(schema: str) -> bool:
    return bool(_SCHEMA.fullmatch(schema)) and len(schema.encode()) <= 63


def _members(flag: str, given: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        member, _, name = each.rpartition("=") if "=" in each else (each, "", each)
        if not _NAME.fullmatch(member) or not _NAME.fullmatch(name) or member in _OWN:
            raise UsageError(
                f"{flag} {each} is neither NAME nor MEMBER=NAME",
                fix="names have letters, digits and _.:/@-; "
                f"the context's own members are {', '.join(_OWN)}",
            )
        # A path leads to what is inside of each of its names; those with slashes are one name.
        path = [name] if "/" in name else name.split(".")
        if any(map(wire.is_secret, (name, member, *path))):
            raise UsageError(f"{flag} {each}: secrets are not put into the context")
        if flag == "--header" and name.lower() == _GIVEN:
            raise UsageError(
                f"{flag} {each}: its text may hold secrets", fix="name its members: --trust-context"
            )
        found[member] = name
    if len(found) > _MOST:
        raise UsageError(f"there may be {_MOST} of {flag}")
    return found


def script(chosen: Options) -> str:
    """The SQL that makes it, in one transaction; it may run twice."""
    return _filled(chosen, _literal(_mark(chosen)))


def use(chosen: Options) -> str:
    """The SQL that lets PostgREST call it."""
    return (
        f"alter role authenticator set pgrst.db_pre_request = {_literal(chosen.function)};\n"
        "notify pgrst, 'reload config';"
    )


def removal(chosen: Options) -> str:
    """The SQL that takes it away, with its schema where nothing else lies in it."""
    return (
        f"drop function if exists {chosen.identifier}();\n"
        "do $bemi$\n"
        "begin\n"
        f"    if pg_catalog.obj_description(pg_catalog.to_regnamespace("
        f"{_literal(_identifier(chosen.schema))})::oid, 'pg_namespace') = "
        f"{_literal(_SCHEMA_COMMENT)}\n"
        f"    then drop schema {_identifier(chosen.schema)}; end if;\n"
        "exception when dependent_objects_still_exist then null;\n"
        "end\n"
        "$bemi$;\n"
    )


def read(conn: psycopg.Connection[Any]) -> list[Installed]:
    """What is installed in the connection's database; in several schemas, where it was moved."""
    with explained("source"):
        rows = conn.execute(
            "select n.nspname, pg_catalog.obj_description(p.oid, 'pg_proc'), p.prosrc,"
            " not p.prosecdef and p.proconfig = array['search_path=pg_catalog, pg_temp',"
            " 'standard_conforming_strings=on']"
            " from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
            " where p.proname = %s and p.pronargs = 0 order by 1",
            [FUNCTION],
        ).fetchall()
    found = []
    for schema, comment, body, configured in rows:
        # No other schema can be one of ours, whoever made it, and its name gets into SQL.
        if comment is None or not comment.startswith(_MARK) or not _callable(schema):
            continue
        told = comment.removeprefix(_MARK).partition("; ")[2]
        try:
            chosen = msgspec.structs.replace(msgspec.json.decode(told, type=Options), schema=schema)
        except msgspec.MsgspecError:
            chosen = Options(schema)
        # A comment stays when somebody replaces what it is of.
        made = f"$bemi${body}$bemi$;".replace("\r\n", "\n") in _filled(chosen, "")
        found.append(Installed(chosen, bool(configured) and made and comment == _mark(chosen)))
    return found


def install(conn: psycopg.Connection[Any], chosen: Options) -> bool:
    """Make it, or make it anew where something is amiss; whether that was necessary.

    Raises psycopg's `InsufficientPrivilege`, with nothing done: then `script` is for an owner;
    `SetupError` where the schema, or what is there already, is somebody else's.
    """
    _require_own(conn, chosen)
    if Installed(chosen, current=True) in read(conn):
        return False
    try:
        conn.execute(script(chosen).encode())
    except psycopg.Error:
        # The script's own transaction is open, and failed.
        conn.execute("rollback")
        raise
    return True


def _require_own(conn: psycopg.Connection[Any], chosen: Options) -> None:
    """Who owns it, or the schema it lies in, can put anything in its place, and each request would
    run that with the rights of its role."""
    with explained("source"):
        rows = conn.execute(
            "select what, owner from ("
            "select 'schema ' || n.oid::pg_catalog.regnamespace::text, n.nspowner"
            " from pg_catalog.pg_namespace n where n.nspname = %(schema)s union all "
            "select 'function ' || p.oid::pg_catalog.regprocedure::text, p.proowner"
            " from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname = %(schema)s and p.proname = %(function)s and p.pronargs = 0"
            ") as there (what, oid) cross join lateral pg_catalog.pg_get_userbyid(oid) as owner"
            " where owner <> current_user and not exists (select from pg_catalog.pg_roles r"
            " where r.oid = there.oid and (r.rolsuper or r.rolname = 'pg_database_owner'))"
            # Superusers are members of all roles.
            " and not (pg_catalog.pg_has_role(there.oid, 'member') and not (select rolsuper"
            " from pg_catalog.pg_roles where rolname = current_user)) order by 1",
            {"schema": chosen.schema, "function": FUNCTION},
        ).fetchall()
    for what, owner in rows:
        raise SetupError(
            f"the {what} belongs to {owner}, who could put anything in the place of what each"
            " request calls",
            fix=f"alter {what} owner to {_identifier(_user(conn))}; or drop it",
        )


def _user(conn: psycopg.Connection[Any]) -> str:
    row = conn.execute("select current_user::text").fetchone()
    assert row is not None
    return str(row[0])


def remove(conn: psycopg.Connection[Any], chosen: Options) -> None:
    """Raises psycopg's errors, with nothing done."""
    with conn.transaction():
        conn.execute(removal(chosen).encode())


def callers(conn: psycopg.Connection[Any], chosen: Options) -> list[str]:
    """Roles whose settings have PostgREST call it, and functions that do; each in a few words.

    PostgREST may be told by its own configuration as well, which can't be seen from here.
    """
    with explained("source"):
        settings = conn.execute(
            "select coalesce(r.rolname, 'all roles'), pg_catalog.split_part(s.setting, '=', 2)"
            " from pg_catalog.pg_db_role_setting d"
            " left join pg_catalog.pg_roles r on r.oid = d.setrole"
            " cross join lateral pg_catalog.unnest(d.setconfig) s (setting)"
            " where s.setting like 'pgrst.db\\_pre\\_request=%%'"
            " and d.setdatabase in (0, (select oid from pg_catalog.pg_database"
            " where datname = current_database())) order by 1"
        ).fetchall()
        functions = conn.execute(
            # Those of SQL's standard have no text, but are known to depend on it.
            "select p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p"
            " where pg_catalog.strpos(pg_catalog.lower(pg_catalog.translate(p.prosrc, %s, '')),"
            " pg_catalog.lower(%s) || '(') > 0 or p.oid in (select d.objid"
            " from pg_catalog.pg_depend d where d.deptype = 'n'"
            " and d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
            " and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
            " and d.refobjid = pg_catalog.to_regprocedure(%s)) order by 1",
            ['" \t\r\n', chosen.function, f"{chosen.identifier}()"],
        ).fetchall()
    return [
        *(f"pgrst.db_pre_request of {role}" for role, name in settings if name == chosen.function),
        *(f"the function {name}" for (name,) in functions),
    ]


def unable(conn: psycopg.Connection[Any], chosen: Options) -> dict[str, tuple[str, ...]]:
    """Roles that PostgREST takes on for whose requests nothing is sent, and the SQL that helps.

    Those are the roles granted to one that has a `pgrst.` setting, or is called authenticator.
    """
    with explained("source"):
        rows = conn.execute(
            "with logins as ("
            "  select r.oid from pg_catalog.pg_roles r where r.rolname = 'authenticator'"
            "  union select d.setrole from pg_catalog.pg_db_role_setting d"
            "  where exists (select from pg_catalog.unnest(d.setconfig) s (setting)"
            "    where s.setting like 'pgrst.%%')"
            ") select distinct r.rolname,"
            " pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage'),"
            " pg_catalog.has_function_privilege(r.oid, f.oid, 'execute'),"
            " pg_catalog.has_function_privilege(r.oid, e.oid, 'execute'),"
            " pg_catalog.quote_ident(r.rolname), e.oid::pg_catalog.regprocedure::text"
            " from logins l join pg_catalog.pg_auth_members m on m.member = l.oid"
            " join pg_catalog.pg_roles r on r.oid = m.roleid"
            " join pg_catalog.pg_proc f on f.proname = %s and f.pronargs = 0"
            " join pg_catalog.pg_namespace n on n.oid = f.pronamespace and n.nspname = %s"
            " join pg_catalog.pg_proc e on e.proname = 'pg_logical_emit_message'"
            " and e.pronamespace = 'pg_catalog'::pg_catalog.regnamespace"
            " and e.proargtypes[2] = 'pg_catalog.text'::pg_catalog.regtype"
            " order by 1",
            [FUNCTION, chosen.schema],
        ).fetchall()
    return {
        role: fixes
        for role, usage, call, send, quoted, emit in rows
        if (
            fixes := tuple(
                f"grant {what} to {quoted};"
                for allowed, what in (
                    (usage, f"usage on schema {_identifier(chosen.schema)}"),
                    (call, f"execute on function {chosen.identifier}()"),
                    (send, f"execute on function {emit}"),
                )
                if not allowed
            )
        )
    }


def _mark(chosen: Options) -> str:
    text = hashlib.sha256(_filled(chosen, "").encode()).hexdigest()[:16]
    return f"{_MARK}{text}; {msgspec.json.encode(chosen).decode()}"


def _filled(chosen: Options, comment: str) -> str:
    file = resources.files("bemi.capture").joinpath("postgrest.sql")
    values = {
        "schema": _identifier(chosen.schema),
        "schema_name": _literal(_identifier(chosen.schema)),
        "schema_comment": _literal(_SCHEMA_COMMENT),
        "claims": _literal(json.dumps({**chosen.claims})),
        "headers": _literal(json.dumps({**chosen.headers})),
        "trusted": f"array[{', '.join(map(_literal, chosen.trusted))}]::text[]",
        "secret": _literal(f"(?:{wire.SECRET_NAMES})[0-9]*$"),
        "secrets": _literal(f"(?:{wire.SECRET_NAMES})s[0-9]*$"),
        "comment": comment,
    }
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], file.read_text(encoding="utf-8"))


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
