"""The history's side of a baseline: what it knows of rows already, and the chunks put into it.

A connection to the destination that is this source's baselines' alone. Decides nothing.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from bemi.capture.chunk import Chunk, snapshot, transaction_of
from bemi.capture.completer import Completer
from bemi.capture.encoder import Encoder
from bemi.capture.keys import key_as_stored
from bemi.capture.layout import ReadRow, shape_of
from bemi.capture.look import Moment
from bemi.capture.masker import Masker
from bemi.change import Change, Row, Table, Transaction
from bemi.config import Settings
from bemi.connections import connect, explained, make_lasting
from bemi.errors import BemiError, PassingError, SetupError
from bemi.lsn import Lsn
from bemi.store import baselines, gaps, images, known_rows, sources, versions
from bemi.store import checkpoint as checkpoints
from bemi.store import rules as rules_store
from bemi.store.baselines import Baseline, Interval
from bemi.store.checkpoint import Epoch
from bemi.store.images import Image, Wanted
from bemi.store.known_rows import Touched
from bemi.store.partitions import Partitions
from bemi.store.rows import DAY, baseline_context_id
from bemi.store.versions import Place, version_of

EVER = (1 << 63) - 1

_NOBODY = Transaction(Lsn(0), 0, 0, 0)


class BaselineBusyError(BemiError):
    """Another process takes baselines of the source."""


class RulesDifferError(BemiError):
    """The rules of the settings are not those under which the worker stores."""


class Subject(msgspec.Struct, frozen=True):
    """A table whose baseline is taken, and what the history knows of it from before."""

    interval: Interval
    table: Table
    stored: Table
    """As its stored changes have it, after the masker."""
    names: tuple[str, ...]
    """What it is called in the history."""
    emptied: Place | None
    """Where it was truncated last before the interval."""
    completer: Completer


class Ledger:
    """For one source, in the epoch that it is in now.

    Raises `BaselineBusyError` while another process has it, and `RulesDifferError`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._schema = settings.schema
        self._partitions = Partitions(settings.schema)
        with contextlib.ExitStack() as stack:
            self._conn = stack.enter_context(connect(settings.destination_url, what="destination"))
            with explained("destination"):
                make_lasting(self._conn)
                self._source_id, self.epoch = self._find()
                if not baselines.claim(self._conn, self._schema, self._source_id):
                    raise BaselineBusyError(
                        f"another process takes baselines of {settings.source}",
                        fix="wait until it is done, or stop it: what it stored stays",
                    )
                self._rules_id = self.agree()
            stack.pop_all()
        self._masker = Masker(settings.rules, settings.hash_key)
        self._encoding = "utf-8"
        self._encoder = self._make_encoder()

    def close(self) -> None:
        self._conn.close()

    def speaks(self, encoding: str) -> None:
        """What the source's values come in, a Python codec's name."""
        self._encoding = encoding
        self._encoder = self._make_encoder()

    def agree(self) -> int:
        """The version of the rules in force, which must be those of the settings."""
        settings = self._settings
        found = rules_store.agreed(
            self._conn, self._schema, self._source_id, settings.rules, settings.hash_key
        )
        if found is None:
            raise RulesDifferError(
                "the worker stores under other rules than those of these settings",
                fix="give both the same; a worker reads its file again when it is started anew",
            )
        return found

    def position(self) -> Lsn:
        """Up to where the history has the stream. Raises `PassingError` in another epoch."""
        with explained("destination"):
            found = checkpoints.read(self._conn, self._schema, self._settings.source)
        if found is None or found.epoch != self.epoch.epoch:
            raise PassingError("the source went over to another epoch")
        return found.position

    def intervals(self) -> list[Interval]:
        """The stretches of coverage that are open."""
        with explained("destination"):
            return baselines.intervals(self._conn, self._schema, self._source_id)

    def subject(self, interval: Interval, table: Table) -> Subject:
        with explained("destination"):
            known = known_rows.names(self._conn, self._schema, self._source_id, table.oid)
        names = tuple({*known, table.name})
        emptied = None
        if interval.known_before:
            emptied = self._emptied(table.oid, names, (0, 0, 0), interval.from_position)
        nothing = snapshot(_NOBODY, table)
        return Subject(
            interval=interval,
            table=table,
            stored=self._masker.change(nothing).table,
            names=names,
            emptied=emptied,
            completer=self.completer(),
        )

    def hides(self, table: Table, columns: Iterable[int]) -> bool:
        """Whether the rules keep the values of one of these columns out of the history."""
        rules = self._settings.rules.for_table(
            table.schema, table.name, [column.name for column in table.columns]
        )
        return bool(rules.replaced & {*columns})

    # --- what it knows ------------------------------------------------------------------------

    def touched(
        self, interval: Interval, moment: Moment, keys: Sequence[str] | None
    ) -> list[Touched]:
        """What a look did not see, though it was committed before; see `known_rows.touched`."""
        with explained("destination"):
            return known_rows.touched(
                self._conn,
                self._schema,
                interval,
                xmax=moment.xmax,
                in_progress=moment.in_progress,
                next_xid=moment.next_xid,
                position=moment.position,
                keys=keys,
            )

    def left_out(self, interval: Interval, moment: Moment) -> bool:
        """Whether a look may have missed what rules left out; see `known_rows.left_out`."""
        with explained("destination"):
            return known_rows.left_out(
                self._conn,
                self._schema,
                interval,
                xmax=moment.xmax,
                in_progress=moment.in_progress,
                next_xid=moment.next_xid,
            )

    def last_images(
        self, subject: Subject, keys: Iterable[str], *, before: int = EVER
    ) -> dict[str, Image]:
        """The last images of rows before a position, over gaps too."""
        table = subject.table
        wanted = [Wanted(table.oid, table.membership, subject.names, key) for key in {*keys}]
        with explained("destination"), self._conn.cursor() as cursor:
            found = images.latest(
                cursor,
                self._schema,
                self._source_id,
                wanted,
                epoch=self.epoch.epoch,
                before=before,
            )
        return {key: image for (_, key), image in found.items()}

    def row_before(self, subject: Subject, image: Image | None) -> Row | None:
        """The row of an image from before, unless it was deleted or truncated since."""
        if image is None or image.after is None:
            return None
        if subject.emptied is not None and image.place < subject.emptied:
            return None
        return subject.completer.row_of(image, subject.stored)

    def lacking(self, subject: Subject) -> list[str]:
        """Keys of rows with a value that nothing tells; see `known_rows.lacking`."""
        with explained("destination"):
            return known_rows.lacking(self._conn, self._schema, subject.interval, subject.names)

    def keys_before(self, subject: Subject, batch: int) -> Iterator[list[str]]:
        """The keys of all rows that the history knew from before the interval."""
        for name in subject.names:
            after: str | None = None
            while True:
                with explained("destination"):
                    keys = known_rows.keys_before(
                        self._conn,
                        self._schema,
                        self._source_id,
                        subject.interval,
                        table=name,
                        after=after,
                        limit=batch,
                    )
                if not keys:
                    break
                after = keys[-1]
                yield keys

    def emptied_since(self, subject: Subject, moment: Moment) -> bool:
        """Whether the table was truncated in the interval, before the moment."""
        interval = subject.interval
        here = (interval.epoch, interval.from_position, 0)
        found = self._emptied(interval.relation, subject.names, here, moment.position)
        return found is not None

    def completer(self, *, ignoring: bool = True) -> Completer:
        """Reads images back; without `ignoring`, the values that no comparison may use, too."""
        with explained("destination"):
            rules_of = rules_store.read(self._conn, self._schema, self._source_id)
            known = versions.read(self._conn, self._schema, self._source_id)
        if not ignoring:
            rules_of = {
                number: msgspec.structs.replace(rules, ignore=())
                for number, rules in rules_of.items()
            }
        return Completer(
            self._schema,
            self._source_id,
            self.epoch.epoch,
            versions=known,
            rules_of=rules_of,
            rules_id=self._rules_id,
            encoding=self._encoding,
        )

    # --- what is put into it ------------------------------------------------------------------

    def as_stored(self, table: Table, moment: Moment, rows: Sequence[ReadRow]) -> list[Change]:
        """Rows that were read, as the SNAPSHOT changes that may be stored; not numbered yet."""
        transaction = transaction_of(moment)
        return [self._masker.change(snapshot(transaction, table, row)) for row in rows]

    def key(self, table: Table, row: Row) -> str:
        """A row's key as it is stored."""
        return key_as_stored(table, row, self._encoding) or ""

    def begin(self, subject: Subject) -> Baseline:
        """The baseline to go on with, or a new one."""
        shape = hashlib.sha256(shape_of(subject.table).encode()).hexdigest()
        with explained("destination"):
            return baselines.begin(
                self._conn, self._schema, self._source_id, subject.interval, shape
            )

    def store(
        self,
        baseline: Baseline,
        subject: Subject,
        moment: Moment,
        changes: Sequence[Change],
        *,
        last_key: tuple[bytes, ...] | None,
        rows: int,
    ) -> Baseline:
        """A chunk, whole or not at all, with the place to go on from."""
        with self.writing(baseline, subject, moment) as chunk:
            chunk.write(changes)
            return chunk.end(rows=rows, last_key=last_key)

    @contextlib.contextmanager
    def writing(self, baseline: Baseline, subject: Subject, moment: Moment) -> Iterator[Chunk]:
        """One transaction of the destination, for a chunk that may be written in pieces."""
        with explained("destination"):
            if self.agree() != self._rules_id:
                raise BemiError("the rules were changed meanwhile", fix="run the command again")
            self._partitions.ensure(self._conn, {moment.committed_at // DAY})
            number = baselines.next_chunk(self._conn, self._schema)
            context_id = baseline_context_id(moment.committed_at, self._source_id, number)
            with self._conn.transaction():
                if not baseline.chunks:
                    self._describe(subject.table, moment)
                yield Chunk(self._conn, self._schema, self._encoder, baseline, moment, context_id)

    def finish(self, baseline: Baseline, *, replaces: bool = False) -> None:
        """From the last chunk on, all rows of the table are known; see `baselines.finish`."""
        with explained("destination"):
            baselines.finish(self._conn, self._schema, baseline, replaces=replaces)

    def give_up(self, baseline: Baseline, reason: str) -> None:
        with explained("destination"):
            baselines.fail(self._conn, self._schema, baseline.baseline_id, reason)

    def _find(self) -> tuple[int, Epoch]:
        settings = self._settings
        stored = sources.read(self._conn, self._schema, settings.source)
        held = checkpoints.read(self._conn, self._schema, settings.source)
        if stored is None or held is None:
            raise SetupError(
                f'the source "{settings.source}" is not registered in the destination',
                fix="run `bemi init`",
            )
        if stored.paused_at is not None:
            raise SetupError(
                f"the source {settings.source} is paused, so its history does not go on",
                fix=f"run `bemi source resume {settings.source}`",
            )
        return stored.source_id, checkpoints.read_epoch(self._conn, self._schema, held.epoch)

    def _make_encoder(self) -> Encoder:
        return Encoder(
            epoch=self.epoch.epoch,
            source_id=self._source_id,
            system_identifier=self.epoch.system_identifier,
            timeline=self.epoch.timeline,
            database_oid=self.epoch.database_oid,
            encoding=self._encoding,
            rules_id=self._rules_id,
        )

    def _emptied(
        self, relation: int, names: Sequence[str], after: Place, before: int
    ) -> Place | None:
        with explained("destination"):
            return images.emptied(
                self._conn,
                self._schema,
                self._source_id,
                relation,
                names,
                after=after,
                epoch=self.epoch.epoch,
                before=before,
            )

    def _describe(self, table: Table, moment: Moment) -> None:
        """Keep the table's version, where no change has told it yet."""
        known = versions.read(self._conn, self._schema, self._source_id).get(table.oid, [])
        found = version_of(table)
        if known and known[-1].alike(found):
            return
        place = (self.epoch.epoch, int(moment.position), 1)
        found = msgspec.structs.replace(found, place=place)
        with self._conn.cursor() as cursor:
            versions.insert(cursor, self._schema, self._source_id, found)
            gaps.record_rewrite(cursor, self._schema, self._source_id, known, found)
