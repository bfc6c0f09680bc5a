"""Until when a source is captured: what looks at its locks prove."""

from datetime import UTC, datetime, timedelta

import pytest

from bemi.capture.locks import Locks
from bemi.capture.proof import Proof, Proofs, prove
from bemi.lsn import Lsn

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def locks(*relations: int) -> Locks:
    return Locks(dict.fromkeys(relations, frozenset({"3/7"})), frozenset(), False, 100)


def test_while_nobody_writes_all_is_done_by_now() -> None:
    assert prove(NOON, locks(17), Lsn(0x3000100), [16, 18]) == Proof(NOON, Lsn(0x3000100))


def test_who_is_writing_may_have_taken_the_time_of_its_commit_already() -> None:
    assert prove(NOON, locks(16), Lsn(0x3000100), [16]).time == NOON - timedelta(seconds=10)


@pytest.mark.parametrize(
    ("position", "end"), [(0x3002018, 0x3002000), (0x3000028, 0x3000000), (0x3002028, 0x3002028)]
)
def test_nothing_is_waited_for_behind_the_header_of_an_empty_page(position: int, end: int) -> None:
    assert prove(NOON, locks(), Lsn(position), [16]).position == Lsn(end)


def test_a_proof_holds_once_the_history_has_come_to_its_place() -> None:
    proofs = Proofs()
    for second, position in enumerate((100, 200, 300)):
        proofs.add(Proof(NOON + timedelta(seconds=second), Lsn(position)))
    assert not proofs.holds(Lsn(99))
    assert proofs.take(Lsn(99)) is None
    assert proofs.holds(Lsn(200))
    assert proofs.take(Lsn(299)) == Proof(NOON + timedelta(seconds=1), Lsn(200))
    assert not proofs.holds(Lsn(299))
    assert proofs.take(Lsn(300)) == Proof(NOON + timedelta(seconds=2), Lsn(300))
