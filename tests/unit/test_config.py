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
