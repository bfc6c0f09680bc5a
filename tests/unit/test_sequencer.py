"""A message stands before the change that its record ends at, whatever was sent first."""

from hypothesis import given
from hypothesis import strategies as st

from bemi.capture.messages import Begin, Commit, Insert, LogicalMessage, Message, Relation
from bemi.capture.sequencer import Placed, Sequencer
from bemi.lsn import Lsn

BEGIN = Begin(Lsn(900), 0, 7)
COMMIT = Commit(Lsn(900), Lsn(930), 0)
RELATION = Relation(1, "public", "t", "d", ())


def change(number: int) -> Insert:
    return Insert(1, (str(number).encode(),))


def context(end: int) -> LogicalMessage:
    return LogicalMessage(True, Lsn(end), "_bemi", b"{}")


def sequenced(*placed: Placed) -> list[Message]:
    sequencer = Sequencer()
    found = [message for each in placed for message, _ in sequencer.take(*each)]
    assert not sequencer.take(RELATION, 0)  # nothing was left
    return found


def test_what_is_in_order_stays_so() -> None:
    placed: list[Placed] = [
        (BEGIN, 10),
        (context(20), 20),
        (RELATION, 0),
        (change(1), 20),
        (change(2), 30),
        (change(3), 30),
        (context(50), 50),
        (change(4), 60),
        (COMMIT, 900),
    ]
    assert sequenced(*placed) == [message for message, _ in placed]


def test_a_message_that_was_sent_late_goes_before_the_changes_of_its_place() -> None:
    late = context(30)
    assert sequenced(
        (BEGIN, 10),
        (change(1), 20),
        (RELATION, 0),
        (change(2), 30),
        (late, 30),
        (change(3), 30),
        (change(4), 40),
        (COMMIT, 900),
    ) == [BEGIN, change(1), late, RELATION, change(2), change(3), change(4), COMMIT]


@given(
    st.lists(st.tuples(st.sampled_from("cm"), st.booleans()), max_size=20),
    st.lists(st.booleans(), max_size=20),
)
def test_any_order_of_equal_places_gives_that_of_the_log(
    records: list[tuple[str, bool]], swapped: list[bool]
) -> None:
    """Records one behind the other: a change begins where the one before it ends, or later."""
    end = 100
    log: list[Placed] = []
    for number, (kind, apart) in enumerate(records):
        start = end + (8 if apart else 0)
        end = start + 16
        log.append((change(number), start) if kind == "c" else (context(end), end))
    sent = list(log)
    for at, swap in zip(range(len(sent) - 1), swapped, strict=False):
        if swap and sent[at][1] == sent[at + 1][1]:
            sent[at], sent[at + 1] = sent[at + 1], sent[at]
    expected = [BEGIN, *(message for message, _ in log), COMMIT]
    assert sequenced((BEGIN, 10), *sent, (COMMIT, 900)) == expected
