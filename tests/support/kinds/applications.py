"""Types that applications make: enums, composites, domains; and what they are declared with."""

from collections.abc import Iterator, Sequence
from typing import Final

from hypothesis import strategies as st

from tests.support.kinds.kind import Kind, array_of, composite_of, domain_of

_LABELS: Final = (
    "sad",
    "ok",
    '"q"',
    "a,b",
    "{}",
    "NULL",
    "\u00e9\U0001f418",
    "x" * 63,
    " ",
    "it's",
    "\\",
)
_MOOD: Final = Kind("mood", "app.mood", _LABELS, st.sampled_from(_LABELS))


def application_kinds(kinds: Sequence[Kind]) -> Iterator[Kind]:
    named = {kind.name: kind for kind in kinds}
    pair = composite_of("pair", "app.pair", [named["integer"], named["text"]])
    inner = [
        named["numeric"],
        pair,
        array_of(pair),
        named["jsonb"],
        named["json"],
        named["bytea"],
        named["timestamptz"],
        array_of(_MOOD),
        named["int4range"],
        named["double precision"],
        named["hstore"],
    ]
    yield _MOOD
    yield pair
    yield composite_of("nested", 'app."Nested ""q"" \U0001f418"', inner)
    yield domain_of("d_int", "app.d_int", named["integer"])
    yield domain_of("d_float", "app.d_float", named["double precision"])
    yield domain_of("d_text not null", "app.d_text", named["text"], nullable=False)
    yield domain_of("d_ints", "app.d_ints", array_of(named["integer"]))
    yield domain_of("d_jsonbs", "app.d_jsonbs", array_of(named["jsonb"]))
    yield domain_of("d_pair", "app.d_pair", pair)
    yield domain_of("d_json not null", "app.d_json", named["json"], nullable=False)
    yield domain_of("d_jsonb", "app.d_jsonb", named["jsonb"])
    yield domain_of("d_mood", "app.d_mood", _MOOD)
    yield domain_of("d_range", "app.d_range", named["int4range"])
    yield domain_of("d_d", "app.d_d", named["numeric(30,10)"])


APPLICATION_TYPES: Final = """
create extension hstore;
create extension citext;
create schema app;
create schema "app \U0001f418";
create schema log;
create table public."Reg Table" ();
create table "app \U0001f418"."T""x" ();
create type app.mood as enum ({labels});
create type app.pair as (a int, "b ""\U0001f418" text);
create type app."Nested ""q"" \U0001f418" as (
    "Q" numeric, p app.pair, ps app.pair[], j jsonb, j2 json, b bytea, t timestamptz,
    m app.mood[], r int4range, f float8, h hstore
);
create type app.textrange as range (subtype = text, collation = "C");
create type app.floatrange as range (subtype = float8);
create type app.moodrange as range (subtype = app.mood);
create domain app.d_int as int check (value is null or value > -3000000000);
create domain app.d_float as float8;
create domain app.d_text as text not null;
create domain app.d_ints as int[] check (value is null or cardinality(value) >= 0);
create domain app.d_jsonbs as jsonb[];
create domain app.d_pair as app.pair;
create domain app.d_json as json not null;
create domain app.d_jsonb as jsonb;
create domain app.d_mood as app.mood;
create domain app.d_range as int4range;
create domain app.d_num as numeric(30,10);
create domain app.d_d as app.d_num;
create function public."Reg Ular"(app.pair) returns int language sql as 'select 1';
""".replace("{labels}", ", ".join("'" + label.replace("'", "''") + "'" for label in _LABELS))
