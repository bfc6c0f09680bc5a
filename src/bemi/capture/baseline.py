"""Stores the rows that were there before anything was captured, consistent with the stream.

Rows are read in chunks, each in a short transaction of its own, while the stream goes on. A
chunk's rows go into the history at the chunk's place C in the log (see `bemi.capture.reading`),
so that a reader who goes by position finds them between the changes before and behind them. For
that to be the truth, a row that was read must be what the row was at C. What the look saw was
committed before C. What it did not see and yet committed before C is in the stream, so once the
checkpoint is past C it is in the history: rows that such a transaction touched are left out of
the chunk, because the history has a newer word on them. All other rows were at C as they were
read. Where such a transaction was left out by a rule, the chunk is read again. Nobody is stopped
meanwhile, and chunks may be stored in any order with the stream's rows.

Rows that move by a change of their key may pass between two chunks: the history has that change,
and so the row. Where it lacks a value that was not sent, the row is read again at the end.

A table that had a history before the stretch that is covered now is compared with the last
known images: what differs, changed while nobody looked, and becomes a change flagged `inferred`.
"""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from bemi.capture.chunk import Chunk, snapshot, transaction_of
from bemi.capture.differences import Corrections, Newer, difference, inferred
from bemi.capture.layout import ReadRow
from bemi.capture.ledger import Ledger, Subject
from bemi.capture.look import AlteredError, Moment
from bemi.capture.pace import Pace
from bemi.capture.reading import TableReader
from bemi.capture.results import Reports, Result, StoppedError
from bemi.change import Change, Operation, Row
from bemi.config import Settings
from bemi.errors import PassingError, TableError
from bemi.store.baselines import Baseline, Interval
from bemi.store.images import Image
from bemi.store.known_rows import Touched

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25
"""Seconds between looks at the checkpoint."""

_PATIENCE: Final = 2.0
"""Seconds of waiting for the worker after which it is told how far behind the history is."""

_OPEN: Final = 30.0
"""Seconds that a look stays open until the worker has got to it: it holds back the source's vacuum,
and can be taken again."""

_TRIES: Final = 20
"""Looks at a table that come to nothing, because of changes whose rows can't be told."""

_ROUNDS: Final = 8
_ROUND_PAUSE: Final = 0.05
"""How often rows that lack a value are read again, and seconds before the second time, doubled
with each: a commit may take a while to become visible. A row that changes all the time may never
be caught between two changes, and keeps the flag that says so."""

_BATCH: Final = 1000
"""Rows that are looked up, or read again by their keys, at a time."""


class BaselineTaker:
    """Takes baselines of tables of one source, in its present epoch, one after the other.

    `captures` is called while it waits for the worker, to see that there is one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        pace: Pace,
        reports: Reports,
        captures: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._pace = pace
        self._reports = reports
        self._captures = captures
        self._stop = stop
        with contextlib.ExitStack() as stack:
            self._ledger = Ledger(settings)
            stack.callback(self._ledger.close)
            self._reader = stack.enter_context(
                TableReader(settings, timeline=self._ledger.epoch.timeline)
            )
            self._text = self._reader.encoding.text
            self._ledger.speaks(self._text)
            self._closing = stack.pop_all()

    def __enter__(self) -> "BaselineTaker":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def intervals(self) -> list[Interval]:
        """The stretches of coverage that are open, of which a baseline can be taken."""
        return self._ledger.intervals()

    def take(self, interval: Interval) -> Result:
        """Take the baseline of a table, or go on with it.

        Raises `PassingError`, and can be called again then; `IntervalEndedError`; `TableError`
        for a table that can't be read; `StoppedError`.
        """
        table = self._reader.table(interval.relation)
        subject = self._ledger.subject(interval, table)
        baseline = self._ledger.begin(subject)
        self._reports.table(interval.name, baseline.rows, self._reader.estimate(table.oid))
        incomplete = 0
        try:
            if self._reader.paging(table.oid) and subject.stored.key:
                baseline = self._in_chunks(baseline, subject)
                baseline, incomplete = self._read_again(baseline, subject)
            else:
                baseline = self._in_one_piece(baseline, subject)
            if interval.known_before and subject.stored.key:
                baseline = self._infer_deletes(baseline, subject)
        except AlteredError as error:
            self._ledger.give_up(baseline, str(error))
            raise
        if subject.stored.key:
            self._ledger.finish(baseline)
        return Result(
            table=interval.name,
            rows=baseline.rows,
            created=baseline.created,
            updated=baseline.updated,
            deleted=baseline.deleted,
            compared=interval.known_before,
            itemised=bool(subject.stored.key),
            incomplete=incomplete,
        )

    def _in_chunks(self, baseline: Baseline, subject: Subject) -> Baseline:
        """All rows by the order of an index, from the last chunk that is stored on."""
        limits = self._pace.chunk
        relation = subject.table.oid
        secret = self._ledger.hides(subject.table, self._reader.paging(relation))
        began, had = time.monotonic(), baseline.rows
        after = baseline.last_key
        tries = 0
        while True:
            with self._reader.look(relation) as look:
                page = look.page(after, limits)
            self._await(look.moment)
            changes = self._decided(subject, look.moment, page.rows)
            if changes is None:
                tries = self._try_again(tries, subject)
                continue
            tries = 0
            after = page.last_key
            baseline = self._ledger.store(
                baseline,
                subject,
                look.moment,
                changes,
                last_key=None if secret else after,
                rows=len(page.rows),
            )
            self._reports.rows(baseline.rows)
            if page.exhausted:
                return baseline
            self._stop.wait(self._pace.pause(began, baseline.rows - had))

    def _decided(
        self, subject: Subject, moment: Moment, rows: list[ReadRow]
    ) -> list[Change] | None:
        """What to store of rows that were read; None when it can't be told."""
        read = self._ledger.as_stored(subject.table, moment, rows)
        keyed = {self._ledger.key(each.table, each.after or ()): each for each in read}
        touched = self._ledger.touched(subject.interval, moment, list(keyed))
        if any(each.key is None for each in touched):
            return None
        if self._ledger.left_out(subject.interval, moment):
            return None
        for each in touched:
            keyed.pop(each.key or "", None)
            keyed.pop(each.previous_key or "", None)
        return self._compared(subject, moment, keyed)

    def _compared(self, subject: Subject, moment: Moment, keyed: dict[str, Change]) -> list[Change]:
        """That they were there; or, where the history knew them before, what happened since."""
        interval = subject.interval
        if not interval.known_before:
            return list(keyed.values())
        last = self._ledger.last_images(subject, keyed, before=moment.position)
        changes = []
        for key, change in keyed.items():
            image = last.get(key)
            operation, before = difference(
                change.table,
                change.after or (),
                self._ledger.row_before(subject, image),
                was_there=image is not None or subject.emptied is not None,
                all_known=interval.state_before,
            )
            changes.append(inferred(operation, change, before))
        return changes

    def _read_again(self, baseline: Baseline, subject: Subject) -> tuple[Baseline, int]:
        """Rows whose last change lacks a value, by their keys; how many still do at the end.

        They moved between the chunks, or were changed just when they were read.
        """
        if subject.table.identity == "f":
            return baseline, 0
        for number in range(_ROUNDS):
            self._stop.wait(_ROUND_PAUSE * (2**number - 1))
            # The worker may be storing rows that it completed before it could see the last chunk.
            self._await(self._reader.mark())
            lacking = self._ledger.lacking(subject)
            places = [place for key in lacking if (place := self._place(subject, key))]
            if not places:
                return baseline, len(lacking)
            for at in range(0, len(places), _BATCH):
                with self._reader.look(subject.table.oid) as look:
                    rows = look.rows(places[at : at + _BATCH])
                self._await(look.moment)
                changes = self._decided(subject, look.moment, rows)
                baseline = self._ledger.store(
                    baseline,
                    subject,
                    look.moment,
                    changes or [],
                    last_key=baseline.last_key,
                    rows=0,
                )
        return baseline, len(self._ledger.lacking(subject))

    def _place(self, subject: Subject, key: str) -> tuple[bytes, ...] | None:
        """What a stored key says of the columns by which rows are read, if it does."""
        table, paging = subject.table, self._reader.paging(subject.table.oid)
        if {*paging} != {*table.key} or key.startswith("sha256:"):
            return None
        if self._ledger.hides(table, paging):
            return None
        texts = [key] if len(table.key) == 1 else json.loads(key)
        values = dict(zip(table.key, texts, strict=True))
        try:
            return tuple(values[at].encode(self._text) for at in paging)
        except UnicodeEncodeError:
            return None

    def _in_one_piece(self, baseline: Baseline, subject: Subject) -> Baseline:
        """All rows from one look, which may last: of a table without a key, or an odd one."""
        tries = 0
        while True:
            # So that the look itself does not have to wait for long.
            self._await(self._reader.mark())
            with self._reader.look(subject.table.oid, at_once=True) as look:
                self._await(look.moment, within=_OPEN)
                missed = self._ledger.touched(subject.interval, look.moment, None)
                keep = None
                if not self._ledger.left_out(subject.interval, look.moment):
                    keep = self._keeper(subject, missed)
                if keep is not None:
                    with self._ledger.writing(baseline, subject, look.moment) as chunk:
                        baseline = self._copy(chunk, subject, look.moment, look.everything(), keep)
                        if not subject.stored.key:
                            self._ledger.finish(baseline, replaces=True)
                    return baseline
            tries = self._try_again(tries, subject)

    def _copy(
        self,
        chunk: Chunk,
        subject: Subject,
        moment: Moment,
        pieces: Iterable[list[ReadRow]],
        corrections: Corrections | Newer,
    ) -> Baseline:
        for piece in pieces:
            self._heed_stop()
            read = self._ledger.as_stored(subject.table, moment, piece)
            kept = [each for each in read if not corrections.leaves_out(each.after or ())]
            if isinstance(corrections, Newer):
                keyed = {self._ledger.key(each.table, each.after or ()): each for each in kept}
                kept = self._compared(subject, moment, keyed)
            chunk.write(kept)
            self._reports.rows(chunk.written)
        if isinstance(corrections, Corrections):
            here = transaction_of(moment)
            chunk.write(
                [
                    msgspec.structs.replace(snapshot(here, subject.stored, row), flags=flags)
                    for row, flags in corrections.added
                ]
            )
        return chunk.end(rows=chunk.written, last_key=None)

    def _keeper(self, subject: Subject, missed: list[Touched]) -> Corrections | Newer | None:
        """What of the rows seen is out of date; None when the changes don't tell."""
        if subject.stored.key:
            if any(each.key is None for each in missed):
                return None
            away = {key for each in missed for key in (each.key, each.previous_key)}
            return Newer(lambda row: self._ledger.key(subject.stored, row) in away)
        corrections = Corrections(subject.stored)
        whole = self._ledger.completer(ignoring=False)
        for each in missed:
            if each.operation == "TRUNCATE" or "before_unknown" in each.flags:
                return None
            place = (subject.interval.epoch, each.commit_position, each.ordinal)
            if each.before is not None:
                was = Image(each.before, each.flags, place, each.rules)
                corrections.went(whole.row_of(was, subject.stored))
            if each.after is not None:
                came = Image(each.after, each.flags, place, each.rules)
                flags = tuple(f for f in each.flags if f.startswith(("masked:", "hashed:")))
                corrections.came(whole.row_of(came, subject.stored), flags)
        return corrections

    def _infer_deletes(self, baseline: Baseline, subject: Subject) -> Baseline:
        """Rows that the history still had, and that neither a chunk nor a change spoke of."""
        for keys in self._ledger.keys_before(subject, _BATCH):
            self._heed_stop()
            if not self._gone(subject, self._ledger.last_images(subject, keys)):
                continue
            moment = self._reader.mark()
            self._await(moment)
            if self._ledger.emptied_since(subject, moment):
                return baseline  # that was the end of all that was left
            last = self._ledger.last_images(subject, keys, before=moment.position)
            here = transaction_of(moment)
            changes = [
                inferred(Operation.DELETE, snapshot(here, subject.stored), row)
                for row in self._gone(subject, last)
            ]
            baseline = self._ledger.store(
                baseline, subject, moment, changes, last_key=baseline.last_key, rows=0
            )
        return baseline

    def _gone(self, subject: Subject, last: dict[str, Image]) -> list[Row]:
        """The rows that were alive when they were last heard of, before the interval."""
        here = (subject.interval.epoch, subject.interval.from_position, 0)
        rows = [
            self._ledger.row_before(subject, image) for image in last.values() if image.place < here
        ]
        return [row for row in rows if row is not None]

    def _await(self, moment: Moment, *, within: float = math.inf) -> None:
        """Wait until the history has all that was committed before the moment's place.

        Raises `PassingError` when that takes longer than `within` seconds.
        """
        pause = _FIRST_PAUSE
        began = time.monotonic()
        while (position := self._ledger.position()) <= moment.position:
            if time.monotonic() - began > _PATIENCE:
                self._reports.waiting(_behind(moment.position - position))
            if time.monotonic() - began > within:
                raise PassingError(_behind(moment.position - position))
            self._captures()
            self._stop.wait(pause)
            self._heed_stop()
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        self._heed_stop()

    def _heed_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _try_again(self, tries: int, subject: Subject) -> int:
        if tries >= _TRIES:
            raise TableError(
                f"changes of {subject.interval.name} come all the time that do not tell their rows"
                " or are left out by rule, and can't be seen yet",
                fix="take its baseline when less is going on and no transaction stays open for"
                " long, or give it REPLICA IDENTITY FULL",
            )
        self._stop.wait(0.05 * tries)
        return tries + 1


def _behind(size: int) -> str:
    for unit, divisor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= divisor:
            return f"the history is {size / divisor:.1f} {unit} behind the source"
    return "the history is not there yet"
