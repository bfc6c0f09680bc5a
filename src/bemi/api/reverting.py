"""Plans of reverts, for routes and pages: who may have one, what it is called, and what a database
said to it."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg

from bemi.api.answers import encode
from bemi.api.principals import Principal
from bemi.api.serving import Serving
from bemi.errors import BemiError, ConflictError, PassingError, SetupError, UsageError
from bemi.history.plan import Applied
from bemi.history.planning import Narrowing, Plan, plan_of
from bemi.store.filters import Filters

_NOTHING: Final = "nothing was written: "


class OtherPlanError(ConflictError):
    """It is not the plan that was seen, by now."""


@contextmanager
def told() -> Iterator[None]:
    """What a database said to it, that a privilege is missing, a row is locked or breaks a rule, is
    for whoever wants to revert; what became of a connection is not."""
    try:
        yield
    except BemiError as error:
        is_said = isinstance(error.__cause__, psycopg.Error) and error.__cause__.sqlstate
        if is_said and (isinstance(error, SetupError | PassingError) or type(error) is BemiError):
            words = str(error).removeprefix(_NOTHING)
            raise ConflictError(f"{_NOTHING}{words}", fix=error.fix) from error
        raise


def plan(
    serving: Serving,
    who: Principal,
    wanted: Sequence[Filters],
    narrowing: Narrowing,
    source: str | None,
) -> Plan:
    """Raises `ForbiddenError` for who may not see all that it may touch."""
    who.require_all("a revert")
    with serving.archive.connected() as conn:
        return plan_of(
            conn, serving.archive.schema, "revert", _onto(serving, source), wanted, narrowing
        )


def name(plan: Plan) -> str:
    """Of what is to be written and where, and of what stands in the way."""
    return hashlib.sha256(encode([plan.source, plan.rows, plan.conflicts])).hexdigest()


def apply(plan: Plan, seen: str, who: Principal, *, skip_conflicts: bool) -> Applied:
    """Raises `OtherPlanError` where it is not the plan that was `seen`."""
    if name(plan) != seen:
        raise OtherPlanError(f"{_NOTHING}the plan is another by now", fix="look at it again")
    return plan.apply(by=who.name, skip_conflicts=skip_conflicts)


def _onto(serving: Serving, source: str | None) -> str:
    known = serving.write_urls
    if not known:
        raise UsageError(
            "this server knows no database to write to",
            fix="give `bemi serve` the settings of the source",
        )
    if source is None and len(known) == 1:
        return next(iter(known.values()))
    if source is None or source not in known:
        raise UsageError(
            f"this server knows no source {source} to write to"
            if source
            else "the source that is to be written to is not named",
            fix=f"say which one is meant: {', '.join(known)}",
        )
    return known[source]
