"""Settings: flags over variables over bemi.toml; wrong ones are named, passwords never shown."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi import config
from bemi.config import Settings
from bemi.errors import ConfigError
from bemi.rules import Rules, Skip

URL = "postgresql://app:s3cret@db.example.com/todo"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("BEMI_", "PG")):
            monkeypatch.delenv(name)


def load(toml: str = "", environ: Mapping[str, str] | None = None, **flags: object) -> Settings:
    Path("bemi.toml").write_text(toml, encoding="utf-8")
    return config.load(flags, {"BEMI_SOURCE_URL": URL} if environ is None else environ)


def test_one_url_is_enough() -> None:
    settings = load()
    assert settings == Settings(
        source_url=URL,
        destination_url=URL,
        source="todo",
        schema="bemi",
        slot="bemi_todo",
        publication="bemi",
        slot_wait=90.0,
        new_tables="track",
        schemas=(),
        tables=(),
        exclude_tables=(),
        rules=Rules(),
        hash_key="",
    )


def test_flags_win_over_variables_win_over_the_file() -> None:
    toml = 'source_url = "dbname=file"\nschema = "file"\nslot = "file"\npublication = "file"'
    environ = {"BEMI_SOURCE_URL": URL, "BEMI_SCHEMA": "variable", "BEMI_SLOT": "variable"}
    settings = load(toml, environ, schema="flag", source=None)
    assert settings.source == "todo"
    assert (settings.schema, settings.slot, settings.publication) == ("flag", "variable", "file")


def test_an_empty_variable_is_not_set() -> None:
    assert load(environ={"BEMI_SOURCE_URL": URL, "BEMI_SCHEMA": ""}).schema == "bemi"


def test_variables_are_converted_the_file_is_taken_as_it_is() -> None:
    environ = {"BEMI_SOURCE_URL": URL, "BEMI_SLOT_WAIT": "5", "BEMI_TABLES": "todo, app.*"}
    settings = load(environ=environ)
    assert settings.slot_wait == 5.0
    assert settings.tables == ("public.todo", "app.*")
    assert load('slot_wait = 5\ntables = ["todo"]').tables == ("public.todo",)


def test_bemi_config_names_another_file(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(f'source_url = "{URL}"\nschema = "other"')
    assert load(environ={"BEMI_CONFIG": "other.toml"}).schema == "other"
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load(environ={"BEMI_CONFIG": "missing.toml"})


@pytest.mark.parametrize(
    ("toml", "environ", "message"),
    [
        ("slotwait = 1", {}, r"slotwait in bemi\.toml is not a setting; did you mean slot_wait\?"),
        ("colour = 1", {}, r"colour in bemi\.toml is not a setting; settings are source_url, "),
        ("[source]\nurl = 1", {}, r"source in bemi\.toml: Expected `str`"),
        ('slot_wait = "5"', {}, r"slot_wait in bemi\.toml: .*give a number"),
        ("tables = 'todo'", {}, r"tables in bemi\.toml: .*give a list of names"),
        ("tables = ['']", {}, r"tables in bemi\.toml: 'public\.' names nothing"),
        ('schema = "a%b"', {}, r"schema in bemi\.toml: .*%"),
        ('publication = "a%b"', {}, r"publication in bemi\.toml: .*%"),
        ("schema = 5", {}, r"schema in bemi\.toml: .*give a text"),
        ("schema = x", {}, r"bemi\.toml is not valid TOML: .*line 1"),
        ("", {"BEMI_SLOT_WAIT": "soon"}, r"BEMI_SLOT_WAIT: .*give a number"),
        ("", {"BEMI_SLOT_WAIT": "nan"}, r"BEMI_SLOT_WAIT: nan is not a time to wait"),
        ("", {"BEMI_NEW_TABLES": "no"}, r"BEMI_NEW_TABLES: .*give 'track' or 'warn'"),
        ("", {"BEMI_SLOT": "My-Slot"}, r"BEMI_SLOT: 'My-Slot' .*lower-case"),
        ("", {"BEMI_SCHEMA": "public"}, r"BEMI_SCHEMA: 'public' can't hold the history"),
        ("", {"BEMI_SCHEMA": "x" * 64}, r"BEMI_SCHEMA: .*63 bytes"),
        ("", {"BEMI_TABLE": "todo"}, r"BEMI_TABLE in the environment .*mean BEMI_TABLES"),
        ("", {"BEMI_SORUCE": "shop"}, r"BEMI_SORUCE in the environment .*mean BEMI_SOURCE"),
        ("", {"BEMI_SLTO": "shop"}, r"BEMI_SLTO in the environment .*mean BEMI_SLOT"),
        ("", {"BEMI_SCHEMO": "shop"}, r"BEMI_SCHEMO in the environment .*mean BEMI_SCHEMA"),
        (
            "exclude_tables = ['audit.']",
            {},
            r"exclude_tables in bemi\.toml: 'audit\.' names nothing",
        ),
        ("", {"BEMI_EXCLUDE_TABLES": "."}, r"BEMI_EXCLUDE_TABLES: '\.' names nothing"),
        ("hash_key = 'short'", {}, r"hash_key in bemi\.toml: it has less than 16 characters"),
        ("", {"BEMI_HASH_KEY": "short"}, r"BEMI_HASH_KEY: it has less than 16 characters"),
        ("rules = 'mask'", {}, r"rules in bemi\.toml: Expected `object`, got `str`; give a table"),
        ("[rules]\nmask = ['*.a', 5]", {}, r"rules\.mask\[1\] in bemi\.toml: Expected `str`"),
        ("[rules]\nmask = '*.a'", {}, r"rules\.mask in bemi\.toml: Expected `array`, got `str`"),
        ("[rules]\nmask = ['a.b.c.d']", {}, r"rules\.mask\[0\] in bemi\.toml: .*names no column"),
        ("[rules]\nmasks = []", {}, r"rules\.masks in bemi\.toml is not .*did you mean mask\?"),
        ("[rules]\ncolour = []", {}, r"rules\.colour in .*; settings are ignore, exclude, "),
        ("[rules]\nhash = ['a']", {}, r"hash_key: it is not set.*; set BEMI_HASH_KEY to a secret"),
        (
            "[[rules.skip]]\ntables = ['a']\n[[rules.skip]]\noperation = ['create']",
            {},
            r"rules\.skip\[1\]\.operation in bemi\.toml is not .*did you mean operations\?",
        ),
        (
            "[[rules.skip]]\noperations = ['insert']",
            {},
            r"rules\.skip\[0\]\.operations\[0\] in bemi\.toml: 'insert' is no operation",
        ),
        (
            "[[rules.skip]]\ncontext = {job = 'x', user_id = [7]}",
            {},
            (
                r"rules\.skip\[0\]\.context\.user_id in bemi\.toml: Expected `str`, got `array`;"
                r" give tables \[\[rules\.skip\]\], .* context = \{"
            ),
        ),
        (
            "[rules.skip]\ntables = ['jobs']",
            {},
            r"rules\.skip in bemi\.toml: Expected `array`, .*; give tables \[\[rules\.skip\]\]",
        ),
        ("sources = 1", {}, r"sources in bemi\.toml is not a table of sources"),
        ("[sources]", {}, r"sources in bemi\.toml names no source; .*\[sources\.NAME\]"),
        ("[sources]\nshop = 'x'", {}, r"sources\.shop in bemi\.toml is not a source's table"),
        (
            "[sources.shop]\ntable = ['a']",
            {},
            r"sources\.shop\.table in bemi\.toml is not a setting; did you mean tables\?",
        ),
        (
            "[sources.shop.rules]\nmask = ['*.a', '']",
            {},
            r"sources\.shop\.rules\.mask\[1\] in bemi\.toml: '' names no column",
        ),
        (
            "[sources.shop]\nslot_wait = 'x'",
            {},
            r"sources\.shop\.slot_wait in bemi\.toml: .*give a number",
        ),
        (
            "[sources.shop]\nsource = 'x'",
            {},
            r"sources\.shop\.source in bemi\.toml is each source's own; name .* heading",
        ),
        ("slot = 'x'\n[sources.shop]", {}, r"slot in bemi\.toml is each source's own"),
        ("[source.shop]", {}, r"source in bemi\.toml: Expected `str`"),
        ("[sourcs.shop]", {}, r"sourcs in bemi\.toml is not a setting; did you mean sources\?"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place_and_what_to_do(
    toml: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(toml, {"BEMI_SOURCE_URL": URL} | environ)
    assert re.search(message, f"{caught.value}; {caught.value.fix}")


def test_a_flag_of_the_wrong_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="--slot-wait"):
        load(slot_wait="5")
    with pytest.raises(ConfigError, match="--table: "):
        load(tables=("",))
    with pytest.raises(ConfigError, match="--schema: "):
        load(schemas=("",))


def test_numbers_and_booleans_of_a_skipped_context_are_texts() -> None:
    """As what is sent: values of the context compare as text."""
    toml = "[[rules.skip]]\ncontext = {job = 7, dry = true, rate = 0.5, name = 'x'}"
    (skip,) = load(toml).rules.skip
    assert skip.context == {"job": "7", "dry": "true", "rate": "0.5", "name": "x"}


def test_variables_of_others_are_left_alone() -> None:
    load(environ={"BEMI_SOURCE_URL": URL, "BEMI_WRITE_URL": URL, "BEMI_TEST_PG_BIN": "/x"})


def test_without_a_source_the_fix_says_how_to_set_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={})
    assert "BEMI_SOURCE_URL=postgresql://" in (caught.value.fix or "")


@pytest.mark.parametrize(
    "url",
    ["postgresql://app:s3cret@[/todo", "s3cret", "host=db password=s3cret secret", " "],
)
@pytest.mark.parametrize("key", ["source_url", "destination_url"])
def test_a_broken_url_is_refused_without_being_shown(url: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={"BEMI_SOURCE_URL": URL, f"BEMI_{key.upper()}": url})
    assert key.upper() in str(caught.value)
    assert "s3cret" not in repr(caught.value) + str(caught.value.__cause__)


def test_no_password_in_the_settings_repr() -> None:
    assert "s3cret" not in repr(load())


@pytest.mark.parametrize(
    ("url", "environ", "name"),
    [
        ("postgresql://u:p@h:5432/todo", {}, "todo"),
        ("postgresql://h/my%20app?sslmode=require", {}, "my app"),
        ("host=h dbname=todo user=u", {}, "todo"),
        ("dbname='my app'", {}, "my app"),
        ("postgresql://u@h", {}, "u"),
        ("host=h", {"PGUSER": "app"}, "app"),
        ("host=h user=u", {"PGDATABASE": "todo"}, "todo"),
    ],
)
def test_the_source_is_named_after_the_database_that_libpq_would_choose(
    url: str, environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    assert Settings(source_url=url).source == name


def test_a_service_hides_the_database_so_a_name_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="service"):
        Settings(source_url="service=todo")


def test_slots_of_different_databases_are_different() -> None:
    assert config.slot_name("todo") == "bemi_todo"
    names = ["Todo", "to-do", "to do", "to_do", "ТоДо", "x" * 63, "x" * 62 + "y", "todo"]
    slots = [config.slot_name(name) for name in names]
    assert len(set(slots)) == len(names)


@given(st.text(min_size=1, max_size=80))
def test_every_database_gives_a_slot_name_that_postgresql_takes(database: str) -> None:
    assert re.fullmatch(r"bemi_[a-z0-9_]{1,58}", config.slot_name(database))


def test_who_only_reads_needs_no_source() -> None:
    environ = {"BEMI_DESTINATION_URL": URL, "BEMI_SCHEMA": "audit"}
    history = config.load_history(environ=environ)
    assert (history.url, history.schema) == (URL, "audit")
    assert "s3cret" not in repr(history)
    assert config.load_history(environ={"BEMI_SOURCE_URL": URL}).url == URL
    both = {"BEMI_SOURCE_URL": "dbname=a", "BEMI_DESTINATION_URL": URL}
    assert config.load_history(environ=both).url == URL
    with pytest.raises(ConfigError, match="destination_url is not set"):
        config.load_history(environ={})
    with pytest.raises(ConfigError, match="BEMI_DESTINATION_URL: not a connection string"):
        config.load_history(environ={"BEMI_DESTINATION_URL": "x y"})
    with pytest.raises(ConfigError, match="BEMI_SCHEMA: 'public'"):
        config.load_history(environ={"BEMI_DESTINATION_URL": URL, "BEMI_SCHEMA": "public"})


RULES = """
hash_key = "0123456789abcdef"
[rules]
ignore = ["*.updated_at"]
exclude = ["public.users.avatar"]
mask = ["users.email"]
hash = ["*.phone"]
[[rules.skip]]
tables = ["jobs"]
operations = ["delete"]
context = {job = "backfill"}
"""


def test_rules_are_read_from_the_file_only() -> None:
    assert load(RULES).rules == Rules(
        ignore=("*.updated_at",),
        exclude=("public.users.avatar",),
        mask=("users.email",),
        hash=("*.phone",),
        skip=(Skip(("jobs",), ("delete",), {"job": "backfill"}),),
    )
    with pytest.raises(ConfigError, match="BEMI_RULES in the environment is not a setting"):
        load(environ={"BEMI_SOURCE_URL": URL, "BEMI_RULES": "mask"})


def test_the_key_that_hashes_is_never_shown() -> None:
    key = "k3y" * 10
    settings = load("[rules]\nhash = ['a']", {"BEMI_SOURCE_URL": URL, "BEMI_HASH_KEY": key})
    assert settings.hash_key == key
    assert "k3y" not in repr(settings)
    for toml in ("hash_key = 'k3y'", "hash_key = ['k3y']"):
        with pytest.raises(ConfigError) as caught:
            load(toml)
        assert "k3y" not in f"{caught.value!r} {caught.value.fix}"


TWO = """
destination_url = "dbname=history"
slot_wait = 5
exclude_tables = ["tmp"]
[rules]
mask = ["*.email"]
[sources.shop]
source_url = "dbname=shop"
tables = ["orders"]
[sources.crm]
source_url = "dbname=crm"
slot_wait = 7
[sources.crm.rules]
exclude = ["*.notes"]
"""


def load_all(toml: str, environ: Mapping[str, str] | None = None, *names: str) -> list[Settings]:
    Path("bemi.toml").write_text(toml, encoding="utf-8")
    return list(config.load_all(None, environ or {}, sources=names))


def test_a_file_can_have_several_sources_with_defaults_for_all() -> None:
    shop, crm = load_all(TWO)
    assert (shop.source, shop.slot, shop.destination_url) == ("shop", "bemi_shop", "dbname=history")
    assert (shop.slot_wait, shop.tables, shop.rules.mask) == (5, ("public.orders",), ("*.email",))
    assert shop.exclude_tables == crm.exclude_tables == ("public.tmp",)
    assert (crm.source, crm.slot_wait, crm.tables) == ("crm", 7, ())
    assert crm.rules == Rules(mask=("*.email",), exclude=("*.notes",))
    _, crm = load_all(TWO + "mask = []")
    assert crm.rules == Rules(exclude=("*.notes",))


def test_wrong_rules_for_all_are_named_where_they_are() -> None:
    for wrong, place in (("5", r"rules\.mask\[1\] in"), ("''", r"rules\.mask\[1\] in")):
        with pytest.raises(ConfigError, match=f"^{place}"):
            load_all(TWO.replace('mask = ["*.email"]', f"mask = ['*.email', {wrong}]"))


def test_one_of_several_sources_is_chosen_by_its_name() -> None:
    assert load(TWO, {}, source="crm").source == "crm"
    assert load(TWO, {"BEMI_SOURCE": "crm"}).source == "crm"
    assert load(TWO, {"BEMI_SOURCE": "shop"}, source="crm", slot="x").slot == "x"
    assert [each.source for each in load_all(TWO, {"BEMI_SOURCE": "crm"})] == ["crm"]
    assert [each.source for each in load_all(TWO, {}, "crm", "shop")] == ["shop", "crm"]
    assert [each.source for each in load_all(TWO, {"BEMI_SOURCE": "crm"}, "shop")] == ["shop"]
    one = "[sources.shop]\nsource_url = 'dbname=x'"
    assert load(one, {}).source == "shop"
    assert load(one, {"BEMI_SOURCE_URL": URL}).source_url == URL


def test_without_tables_of_sources_there_is_one_with_the_name_that_is_given() -> None:
    (only,) = load_all("source_url = 'dbname=todo'")
    assert only.source == "todo"
    (only,) = load_all("source_url = 'dbname=todo'", {}, "other")
    assert only.source == "other"
    with pytest.raises(ConfigError, match="there is one source only"):
        load_all("source_url = 'dbname=todo'", {}, "a", "b")


@pytest.mark.parametrize(
    ("toml", "environ", "flags", "message"),
    [
        (TWO, {}, {}, r"has several sources: crm, shop; .*--source NAME, or BEMI_SOURCE"),
        (TWO, {}, {"source": "shpo"}, r"--source: bemi\.toml has no source shpo; .*mean shop\?"),
        (TWO, {"BEMI_SOURCE": "x"}, {}, r"BEMI_SOURCE: .* no source x; its sources: shop, crm"),
        (TWO, {"BEMI_SLOT": "x"}, {"source": "crm"}, r"BEMI_SLOT can't be that of several"),
        (TWO, {"BEMI_SOURCE_URL": URL}, {"source": "crm"}, r"BEMI_SOURCE_URL .*; unset it, and"),
    ],
)
def test_which_source_is_meant_is_never_guessed(
    toml: str, environ: dict[str, str], flags: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(toml, environ, **flags)
    assert re.search(message, f"{caught.value}; {caught.value.fix}")


def test_a_flag_for_one_source_is_refused_for_several() -> None:
    Path("bemi.toml").write_text(TWO, encoding="utf-8")
    with pytest.raises(ConfigError, match="--source-url can't be that of several sources"):
        config.load_all({"source_url": URL}, {})
    assert config.load_all({"source_url": URL}, {}, sources=["crm"])[0].source_url == URL


@pytest.mark.parametrize(
    ("crm", "message"),
    [
        ("dbname=shop", "the same slot .* sources.shop: bemi_shop"),
        ("dbname=shop'\nslot = 'other", "the same publication .* sources.shop: bemi"),
        ("dbname=crm'\nslot = 'bemi_shop", "the same slot"),
        ("host=b dbname=shop", None),
        ("dbname=shop'\nslot = 'other'\npublication = 'other", None),
    ],
)
def test_no_two_sources_share_a_slot_or_a_publication(crm: str, message: str | None) -> None:
    toml = f"[sources.shop]\nsource_url = 'dbname=shop'\n[sources.crm]\nsource_url = '{crm}'"
    if message is None:
        assert len(load_all(toml)) == 2
        return
    with pytest.raises(ConfigError, match=message):
        load_all(toml)


def test_sources_with_one_history_need_not_be_told_apart_to_read_it() -> None:
    Path("bemi.toml").write_text(TWO, encoding="utf-8")
    assert config.load_history(environ={}).url == "dbname=history"
    apart = TWO.replace('destination_url = "dbname=history"', "")
    Path("bemi.toml").write_text(apart, encoding="utf-8")
    with pytest.raises(ConfigError, match="histories of their own: shop, crm"):
        config.load_history(environ={})
    assert config.load_history(environ={"BEMI_SOURCE": "crm"}).url == "dbname=crm"
    assert config.is_set("source_url", {})
    assert not config.is_set("destination_url", {})


ISSUER = "https://accounts.example"


def test_where_people_sign_in_is_set_for_all_sources_at_once() -> None:
    assert config.load_oidc({}) is None
    load(f'oidc_issuer = "{ISSUER}/"\n[sources.a]\nsource_url = "{URL}"', {})
    environ = {
        "BEMI_OIDC_CLIENT_ID": "bemi",
        "BEMI_OIDC_CLIENT_SECRET": "s3cret",
        "BEMI_OIDC_DOMAINS": "example.com, Example.org",
    }
    found = config.load_oidc(environ)
    assert found == config.OidcSettings(
        oidc_issuer=f"{ISSUER}/",
        oidc_client_id="bemi",
        oidc_client_secret="s3cret",
        oidc_name="accounts.example",
        oidc_domains=("example.com", "example.org"),
    )
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"CLIENT_ID": "bemi"}, "BEMI_OIDC_CLIENT_ID is set, and oidc_issuer is not"),
        ({"ISSUER": ISSUER}, "oidc_client_id: it is not set"),
        ({"ISSUER": "http://accounts.example", "CLIENT_ID": "x"}, "not an https URL"),
        ({"ISSUER": "https://a@accounts.example", "CLIENT_ID": "x"}, "not an https URL"),
        ({"ISSUER": f"{ISSUER}?x=y", "CLIENT_ID": "x"}, "not an https URL"),
        ({"ISSUER": "https://[", "CLIENT_ID": "x"}, "not an https URL"),
        ({"ISSUER": ISSUER, "CLIENT_ID": "x", "DOMAINS": "a@b"}, "'a@b' is no domain"),
        ({"ISSUER": ISSUER, "CLIENT_ID": "x", "DOMAINS": "*"}, "is no domain"),
    ],
)
def test_a_provider_that_can_not_be_is_refused(given: Mapping[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        config.load_oidc({f"BEMI_OIDC_{name}": value for name, value in given.items()})


def test_a_source_has_no_provider_of_its_own() -> None:
    with pytest.raises(ConfigError, match="oidc_issuer in"):
        load(f'[sources.a]\nsource_url = "{URL}"\noidc_issuer = "{ISSUER}"', {})
