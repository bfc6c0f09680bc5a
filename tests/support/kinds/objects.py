"""PostgreSQL's own identifiers, and the types that name its objects."""

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from tests.support.kinds.kind import Kind, integers

_NO_OBJECTS: Final = st.integers(3 << 30, (1 << 32) - 1).map(str)


def _named(name: str, *names: str) -> Kind:
    """One of the types that name an object by its OID; a number is one that there is not."""
    return Kind(name, name, (*names, "0", "4294967295"), st.sampled_from(names) | _NO_OBJECTS)


def _snapshots(name: str) -> Kind:
    return Kind(
        name,
        name,
        ("1:1:", "1:9223372036854775807:", "10:20:10,14,15"),
        st.lists(st.integers(1, (1 << 32) - 1), min_size=2, max_size=6, unique=True).map(
            lambda ids: _snapshot(sorted(ids))
        ),
    )


def _snapshot(ids: Sequence[int]) -> str:
    return f"{ids[0]}:{ids[-1]}:{','.join(map(str, ids[:-1]))}"


OBJECTS: Final = (
    Kind("uuid", "uuid", ("0" * 32, "f" * 32), st.uuids().map(str)),
    integers("oid", 0, (1 << 32) - 1),
    integers("xid", 0, (1 << 32) - 1),
    integers("cid", 0, (1 << 32) - 1),
    integers("xid8", 0, (1 << 64) - 1),
    Kind(
        "tid",
        "tid",
        ("(0,0)", "(4294967295,65535)"),
        st.builds("({},{})".format, st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 16) - 1)),
    ),
    Kind(
        "pg_lsn",
        "pg_lsn",
        ("0/0", "FFFFFFFF/FFFFFFFF"),
        st.builds("{:X}/{:X}".format, *[st.integers(0, (1 << 32) - 1)] * 2),
    ),
    _snapshots("txid_snapshot"),
    _snapshots("pg_snapshot"),
    Kind("int2vector", "int2vector", ("", "1", "-32768 32767"), st.just("1 2 3")),
    Kind("oidvector", "oidvector", ("", "0", "4294967295 1"), st.just("1 2 3")),
    Kind(
        "aclitem",
        "aclitem",
        ("=r/postgres", "postgres=a*r*w*d*D*x*t*/postgres"),
        st.sampled_from(["postgres=r/postgres", "=X/postgres"]),
    ),
    _named("regproc", "now", "-", 'public."Reg Ular"'),
    _named("regprocedure", "now()", "abs(integer)", "-", 'public."Reg Ular"(app.pair)'),
    _named("regoper", "||/", "|/"),
    _named("regoperator", "+(integer,integer)", "!!(NONE,tsquery)"),
    _named("regclass", "pg_class", "-", 'public."Reg Table"', '"app \U0001f418"."T""x"'),
    _named("regcollation", '"C"', "-"),
    _named("regtype", "integer", "text[]", '"char"', "app.pair", "-"),
    _named("regrole", "postgres", "-"),
    _named("regnamespace", "pg_catalog", "app", '"app \U0001f418"', "-"),
    _named("regconfig", "simple", "english"),
    _named("regdictionary", "simple", "english_stem"),
)
