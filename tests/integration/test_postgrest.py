"""The function for PostgREST: writing requests have one context each, and nothing makes them fail.

PostgREST itself can't be run here; `tests.support.gateway` does in SQL what it does.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from bemi.capture import postgrest
from bemi.capture.checks import postgrest as check
from bemi.capture.checks.finding import Servers
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import SetupError, UsageError
from tests.conftest import MakeDatabase
from tests.support.asked import Asked
from tests.support.gateway import Gateway, gateway
from tests.support.wal import Log

CASES = Path(__file__).parents[2] / "spec" / "context-cases"
INSERT = "insert into todo (task) values ('a') returning task"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def web(log: Log) -> Iterator[Gateway]:
    chosen = postgrest.options()
    postgrest.install(log.conn, chosen)
    with gateway(log.conn, chosen.function) as made:
        yield made


def sent(log: Log) -> dict[str, Any]:
    """The one context of the one transaction since the last call."""
    ((context, write),) = log.seen()
    assert write == "insert"
    assert isinstance(context, dict)
    return context


def test_a_write_has_who_and_how(web: Gateway, log: Log) -> None:
    headers = {
        "x-request-id": "req-10",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        "authorization": "Bearer s3cret",
        "user-agent": "curl",
    }
    rows = web.request("POST", "/todo", INSERT, headers=headers, claims={"sub": "7", "exp": 1})
    assert rows == [("a",)]
    assert sent(log) == {
        "method": "POST",
        "endpoint": "/todo",
        "user_id": "7",
        "role": "web_user",
        "request_id": "req-10",
        "trace_id": TRACE,
    }


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_all_methods_that_write_have_one(web: Gateway, log: Log, method: str) -> None:
    web.request(method, "/todo", INSERT, role="anon")
    context = sent(log)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", context.pop("request_id"))
    assert context == {"method": method, "endpoint": "/todo", "role": "anon"}


def test_reads_have_none(web: Gateway, log: Log) -> None:
    for method, read_only in (("GET", True), ("HEAD", True), ("OPTIONS", False), ("POST", True)):
        assert web.request(method, "/todo", "select 1", read_only=read_only) == [(1,)]
    row = log.conn.execute("select pg_current_xact_id()").fetchone()
    assert row is not None
    assert log.seen() == []


def test_functions_that_are_called_may_write(web: Gateway, log: Log) -> None:
    """By POST; one that is stable or immutable is called in a transaction that is read only."""
    log.conn.execute(
        "create function add_one() returns void language sql as "
        "$$ insert into todo (task) values ('f') $$"
    )
    web.request("POST", "/rpc/add_one", "select add_one()")
    assert sent(log)["endpoint"] == "/rpc/add_one"
    web.request("POST", "/rpc/now", "select now()", read_only=True)
    assert log.seen() == []


def test_what_is_rolled_back_has_none(web: Gateway, log: Log) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        web.request("POST", "/todo", "insert into todo (n) values (1 / 0)")
    assert log.seen() == []
    web.request("POST", "/todo", INSERT)
    assert sent(log)["endpoint"] == "/todo"


def test_one_connection_serves_many_users(web: Gateway, log: Log) -> None:
    for number in range(20):
        claims = {"sub": f"u{number}"} if number % 3 else {}
        task = claims.get("sub", "nobody")
        insert = f"insert into todo (task) values ('{task}')"
        web.request("POST", "/todo", insert, claims=claims)
        web.request("GET", "/todo", "select 1", claims={"sub": "reader"})
    found = log.attributed()
    assert len(found) == 20
    assert all(context.get("user_id", "nobody") == task for context, task in found)


def test_claims_and_headers_are_chosen(log: Log) -> None:
    chosen = postgrest.options(
        schema="Own_schema's",
        claims=[
            "email",
            "tenant=app.tenant_id",
            "https://e.org/claims.plan",
            "user_id=id",
        ],
        headers=["User-Agent", "client=X-Client-Info"],
    )
    postgrest.install(log.conn, chosen)
    claims = {
        "sub": "7",
        "id": 12345678901234567890,
        "email": "a@example.org",
        "app": {"tenant_id": [1, {"a": None}]},
        "https://e.org/claims.plan": "free",
    }
    headers = {"user-agent": "curl", "x-client-info": "js/2", "accept": "*/*"}
    with gateway(log.conn, chosen.function) as web:
        web.request("POST", "/todo", INSERT, claims=claims, headers=headers)
    context = sent(log)
    del context["request_id"]
    assert context == {
        "method": "POST",
        "endpoint": "/todo",
        "user_id": 12345678901234567890,
        "role": "web_user",
        "email": "a@example.org",
        "tenant": [1, {"a": None}],
        "https://e.org/claims.plan": "free",
        "user-agent": "curl",
        "client": "js/2",
    }


@pytest.mark.parametrize(
    "flags",
    [
        {"headers": ["authorization"]},
        {"headers": ["who=cookie"]},
        {"headers": ["said=Bemi-Context"]},
        {"claims": ["access_token"]},
        {"claims": ["v=credentials.value"]},
        {"claims": ["a b"]},
        {"claims": ["method=sub"]},
        {"headers": [f"h{number}" for number in range(31)]},
        {"trusted": ["endpoint"]},
        {"trusted": ["a'b"]},
        {"schema": "a.b"},
        {"schema": ""},
        {"schema": "a$bemi$"},
        {"schema": "a\\"},
        {"schema": "pg_own"},
        {"schema": "é" * 32},
    ],
    ids=str,
)
def test_what_can_not_be_chosen(flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        postgrest.options(**flags)


def test_what_the_client_says_is_not_trusted(web: Gateway, log: Log) -> None:
    said = {"user_id": 1, "tenant": 3, "request_id": "r", "trace_id": "t"}
    web.request("POST", "/todo", INSERT, headers={"bemi-context": json.dumps(said)})
    context = sent(log)
    assert context.pop("request_id") != "r"
    assert context == {"method": "POST", "endpoint": "/todo", "role": "web_user"}


def test_what_of_the_client_is_trusted_is_named(log: Log) -> None:
    said = {
        "tenant": 3, "user_id": 1, "page": {"n": "x", "password": "p"}, "method": "GET",
        "endpoint": "/", "role": "admin",
        "_bemi": {"truncated": ["page.n", "other"], "replaced": 7},
    }  # fmt: skip
    headers = {"bemi-context": json.dumps(said), "x-request-id": "r-1"}
    own = {"method": "POST", "endpoint": "/todo", "role": "web_user", "request_id": "r-1"}
    page = {
        "page": {"n": "x", "password": "***"},
        "_bemi": {"truncated": ["page.n"], "redacted": ["page.password"]},
    }
    for trusted, claims, expected in (
        (["tenant"], {}, {**own, "tenant": 3}),
        (["user_id"], {}, {**own, "user_id": 1}),
        (["user_id"], {"sub": "7"}, {**own, "user_id": "7"}),
        (["page"], {}, {**own, **page}),
        (["*"], {}, {**own, **page, "tenant": 3, "user_id": 1}),
    ):
        chosen = postgrest.options(trusted=trusted)
        postgrest.install(log.conn, chosen)
        with gateway(log.conn, chosen.function) as web:
            web.request("POST", "/todo", INSERT, headers=headers, claims=claims)
        assert sent(log) == expected, trusted


@pytest.mark.parametrize("file", ["traceparent", "request_id"])
def test_ids_are_read_as_the_contract_has_it(web: Gateway, log: Log, file: str) -> None:
    name = {"traceparent": "traceparent", "request_id": "x-request-id"}[file]
    member = {"traceparent": "trace_id", "request_id": "request_id"}[file]
    for case in json.loads((CASES / f"{file}.json").read_text(encoding="utf-8")):
        web.request("POST", "/todo", INSERT, headers={name: case["header"]})
        found, expected = sent(log).get(member), case[member]
        if file == "request_id" and expected is None:
            assert re.fullmatch(r"[0-9a-f-]{36}", found or ""), case
        else:
            assert found == expected, case


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "{" * 9_000, '{"a":' * 9_000])
def test_what_can_not_be_read_is_as_good_as_absent(log: Log, text: str) -> None:
    chosen = postgrest.options(trusted=["*"])
    postgrest.install(log.conn, chosen)
    with gateway(log.conn, chosen.function) as web:
        web.request("POST", "/todo", INSERT, headers=text, claims=text)
        context = sent(log)
        del context["request_id"]
        assert context == {"method": "POST", "endpoint": "/todo"}
        web.request("POST", "/todo", INSERT, headers={"bemi-context": text})
        context = sent(log)
        del context["request_id"]
        assert context == {"method": "POST", "endpoint": "/todo", "role": "web_user"}


def test_one_that_was_altered_is_made_anew(log: Log) -> None:
    chosen = postgrest.options(claims=["email"], trusted=["*"])
    servers = Servers(Settings(source_url=log.url), source=log.conn)
    replaced = (
        "create or replace function bemi_postgrest.send_context() returns void language sql"
        " set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as 'select'"
    )
    for change in (
        replaced,
        "alter function bemi_postgrest.send_context() reset search_path",
        "alter function bemi_postgrest.send_context() security definer",
    ):
        postgrest.install(log.conn, chosen)
        assert check.contexts(servers).level == "ok"
        log.conn.execute(change.encode())
        assert "is not as this version" in check.contexts(servers).message
        assert postgrest.install(log.conn, chosen)
    assert not postgrest.install(log.conn, chosen)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_other_encodings_of_the_server(make_database: MakeDatabase, encoding: str) -> None:
    log = Log(make_database(encoding=encoding, locale="C") + "?client_encoding=utf8")
    try:
        chosen = postgrest.options(claims=["name"])
        postgrest.install(log.conn, chosen)
        with gateway(log.conn, chosen.function) as web:
            web.conn.execute("set client_encoding = utf8")
            assert web.request("GET", "/todo", "select 1") == [(1,)]
            for name, found in (("é", "é"), ("a\0b", "a?b"), ("n" * 2_000, "n" * 1_023 + "...")):
                web.request("POST", "/todo", INSERT, claims={"sub": "7", "name": name})
                context = sent(log)
                assert (context["user_id"], context["name"]) == ("7", found)
    finally:
        log.close()


def test_ten_thousand_hostile_texts_are_data(log: Log) -> None:
    """As claims, as headers, and in what a client says that is trusted."""
    pieces = ["*/", "%", "%s", "$1", "?", "'", '"', "\\", "\\u0000", "\0", "\u2028", "😀", "{}"]
    texts = st.one_of(st.text(), st.lists(st.sampled_from(pieces)).map("".join))
    drawn: list[str] = []

    @settings(max_examples=100, phases=[Phase.generate], database=None)
    @given(st.lists(texts, min_size=100, max_size=100, unique=True))
    def draw(some: list[str]) -> None:
        drawn.extend(some)

    draw()
    some = drawn[:10_000]
    assert len(some) == 10_000
    claims = [f"c{number}" for number in range(25)]
    headers = [f"h{number}" for number in range(25)]
    chosen = postgrest.options(claims=claims, headers=headers, trusted=["*"])
    postgrest.install(log.conn, chosen)
    expected = []
    with gateway(log.conn, chosen.function) as web:
        for at in range(0, len(some), 100):
            part = some[at : at + 100]
            claimed = dict(zip(claims, part[:25], strict=True))
            carried = dict(zip(headers, part[25:50], strict=True))
            said = {f"{number} {text} is": text for number, text in enumerate(part[50:])}
            header = json.dumps(said, ensure_ascii=False)
            web.request(
                "POST", "/todo", INSERT,
                claims=claimed, headers={**carried, "bemi-context": header, "x-request-id": "r"},
            )  # fmt: skip
            told = {**(said if len(header.encode()) <= 16_384 else {}), **claimed, **carried}
            expected.append(
                {
                    key.replace("\0", "\ufffd"): value.replace("\0", "\ufffd")
                    for key, value in told.items()
                }
            )
    own = {"method": "POST", "endpoint": "/todo", "role": "web_user", "request_id": "r"}
    found = [context for context, _ in log.attributed()]
    assert found == [{**each, **own} for each in expected]


def test_large_values_are_cut_and_said_to_be(log: Log) -> None:
    chosen = postgrest.options(claims=["roles", "name", "deep", "huge"], trusted=["*"])
    postgrest.install(log.conn, chosen)
    claims = json.dumps({
        "roles": ["x" * 100] * 1_000, "name": "n" * 5_000, "deep": json.loads("[" * 70 + "]" * 70),
    })[:-1] + ', "huge": [1e131000, 1e-16000, 5]}'  # fmt: skip
    with gateway(log.conn, chosen.function) as web:
        path = "/" + "p" * 5_000
        web.request("POST", path, INSERT, claims=claims)
        context = sent(log)
        assert (len(context["endpoint"]), len(context["name"])) == (1_024, 1_024)
        assert context["name"].endswith("n…")
        assert (context["roles"], context["huge"]) == (None, ["number", "number", 5])
        assert json.dumps(context["deep"]) == "[" * 63 + '"array"' + "]" * 63
        assert sorted(context["_bemi"]["truncated"]) == ["endpoint", "name", "roles"]
        deep = ".".join(["deep", *["0"] * 63])
        assert sorted(context["_bemi"]["replaced"]) == [deep, "huge.0", "huge.1"]
        # Somebody's time: what lies behind long names would be gone through with them.
        claims = json.dumps({"name": {"n" * 3_000: [{}]}})
        web.request("POST", "/todo", INSERT, claims=claims)
        assert sent(log)["name"] == {"n" * 3_000: "array"}
        # Nobody's context, but somebody's time.
        said = json.dumps({f"pwd{number}": "1" for number in range(1_000)})
        assert len(said) < 16_384
        web.request("POST", "/todo", INSERT, headers={"bemi-context": said})
        context = sent(log)
        assert context["pwd7"] is None
        assert len(context["_bemi"]["truncated"]) == 101
        assert context["_bemi"]["truncated"][-1] == "…"


def test_a_role_that_may_not_send_writes_on(web: Gateway, log: Log) -> None:
    servers = Servers(Settings(source_url=log.url), source=log.conn)
    with log.not_allowed():
        assert web.request("POST", "/todo", INSERT) == [("a",)]
        assert log.seen() == [["insert"]]
        found = check.contexts(servers)
        assert found.level == "warning"
        assert "requests as anon have no context" in found.message
        assert found.fix is not None
        for statement in found.fix.splitlines():
            log.conn.execute(statement.encode())
        assert check.contexts(servers).level == "ok"
        web.request("POST", "/todo", INSERT)
        assert sent(log)["method"] == "POST"


def test_nothing_of_the_callers_runs_in_it(web: Gateway, log: Log) -> None:
    """Its names are found in the catalog only, whatever the role's search_path and its own tables
    and functions are called."""
    log.conn.execute(
        "create function public.upper(text) returns text language plpgsql as "
        "$$ begin raise 'ran'; end $$"
    )
    web.search_path = "public, pg_catalog"
    web.request("POST", "/todo", INSERT)
    assert sent(log)["method"] == "POST"


def test_settings_of_a_role_and_rights_of_functions_stop_nothing(web: Gateway, log: Log) -> None:
    claims = {"sub": "7\0"}
    web.conn.execute("set standard_conforming_strings = off")
    web.request("POST", "/todo", INSERT, claims=claims)
    assert sent(log)["user_id"] == "7\ufffd"
    for function in ("current_setting(text, boolean)", "has_function_privilege(oid, text)"):
        log.conn.execute(f"revoke execute on function pg_catalog.{function} from public".encode())
        for method in ("GET", "POST"):
            statement = INSERT if method == "POST" else "select 'a'"
            assert web.request(method, "/todo", statement) == [("a",)]
        assert log.seen() == [["insert"]]
        log.conn.execute(f"grant execute on function pg_catalog.{function} to public".encode())


def test_schemas_of_others_are_not_taken_for_its_own(log: Log) -> None:
    """Whose names would end a text in the SQL that drops it."""
    chosen = postgrest.options()
    postgrest.install(log.conn, chosen)
    log.conn.execute(
        'create schema "a$bemi$"; create function "a$bemi$".send_context() returns int'
        " language sql as 'select 1'"
    )
    row = log.conn.execute(
        "select obj_description('bemi_postgrest.send_context'::regproc, 'pg_proc')"
    ).fetchone()
    assert row is not None
    log.conn.execute(sql.SQL('comment on function "a$bemi$".send_context() is {}').format(row[0]))
    assert postgrest.read(log.conn) == [postgrest.Installed(chosen, current=True)]


def test_who_depends_on_it_is_known(log: Log) -> None:
    chosen = postgrest.options()
    postgrest.install(log.conn, chosen)
    log.conn.execute(
        "create function own() returns void language sql"
        " begin atomic; select bemi_postgrest.send_context(); end"
    )
    assert postgrest.callers(log.conn, chosen) == ["the function own()"]


def test_what_something_needs_stays(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = asked.at.source
    monkeypatch.setenv("BEMI_SOURCE_URL", asked.at.settings.source_url)
    postgrest.install(conn, postgrest.options())
    conn.execute("create view v as select bemi_postgrest.send_context()::text as said")
    code, out, _ = asked.bemi("teardown", "--yes")
    assert (code, len(postgrest.read(conn))) == (0, 1)
    assert "stays, since something needs it: view v depends on" in out


def test_it_is_found_again_and_taken_away(log: Log) -> None:
    chosen = postgrest.options(claims=["email"], trusted=["tenant"])
    assert postgrest.read(log.conn) == []
    assert postgrest.install(log.conn, chosen)
    assert not postgrest.install(log.conn, chosen)
    assert postgrest.read(log.conn) == [postgrest.Installed(chosen, current=True)]
    other = postgrest.options()
    assert postgrest.install(log.conn, other)
    assert postgrest.read(log.conn) == [postgrest.Installed(other, current=True)]
    log.conn.execute("create table bemi_postgrest.mine (n int)")
    postgrest.remove(log.conn, other)
    assert postgrest.read(log.conn) == []
    log.conn.execute("drop table bemi_postgrest.mine")
    postgrest.remove(log.conn, other)
    row = log.conn.execute("select to_regnamespace('bemi_postgrest')").fetchone()
    assert row == (None,)


def test_who_calls_it_is_known(web: Gateway, log: Log) -> None:
    chosen = postgrest.options()
    servers = Servers(Settings(source_url=log.url), source=log.conn)
    assert "nothing in the database" in check.contexts(servers).message
    for statement in postgrest.use(chosen).split("\n"):
        log.conn.execute(statement.encode())
    assert postgrest.callers(log.conn, chosen) == ["pgrst.db_pre_request of authenticator"]
    assert "authenticator" in check.contexts(servers).message
    log.conn.execute(
        "create function own() returns void language plpgsql as "
        '$$ begin perform bemi_postgrest."send_context"(); end $$'
    )
    log.conn.execute(
        "create function shouted() returns void language plpgsql as "
        "$$ begin perform Bemi_Postgrest . SEND_CONTEXT (); end $$"
    )
    callers = ["the function own()", "the function shouted()"]
    assert postgrest.callers(log.conn, chosen)[1:] == callers
    web.function = "public.own"
    web.request("POST", "/todo", INSERT)
    assert sent(log)["role"] == "web_user"


def test_init_makes_it_and_teardown_takes_it_away(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = asked.at.source
    monkeypatch.setenv("BEMI_SOURCE_URL", asked.at.settings.source_url)
    flags = ("--postgrest", "--claim", "email", "--header", "user-agent", "--trust-context", "page")
    code, out, _ = asked.bemi("init", *flags)
    assert code == 0
    assert "made the function bemi_postgrest.send_context, for PostgREST to call" in out
    assert "alter role authenticator set pgrst.db_pre_request" in out
    (found,) = postgrest.read(conn)
    assert found.options == postgrest.options(
        claims=["email"], headers=["user-agent"], trusted=["page"]
    )
    assert "made the function" not in asked.bemi("init", *flags)[1]
    code, _, err = asked.bemi("init", "--claim", "email")
    assert (code, "add --postgrest" in err) == (2, True)
    conn.execute("create role caller")
    try:
        conn.execute("alter role caller set pgrst.db_pre_request = 'bemi_postgrest.send_context'")
        assert json.loads(asked.bemi("init", *flags, "--json")[1])["postgrest_use"] is None
        code, out, _ = asked.bemi("teardown", "--yes")
        assert code == 0
        assert "stays: it is called by pgrst.db_pre_request of caller" in out
        assert postgrest.read(conn) != []
    finally:
        conn.execute("drop role caller")
    code, out, _ = asked.bemi("teardown", "--yes")
    assert code == 0
    assert "dropped the function bemi_postgrest.send_context" in out
    assert postgrest.read(conn) == []


def test_who_may_not_make_it_gets_its_sql(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """Which makes it, for a role that may."""
    conn = asked.at.source
    role = f"plain_{conn.info.dbname}"
    conn.execute(f"create role {role} login replication password 'plain'".encode())
    conn.execute(f"alter publication bemi owner to {role}".encode())
    conn.execute(f"revoke create on database {conn.info.dbname} from public".encode())
    url = server.url(conn.info.dbname).replace(f"postgres:{conn.info.password}", f"{role}:plain")
    monkeypatch.setenv("BEMI_SOURCE_URL", url)
    try:
        code, out, _ = asked.bemi("init", "--postgrest", "--json")
        assert code == 1
        conn.execute(json.loads(out)["postgrest_script"].encode())
        assert len(postgrest.read(conn)) == 1
        assert asked.bemi("init", "--postgrest")[0] == 0
        code, out, _ = asked.bemi("teardown", "--yes")
        assert "as its owner, run:\n" + postgrest.removal(postgrest.options()) in out
        conn.execute(postgrest.removal(postgrest.options()).encode())
        assert postgrest.read(conn) == []
    finally:
        conn.execute("drop publication if exists bemi")
        conn.execute(f"drop owned by {role}".encode())
        conn.execute(f"drop role {role}".encode())


def test_the_history_shows_it(asked: Asked) -> None:
    chosen = postgrest.options()
    postgrest.install(asked.at.source, chosen)
    with gateway(asked.at.source, chosen.function) as web:
        insert = "insert into todo (id, task) values (1, 'a')"
        web.request("POST", "/todo", insert, claims={"sub": "7"}, headers={"x-request-id": "r"})
    (change,) = asked.ready().changes()
    assert change.context == {
        "method": "POST",
        "endpoint": "/todo",
        "user_id": "7",
        "role": "web_user",
        "request_id": "r",
    }


def test_what_somebody_else_has_put_there_is_refused(log: Log) -> None:
    """He could alter it later, and run what he likes as the role of each request."""
    log.conn.execute("create role mallory")
    chosen = postgrest.options()
    name = f"{chosen.schema}.{postgrest.FUNCTION}()"
    try:
        log.conn.execute("create schema bemi_postgrest authorization mallory")
        with pytest.raises(SetupError, match="schema bemi_postgrest belongs to mallory"):
            postgrest.install(log.conn, chosen)
        log.conn.execute("alter schema bemi_postgrest owner to current_user")
        log.conn.execute(f"create function {name} returns void language sql as ''".encode())
        log.conn.execute(f"alter function {name} owner to mallory".encode())
        with pytest.raises(SetupError, match="belongs to mallory") as refused:
            postgrest.install(log.conn, chosen)
        assert refused.value.fix is not None
        assert refused.value.fix.startswith(f'alter function {name} owner to "postgres"')
        log.conn.execute(refused.value.fix.partition(";")[0].encode())
        assert postgrest.install(log.conn, chosen)
    finally:
        log.conn.execute("drop owned by mallory cascade")
        log.conn.execute("drop role mallory")
