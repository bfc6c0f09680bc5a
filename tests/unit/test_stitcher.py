"""Rows get their transaction, table, ordinal and context; by the rules of spec/context.md."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.capture.decoder import decode
from bemi.capture.messages import Relation
from bemi.capture.stitcher import Stitcher, widen_xid
from bemi.change import UNCHANGED, Change, Committed, Event, Operation, Stretch, Table
from bemi.errors import ProtocolError
from tests.support import pgoutput

TABLE = 10
OTHER = 11
COMMIT = 0x2000


def describe(relation: Relation) -> Table:
    key = tuple(at for at, column in enumerate(relation.columns) if column.in_identity)
    return Table(relation.oid, relation.schema, relation.name, relation.columns, key)


def new_stitcher(*, encoding: str = "utf-8", next_xid: int = 700) -> Stitcher:
    stitcher = Stitcher(describe, clock=lambda: 99, encoding=encoding, next_xid=next_xid)
    for oid, name in ((TABLE, "todos"), (OTHER, "notes")):
        columns = [("id", 20, True), ("note", 25, False)]
        take(stitcher, pgoutput.relation(oid, "public", name, columns))
    return stitcher


@pytest.fixture
def stitcher() -> Stitcher:
    return new_stitcher()


def take(stitcher: Stitcher, *payloads: bytes, lsn: int = 0x1000) -> list[Event]:
    """The events of messages that share one WAL record."""
    return [event for payload in payloads for event in stitcher.take(decode(payload), lsn)]


def transaction(
    stitcher: Stitcher, steps: Sequence[bytes | int], *, commit: int = COMMIT
) -> list[Event]:
    """Each step a context message's content, or the number of a row to insert."""
    events = take(stitcher, pgoutput.begin(commit))
    for step in steps:
        if isinstance(step, int):
            events += take(stitcher, insert(step))
        else:
            events += take(stitcher, pgoutput.message(step))
    return events + take(stitcher, pgoutput.commit(commit, commit + 0x30))


def insert(number: int) -> bytes:
    return pgoutput.insert(TABLE, [str(number).encode(), b"x"])


def changes(events: Sequence[Event]) -> list[Change]:
    return [event for event in events if isinstance(event, Change)]


def stretches(events: Sequence[Event]) -> dict[int, Stretch]:
    found = [event for event in events if isinstance(event, Stretch)]
    told = {stretch.number: stretch for stretch in found}
    assert len(told) == len(found), "a stretch was told twice"
    return told


def contexts_by_row(events: Sequence[Event]) -> list[tuple[bytes, bool]]:
    """Of each row, its context, and whether it is flagged as dropped."""
    told = stretches(events)
    rows = [
        (told[change.stretch].context, "context_dropped" in change.flags)
        for change in changes(events)
    ]
    assert {change.stretch for change in changes(events)} == set(told)
    return rows


A, B, EMPTY, BAD = b'{"a": 1}', b'{"b": 2}', b"{}", b"not json"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([1, 2], [(EMPTY, False)] * 2, id="none"),
        pytest.param([A, 1, 2], [(A, False)] * 2, id="one"),
        pytest.param([A, 1, B, 2, 3], [(A, False), (B, False), (B, False)], id="several"),
        pytest.param([1, A, 2], [(A, False)] * 2, id="one after the first row"),
        pytest.param(
            [1, A, 2, B, 3], [(A, False), (A, False), (B, False)], id="rows before the first"
        ),
        pytest.param([A, B, 1], [(B, False)], id="two before a row"),
        pytest.param([1, A, B, 2], [(A, False), (B, False)], id="two between rows"),
        pytest.param([A, 1, A, 2], [(A, False)] * 2, id="repeated"),
        pytest.param([A, 1, B, A, 2], [(A, False)] * 2, id="another and back without a row"),
        pytest.param([A, 1, B], [(A, False)], id="one after the last row"),
        pytest.param([1, A], [(A, False)], id="the only one after the last row"),
        pytest.param([b"null", 1], [(EMPTY, False)], id="null"),
        pytest.param([1, b"null", 2, A, 3], [(EMPTY, False)] * 2 + [(A, False)], id="null first"),
        pytest.param([A, 1, b"null", 2], [(A, False), (EMPTY, False)], id="null ends a context"),
        pytest.param([BAD, 1, 2], [(EMPTY, True)] * 2, id="unreadable"),
        pytest.param(
            [1, BAD, 2], [(EMPTY, False), (EMPTY, True)], id="unreadable one after the first row"
        ),
        pytest.param([A, 1, BAD, 2], [(A, False), (EMPTY, True)], id="unreadable in the middle"),
        pytest.param(
            [A, 1, BAD, 2, A, 3],
            [(A, False), (EMPTY, True), (A, False)],
            id="unreadable between two equal ones",
        ),
        pytest.param(
            [1, BAD, 2, A, 3],
            [(EMPTY, False), (EMPTY, True), (A, False)],
            id="an unreadable first one lends nothing",
        ),
        pytest.param([BAD, A, 1], [(A, False)], id="unreadable, then readable, before a row"),
        pytest.param([A, BAD, 1], [(EMPTY, True)], id="readable, then unreadable, before a row"),
        pytest.param(
            [BAD, 1, b"{}", 2], [(EMPTY, True), (EMPTY, False)], id="empty after unreadable"
        ),
        pytest.param([1, BAD], [(EMPTY, False)], id="unreadable after the last row"),
        pytest.param([A, BAD, B], [], id="contexts without rows"),
    ],
)
def test_a_row_has_the_context_before_it(
    stitcher: Stitcher, steps: list[bytes | int], expected: list[tuple[bytes, bool]]
) -> None:
    events = transaction(stitcher, steps)
    assert contexts_by_row(events) == expected
    assert [change.ordinal for change in changes(events)] == list(range(1, len(expected) + 1))


def test_what_is_dropped_is_kept_raw(stitcher: Stitcher) -> None:
    (stretch,) = stretches(transaction(stitcher, [BAD, 1])).values()
    assert (stretch.context, stretch.dropped, stretch.raw) == (EMPTY, "not_json", BAD)


def test_a_context_ends_with_its_transaction(stitcher: Stitcher) -> None:
    first = transaction(stitcher, [A, 1])
    second = transaction(stitcher, [2], commit=0x3000)
    third = transaction(stitcher, [BAD, 3], commit=0x4000)
    fourth = transaction(stitcher, [4], commit=0x5000)
    assert contexts_by_row(first) == [(A, False)]
    assert contexts_by_row(second) == [(EMPTY, False)]
    assert contexts_by_row(third) == [(EMPTY, True)]
    assert contexts_by_row(fourth) == [(EMPTY, False)]


@pytest.mark.parametrize("prefix", ["", "bemi", "_BEMI", "_bemi_baseline", "_bemi_ddl", "_bemi2"])
def test_another_prefix_is_not_a_context(stitcher: Stitcher, prefix: str) -> None:
    events = take(
        stitcher, pgoutput.begin(), pgoutput.message(A, prefix), insert(1), pgoutput.commit()
    )
    assert contexts_by_row(events) == [(EMPTY, False)]


def test_a_message_that_is_not_transactional_is_not_a_context(stitcher: Stitcher) -> None:
    outside = pgoutput.message(A, transactional=False)
    assert take(stitcher, outside) == []
    events = take(stitcher, pgoutput.begin(), outside, insert(1), pgoutput.commit())
    assert contexts_by_row(events) == [(EMPTY, False)]


@pytest.mark.parametrize("with_row", [False, True])
def test_a_mark_is_no_context_and_marks_its_transaction(stitcher: Stitcher, with_row: bool) -> None:
    mark = pgoutput.message(b"", "_bemi_mark")
    row = [insert(1)] if with_row else []
    events = take(stitcher, pgoutput.begin(), *row, mark, pgoutput.commit())
    assert isinstance(events[-1], Committed)
    assert events[-1].marked
    assert events[-1].changes == with_row
    (end,) = transaction(stitcher, [], commit=0x3000)
    assert isinstance(end, Committed)
    assert not end.marked


def test_contexts_are_read_in_the_servers_encoding() -> None:
    events = transaction(new_stitcher(encoding="iso8859-1"), ['{"a": "café"}'.encode("latin-1"), 1])
    assert contexts_by_row(events) == [('{"a": "café"}'.encode(), False)]


def test_a_transaction_tells_what_it_is(stitcher: Stitcher) -> None:
    events = take(
        stitcher,
        pgoutput.begin(COMMIT, committed_at=-12, xid=701),
        insert(1),
        pgoutput.commit(COMMIT, COMMIT + 0x30),
    )
    change, _stretch, end = events
    assert isinstance(end, Committed)
    assert (end.end_lsn, end.changes) == (COMMIT + 0x30, 1)
    told = change.transaction
    assert told is end.transaction
    assert (told.commit_lsn, told.committed_at, told.queued_at) == (COMMIT, -12, 99)
    assert told.transaction_id == 701


def test_rows_of_one_record_are_numbered(stitcher: Stitcher) -> None:
    """Rows of one COPY share their record's LSN."""
    events = take(stitcher, pgoutput.begin())
    events += take(stitcher, insert(1), insert(2), lsn=0x10)
    events += take(stitcher, insert(3), lsn=0x20)
    events += take(stitcher, pgoutput.commit())
    found = [(change.lsn, change.index, change.ordinal) for change in changes(events)]
    assert found == [(0x10, 0, 1), (0x10, 1, 2), (0x20, 0, 3)]


def test_a_record_of_the_next_transaction_is_numbered_anew(stitcher: Stitcher) -> None:
    first = transaction(stitcher, [1])
    second = transaction(stitcher, [2], commit=0x3000)
    assert [change.index for change in changes(first + second)] == [0, 0]


def only(events: list[Event]) -> Change:
    (change,) = changes(events)
    return change


def in_transaction(stitcher: Stitcher, *payloads: bytes) -> list[Event]:
    return take(stitcher, pgoutput.begin(), *payloads, pgoutput.commit())


def test_an_insert_has_no_before(stitcher: Stitcher) -> None:
    change = only(in_transaction(stitcher, insert(1)))
    assert change.operation is Operation.CREATE
    assert (change.before, change.after, change.flags) == (None, (b"1", b"x"), ())


def test_an_update_with_its_old_row(stitcher: Stitcher) -> None:
    change = only(in_transaction(stitcher, pgoutput.update(TABLE, [b"1", b"y"], [b"1", b"x"], "O")))
    assert change.operation is Operation.UPDATE
    assert (change.before, change.after) == ((b"1", b"x"), (b"1", b"y"))
    assert change.before_known
    assert change.flags == ()


def test_an_update_without_its_old_row(stitcher: Stitcher) -> None:
    change = only(in_transaction(stitcher, pgoutput.update(TABLE, [b"1", b"y"])))
    assert (change.before, change.after) == (None, (b"1", b"y"))
    assert not change.before_known
    assert change.flags == ("before_unknown",)


def test_of_a_key_tuple_only_the_key_is_known(stitcher: Stitcher) -> None:
    """The rest is NULL in it, which means unknown."""
    change = only(in_transaction(stitcher, pgoutput.update(TABLE, [b"2", b"y"], [b"1", None], "K")))
    assert change.before == (b"1", UNCHANGED)
    assert change.flags == ("before_unknown",)
    change = only(in_transaction(stitcher, pgoutput.delete(TABLE, [b"1", None], "K")))
    assert change.operation is Operation.DELETE
    assert (change.before, change.after) == ((b"1", UNCHANGED), None)
    assert change.flags == ("before_unknown",)


def test_a_delete_with_its_old_row(stitcher: Stitcher) -> None:
    change = only(in_transaction(stitcher, pgoutput.delete(TABLE, [b"1", None], "O")))
    assert (change.before, change.after, change.flags) == ((b"1", None), None, ())


def test_an_unchanged_value_is_filled_from_the_old_row(stitcher: Stitcher) -> None:
    update = pgoutput.update(TABLE, [b"2", pgoutput.UNCHANGED], [b"1", b"long"], "O")
    change = only(in_transaction(stitcher, update))
    assert change.after == (b"2", b"long")
    assert change.flags == ()


def test_an_unchanged_value_that_was_not_sent_is_said(stitcher: Stitcher) -> None:
    for update in (
        pgoutput.update(TABLE, [b"1", pgoutput.UNCHANGED]),
        pgoutput.update(TABLE, [b"1", pgoutput.UNCHANGED], [b"0", None], "K"),
    ):
        change = only(in_transaction(stitcher, update))
        assert change.after == (b"1", UNCHANGED)
        assert change.flags == ("before_unknown", "unchanged:note")


def test_an_unchanged_key_is_filled_from_the_key_tuple(stitcher: Stitcher) -> None:
    update = pgoutput.update(TABLE, [pgoutput.UNCHANGED, b"y"], [b"long key", None], "K")
    change = only(in_transaction(stitcher, update))
    assert change.after == (b"long key", b"y")
    assert change.flags == ("before_unknown",)


def test_a_truncate_gives_a_change_per_table(stitcher: Stitcher) -> None:
    found = changes(in_transaction(stitcher, pgoutput.truncate(TABLE, OTHER, options=1)))
    assert [change.table.name for change in found] == ["todos", "notes"]
    assert [change.ordinal for change in found] == [1, 2]
    assert {change.operation for change in found} == {Operation.TRUNCATE}
    assert {(change.before, change.after) for change in found} == {(None, None)}


def test_a_relation_announced_again_counts_from_there(stitcher: Stitcher) -> None:
    columns = [("id", 20, True), ("note", 25, False), ("more", 25, False)]
    first, second = changes(
        in_transaction(
            stitcher,
            insert(1),
            pgoutput.relation(TABLE, "public", "renamed", columns),
            pgoutput.insert(TABLE, [b"2", b"x", b"y"]),
        )
    )
    assert (first.table.name, len(first.table.columns)) == ("todos", 2)
    assert (second.table.name, len(second.table.columns)) == ("renamed", 3)


def test_a_change_of_an_inferred_table_says_so() -> None:
    def inferred(relation: Relation) -> Table:
        return msgspec.structs.replace(describe(relation), inferred=True)

    stitcher = Stitcher(inferred, clock=lambda: 99, encoding="utf-8", next_xid=700)
    take(stitcher, pgoutput.relation(TABLE, "s", "t", [("id", 20, True), ("note", 25, False)]))
    found = changes(
        in_transaction(
            stitcher, insert(1), pgoutput.update(TABLE, [b"1", b"y"]), pgoutput.truncate(TABLE)
        )
    )
    assert [change.flags for change in found] == [
        ("inferred",),
        ("before_unknown", "inferred"),
        ("inferred",),
    ]


def test_origin_and_type_change_nothing(stitcher: Stitcher) -> None:
    events = in_transaction(
        stitcher, pgoutput.origin(5, "away"), pgoutput.type_(1, "s", "t"), insert(1)
    )
    assert only(events).ordinal == 1


@pytest.mark.parametrize(
    ("payloads", "match"),
    [
        ([insert(1)], "outside"),
        ([pgoutput.message(A)], "outside"),
        ([pgoutput.message(b"", "_bemi_mark")], "outside"),
        ([pgoutput.commit()], "outside"),
        ([pgoutput.begin(), pgoutput.begin()], "inside another"),
        ([pgoutput.begin(), pgoutput.insert(12, [b"1"])], "not announced"),
        ([pgoutput.begin(), pgoutput.truncate(12)], "not announced"),
        ([pgoutput.begin(), pgoutput.insert(TABLE, [b"1"])], "1 values for public.todos"),
        ([pgoutput.begin(), pgoutput.delete(TABLE, [b"1"] * 3)], "3 values for public.todos"),
        (
            [pgoutput.begin(), pgoutput.update(TABLE, [b"1"] * 2, [b"1"], "O")],
            "1 values for public.todos",
        ),
        (
            [pgoutput.begin(), pgoutput.update(TABLE, [b"1"] * 2, [b"1"] * 3, "K")],
            "3 values for public.todos",
        ),
    ],
)
def test_a_message_out_of_place_is_a_protocol_error(
    stitcher: Stitcher, payloads: list[bytes], match: str
) -> None:
    with pytest.raises(ProtocolError, match=match):
        take(stitcher, *payloads)


@pytest.mark.parametrize(
    ("xid", "near", "wide"),
    [
        (700, 705, 700),
        (710, 705, 710),
        (4_294_967_290, (1 << 32) + 10, 4_294_967_290),
        (10, 4_294_967_290, (1 << 32) + 10),
        (3, 7 << 32, (7 << 32) + 3),
        (4_294_967_295, 7 << 32, (7 << 32) - 1),
        (4_294_967_295, 3, 4_294_967_295),
    ],
)
def test_an_xid_is_widened_to_the_nearest(xid: int, near: int, wide: int) -> None:
    assert widen_xid(xid, near) == wide


@given(st.integers(3, 1 << 62), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_widening_undoes_cutting(near: int, distance: int) -> None:
    wide = near + distance
    if wide >= 3:
        assert widen_xid(wide % (1 << 32), near) == wide


def test_xids_are_widened_along_the_stream() -> None:
    stitcher = new_stitcher(next_xid=(1 << 32) - 2)
    seen = []
    for number in range(6):
        xid = ((1 << 32) - 3 + number) % (1 << 32)
        take(stitcher, pgoutput.begin(xid=xid))
        (end,) = take(stitcher, pgoutput.commit())
        seen.append(end.transaction.transaction_id)
    assert seen == [(1 << 32) - 3 + number for number in range(6)]


steps = st.lists(st.sampled_from([A, B, b"null", BAD, 1]), max_size=12)


@given(steps)
def test_contexts_by_a_second_reading_of_the_spec(given_steps: list[bytes | int]) -> None:
    read: dict[bytes, tuple[bytes, bool]] = {
        A: (A, False),
        B: (B, False),
        b"null": (EMPTY, False),
        BAD: (EMPTY, True),
    }
    messages = [step for step in given_steps if isinstance(step, bytes)]
    current = read[messages[0]] if messages else (EMPTY, False)
    if messages and messages[0] == BAD:
        current = (EMPTY, False)
    expected = []
    for step in given_steps:
        if isinstance(step, bytes):
            current = read[step]
        else:
            expected.append(current)
    assert contexts_by_row(transaction(new_stitcher(), given_steps)) == expected


def test_the_clock_is_read_once_a_transaction() -> None:
    ticks = iter(range(100))
    stitcher = Stitcher(describe, clock=lambda: next(ticks), encoding="utf-8", next_xid=3)
    take(stitcher, pgoutput.relation(TABLE, "s", "t", [("id", 20, True), ("note", 25, False)]))
    first = transaction(stitcher, [1, 2, 3])
    second = transaction(stitcher, [4])
    assert {event.transaction.queued_at for event in first} == {0}
    assert {event.transaction.queued_at for event in second} == {1}
