"""What a test changed, with assertions that say what happened instead.

Each question waits until the history has all that was committed by then, whoever committed it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Unpack

from bemi.errors import UsageError
from bemi.history.asking import Filtering, filters_of, key_of
from bemi.history.change import Change
from bemi.lsn import Lsn
from bemi.store.filters import Filters
from bemi.testing import masking, telling
from bemi.testing.matching import is_member, is_value, member
from bemi.testing.session import Session

_NO_KEY: Final = object()
_HINT: Final = (
    "Bemi sees what is committed: a test inside a transaction that is rolled back changes nothing"
)


class HistoryOfTest:
    """The changes that were committed since `begin`, which the test function's start calls, too.

    What a checkpoint rolled back is not among them. Tables are `schema.table`, or in the schema
    `public`; a `key` is the primary key's value, for a composite one a tuple. Values compare as in
    Python, or as PostgreSQL's text of them. The assertions return the changes that they found.
    """

    __test__ = False  # no class of tests

    def __init__(self, session: Session) -> None:
        self._session = session
        self.begin()

    def begin(self) -> None:
        """Leave out what was committed before."""
        self._session.take_up_tables()
        self._since = self._session.now()

    @property
    def since(self) -> Lsn:
        """Where it begins, in the database's log."""
        return self._since

    def changes(self, **filters: Unpack[Filtering]) -> list[Change]:
        """In the order in which they were committed; the filters are those of `bemi.History`."""
        __tracebackhide__ = True
        if (table := filters.get("table")) is not None:
            self._require_tracked(table)
        return list(self._read(filters_of(**filters)))

    def assert_changed(
        self,
        table: str,
        columns: Mapping[str, Sequence[Any]],
        *,
        key: object = _NO_KEY,
        times: int | None = None,
    ) -> list[Change]:
        """That an update changed these columns, each from its first value to its second.

        `times`: exactly so often, instead of at least once.
        """
        __tracebackhide__ = True
        for name, pair in columns.items():
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise UsageError(
                    f"assert_changed: {name}: {pair!r} is not a value before and one after",
                    fix=f"give both, as in {{{name!r}: [False, True]}}",
                )

        def wanted(change: Change) -> bool:
            return change.operation == "UPDATE" and all(
                name in change.before
                and name in change.after
                and is_value(change.before[name], before)
                and is_value(change.after[name], after)
                for name, (before, after) in columns.items()
            )

        steps = (
            f"{telling.name(name)} from {telling.value(before)} to {telling.value(after)}"
            for name, (before, after) in columns.items()
        )
        said = f"update of {{}} changed {', '.join(steps)}"
        return self._assert_some(table, key, wanted, said, times, columns)

    def assert_created(
        self,
        table: str,
        columns: Mapping[str, Any] | None = None,
        *,
        key: object = _NO_KEY,
        times: int | None = None,
    ) -> list[Change]:
        """That a row was created, with these values."""
        __tracebackhide__ = True
        columns = columns or {}
        wanted = _of_row("CREATE", columns)
        said = f"row of {{}} was created{_with(columns)}"
        return self._assert_some(table, key, wanted, said, times, columns)

    def assert_deleted(
        self,
        table: str,
        columns: Mapping[str, Any] | None = None,
        *,
        key: object = _NO_KEY,
        times: int | None = None,
    ) -> list[Change]:
        """That a row was deleted, which had these values. (A TRUNCATE is another operation.)"""
        __tracebackhide__ = True
        columns = columns or {}
        wanted = _of_row("DELETE", columns)
        said = f"row of {{}} was deleted{_with(columns)}"
        return self._assert_some(table, key, wanted, said, times, columns)

    def assert_unchanged(self, table: str | None = None, *, key: object = _NO_KEY) -> None:
        """That nothing was changed: in this table, of this row, or at all."""
        __tracebackhide__ = True
        if table is None and key is not _NO_KEY:
            raise UsageError("assert_unchanged: a key is one of a table", fix="give the table, too")
        found = self._of(table, key)
        if found:
            what = "the database" if table is None else self._what(table, key)
            _fail(f"{what} was changed", telling.changes(found, "its changes in this test"))

    def assert_context(
        self, *keys: str, table: str | None = None, **members: object
    ) -> list[Change]:
        """That each change, of this table or at all, was made with a context; with these keys in
        it, and these members. Values compare as text; `None` is a member that is null."""
        __tracebackhide__ = True
        found = self._of(table, _NO_KEY)
        where = "in this test" if table is None else f"of {telling.name(table)} in this test"
        if not found:
            _fail(f"no change {where} that could have a context", _HINT)
        without = [each for each in found if not _has(each, keys, members)]
        if without:
            said = [f"{telling.name(key)}" for key in keys]
            said += [f"{telling.name(name)} {telling.value(v)}" for name, v in members.items()]
            told = f" with {', '.join(said)}" if said else ""
            _fail(
                f"{len(without)} of {len(found)} changes {where} were made without a context{told}",
                telling.changes(without, "they are"),
            )
        return found

    def assert_not_readable(self, *secrets: str) -> None:
        """That none of these texts is in what the history has of this test: rows before and
        after, keys, contexts; as it stands, or in a longer text."""
        __tracebackhide__ = True
        if not all(secrets):
            raise UsageError("assert_not_readable: an empty text is everywhere")
        looked_for = [masking.Secret(secret, telling.value(secret)) for secret in secrets]
        found = masking.readable(self._read(Filters()), looked_for)
        if found:
            _fail("the history shows what was not to be readable", *found)

    def assert_masked(self) -> None:
        """That no value of a column that the rules mask or hash is readable anywhere in what the
        history has of this test, such as in another column or a context.

        The values are those that the database has of the rows that were changed. Shorter ones than
        4 characters, which are everywhere, are not looked for.
        """
        __tracebackhide__ = True
        if self._session.kept.unmatched:
            _fail("rules that match nothing", *self._session.kept.unmatched)
        changes = list(self._read(Filters()))
        found = masking.readable(changes, masking.secrets(self._session, changes))
        if found:
            _fail("the history shows values of columns that are masked", *found)

    # --- what the assertions are made of -------------------------------------------------------

    def _read(self, filters: Filters) -> Iterator[Change]:
        until = self._session.caught_up()
        return self._session.changes(self._session.within(filters, self._since, until))

    def _of(self, table: str | None, key: object) -> list[Change]:
        __tracebackhide__ = True
        if key is _NO_KEY:
            return self.changes(table=table)
        return self.changes(table=table, key=key_of(key))

    def _assert_some(
        self,
        table: str,
        key: object,
        wanted: Callable[[Change], bool],
        said: str,
        times: int | None,
        columns: Mapping[str, Any],
    ) -> list[Change]:
        __tracebackhide__ = True
        found = self._of(table, key)
        matching = [change for change in found if wanted(change)]
        if (times is None and not matching) or (times is not None and len(matching) != times):
            self._deny(table, key, said, times, columns, found, len(matching))
        return matching

    def _deny(
        self,
        table: str,
        key: object,
        said: str,
        times: int | None,
        columns: Mapping[str, Any],
        found: Sequence[Change],
        matching: int,
    ) -> NoReturn:
        __tracebackhide__ = True
        what = self._what(table, key)
        said = said.replace("{}", what)
        message = f"no {said}" if times is None else f"{matching} times instead of {times}: {said}"
        known = {name for each in found for name in (*each.before, *each.after)}
        strange = [name for name in columns if known and name not in known]
        told = [telling.changes(found, f"changes of {what} in this test")]
        if strange:
            told.append(f"{what} has no column {telling.names(strange)}: {telling.names(known)}")
        if not found:
            others = list(self._read(Filters()))
            told.append(telling.changes(others, "changes of other tables") if others else _HINT)
        _fail(message, *told)

    def _require_tracked(self, table: str) -> None:
        """A name that is misspelt must not pass for a table that nobody changed."""
        __tracebackhide__ = True
        name = table if "." in table else f"public.{table}"
        tracked = self._session.tables() - {*self._session.made_since()}
        if name in tracked:
            return
        why = dict(self._session.kept.untracked).get(name)
        if why is None and name in self._session.made_since():
            why = "it was made since the test began: make it before, or call begin() afterwards"
        raise UsageError(
            f"the changes of {telling.name(name)} are not kept: "
            + (why or "there is no such table that is tracked"),
            fix=f"those that are: {telling.names(tracked)}",
        )

    def _what(self, table: str, key: object) -> str:
        shown = telling.name(table)
        return shown if key is _NO_KEY else f"{shown} {telling.name(key_of(key))}"


def _of_row(operation: str, columns: Mapping[str, Any]) -> Callable[[Change], bool]:
    def wanted(change: Change) -> bool:
        row = change.after if operation == "CREATE" else change.before
        return change.operation == operation and all(
            name in row and is_value(row[name], value) for name, value in columns.items()
        )

    return wanted


def _with(columns: Mapping[str, Any]) -> str:
    return f" with {telling.values(columns)}" if columns else ""


def _has(change: Change, keys: Sequence[str], members: Mapping[str, object]) -> bool:
    return (
        bool(change.context)
        and all(member(change.context, key) is not None for key in keys)
        and all(is_member(change.context, name, value) for name, value in members.items())
    )


def _fail(message: str, *told: str) -> NoReturn:
    __tracebackhide__ = True
    raise AssertionError("\n".join((message, *told)))
