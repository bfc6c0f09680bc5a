"""The transaction that the source must send again before the history goes on behind it. Pure."""

from typing import Final

from bemi.change import Transaction
from bemi.errors import RestoredError
from bemi.store.checkpoint import StoredTransaction

_XID_RANGE: Final = 1 << 32


def is_it(transaction: Transaction, stored: StoredTransaction) -> bool:
    return (
        transaction.commit_lsn == stored.commit_position
        and transaction.transaction_id % _XID_RANGE == stored.xid
        and transaction.committed_at == stored.committed_at
    )


def restored(expected: StoredTransaction) -> RestoredError:
    return RestoredError(
        f"the source's log does not have the transaction that the history has at"
        f" {expected.commit_position}: it was restored from an older copy"
    )
