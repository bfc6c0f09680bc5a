"""The pytest plugin: fixtures, markers and options. Loaded by every pytest run where Bemi is
installed, so it imports pytest only, and does nothing until a fixture is asked for.
"""

import os
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from bemi.errors import BemiError

if TYPE_CHECKING:
    from bemi.testing.checkpoint import Checkpoint, Checkpoints, States
    from bemi.testing.history import HistoryOfTest
    from bemi.testing.session import Session

_VARIABLE: Final = "BEMI_TEST_URL"

_OPTIONS: Final = (
    ("bemi_url", "string", "", f"the test database's connection string; {_VARIABLE} wins over it"),
    (
        "bemi_history_url",
        "string",
        "",
        "another database for the history of the tests; by default a schema of the test database",
    ),
    ("bemi_config", "string", "", "file with the rules that are to hold in tests, as bemi.toml"),
    (
        "bemi_baseline",
        "bool",
        True,
        "read what tables hold before the first test, so that a TRUNCATE can be rolled back",
    ),
    ("bemi_rollback", "bool", False, "roll the database back after each test"),
    ("bemi_require_context", "bool", False, "fail tests that write without a context"),
    (
        "bemi_require_masked",
        "bool",
        False,
        "fail tests after which a masked value is readable in the history",
    ),
)
_MARKERS: Final = (
    "bemi_rollback(reset_sequences=False): roll the database back after the test",
    "bemi_require_context(*keys): fail the test if it writes without these keys in the context",
    "bemi_require_masked: fail the test if the history shows values that the rules mask",
)
_CHECKED: Final = ("bemi_require_context", "bemi_require_masked")


class BemiWarning(UserWarning):
    """Something of the test database is out of Bemi's reach."""


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, kind, default, text in _OPTIONS:
        parser.addini(name, text, kind, default)  # type: ignore[arg-type]


def pytest_configure(config: pytest.Config) -> None:
    for text in _MARKERS:
        config.addinivalue_line("markers", text)


def pytest_itemcollected(item: pytest.Item) -> None:
    names: list[str] | None = getattr(item, "fixturenames", None)
    if names is None:
        return
    if "bemi_rollback" in names or _asked(item, "bemi_rollback") is not None:
        # Before all that may write for this test alone, so that it is undone too, and behind all
        # that writes for several.
        names = [name for name in names if name != "bemi_rollback"]
        names.insert(_of_longer_life(item, names), "bemi_rollback")
        item.fixturenames = names  # type: ignore[attr-defined]
    if "bemi_history" not in names and any(_asked(item, each) is not None for each in _CHECKED):
        item.fixturenames = [*names, "bemi_history"]  # type: ignore[attr-defined]


def _asked(item: pytest.Item, name: str) -> pytest.Mark | None:
    """The marker, where the item has it, or an empty one where the option says so for all."""
    mark = item.get_closest_marker(name)
    if mark is not None:
        return None if mark.args == (False,) else mark
    return pytest.Mark(name, (), {}, _ispytest=True) if item.config.getini(name) else None


def _of_longer_life(item: pytest.Item, names: list[str]) -> int:
    """How many fixtures the item begins with that live longer than it does."""
    known: dict[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined] # noqa: SLF001
    for at, name in enumerate(names):
        if name in known and known[name][-1].scope == "function":
            return at
    return len(names)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    history: HistoryOfTest | None = getattr(item, "funcargs", {}).get("bemi_history")
    try:
        if history is None:
            return (yield)
        history.begin()
        result = yield
        _check(item, history)
        return result
    except BemiError as error:
        if error.fix is not None:
            error.add_note(f"fix: {error.fix}")
        raise


def _check(item: pytest.Item, history: "HistoryOfTest") -> None:
    asked = _asked(item, "bemi_require_context")
    try:
        if asked is not None and history.changes():
            history.assert_context(*asked.args)
        if _asked(item, "bemi_require_masked") is not None:
            history.assert_masked()
    except AssertionError as error:
        # There is no line of the test's to point at.
        pytest.fail(str(error), pytrace=False)


@contextmanager
def _told() -> Iterator[None]:
    """What keeps a fixture from being made, in a line instead of a traceback."""
    try:
        yield
    except BemiError as error:
        fix = "" if error.fix is None else f"\nfix: {error.fix}"
        pytest.fail(f"bemi: {error}{fix}", pytrace=False)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("bemi"):
            raise
        pytest.fail(
            f"bemi: its fixtures need {error.name}\nfix: pip install 'bemi[pytest]'", pytrace=False
        )


@pytest.fixture(scope="session")
def bemi_url(pytestconfig: pytest.Config) -> str:
    """The connection string of the test database. Override it where it is not known before."""
    found = os.environ.get(_VARIABLE) or pytestconfig.getini("bemi_url")
    if not found:
        pytest.fail(
            "bemi: which database do the tests use?\n"
            f"fix: set bemi_url in pytest's settings, {_VARIABLE} in the environment, or override"
            " the fixture bemi_url in conftest.py",
            pytrace=False,
        )
    return str(found)


@pytest.fixture(scope="session")
def bemi_session(bemi_url: str, pytestconfig: pytest.Config) -> "Iterator[Session]":
    """The test database, whose changes are kept until the last test has ended."""
    with _told():
        from bemi.testing.session import Order, Session, url_of

        named = pytestconfig.getini("bemi_config")
        folder = pytestconfig.inipath.parent if pytestconfig.inipath else pytestconfig.rootpath
        order = Order(
            url=url_of(bemi_url),
            history_url=pytestconfig.getini("bemi_history_url"),
            config=str(Path(folder, named)) if named else "",
            baseline=pytestconfig.getini("bemi_baseline"),
        )
        session = Session(order)
    try:
        yield session
    finally:
        with _told():
            session.close()


@pytest.fixture
def bemi_history(bemi_session: "Session") -> "HistoryOfTest":
    """What the test changes, with assertions."""
    with _told():
        from bemi.testing.history import HistoryOfTest

        return HistoryOfTest(bemi_session)


@pytest.fixture
def bemi_checkpoint(bemi_session: "Session", request: pytest.FixtureRequest) -> "Checkpoints":
    """`with bemi_checkpoint():` leaves the database as it was, whatever is committed meanwhile."""
    with _told():
        from bemi.testing.checkpoint import Checkpoints

        _say_what_is_left(bemi_session)
        return Checkpoints(bemi_session, lambda text: _report(request.node, "call", text))


@pytest.fixture
def bemi_state(bemi_session: "Session", request: pytest.FixtureRequest) -> "States":
    """`with bemi_state.before(request="r-1"):` or `.at(time)`: an earlier state, and back."""
    with _told():
        from bemi.testing.checkpoint import States

        _say_what_is_left(bemi_session)
        return States(bemi_session, lambda text: _report(request.node, "call", text))


@pytest.fixture
def bemi_rollback(
    bemi_session: "Session", request: pytest.FixtureRequest
) -> "Iterator[Checkpoint]":
    """After the test and its fixtures, the database is as it was before them."""
    with _told():
        from bemi.testing.checkpoint import Checkpoint

        _say_what_is_left(bemi_session)
        mark = request.node.get_closest_marker("bemi_rollback")
        made = Checkpoint(bemi_session, **({} if mark is None else mark.kwargs))
    yield made
    with _told():
        _report(request.node, "teardown", made.roll_back().told())


def _report(item: pytest.Item, when: str, text: str) -> None:
    item.add_report_section(when, "bemi", f"{text}\n")


def _say_what_is_left(session: "Session") -> None:
    """Once: which tables a rollback leaves as the tests left them."""
    if session.told:
        return
    session.told = True
    for table, reason in session.kept.untracked:
        warnings.warn(f"{table} is not rolled back: {reason}", BemiWarning, stacklevel=2)
