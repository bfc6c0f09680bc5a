"""The setting BEMI: what is sent, and where the history is read."""

from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from bemi.integrations.request import TRUSTED, Trust, checked


@dataclass(frozen=True, slots=True)
class Options:
    """`functions`, `check_at_commit`, `sql`, `redact`: as every integration has them.

    `trust`: which members of its caller's context a request takes over, as in the other frameworks.
    `history`: alias of the database that has the history; by default the one that is asked about.
    `schema`: the history's schema there.
    """

    functions: list[str] = field(default_factory=list)
    check_at_commit: bool = False
    sql: bool = False
    redact: bool = True
    trust: Trust = TRUSTED
    history: str | None = None
    schema: str = "bemi"

    def sending(self) -> dict[str, Any]:
        """The arguments of a `Sender`."""
        return {
            "functions": self.functions,
            "check_at_commit": self.check_at_commit,
            "sql": self.sql,
            "redact": self.redact,
        }


def load() -> Options:
    """Raises ImproperlyConfigured for a key that there is not."""
    given = getattr(settings, "BEMI", {})
    unknown = set(given) - {each.name for each in fields(Options)}
    if unknown:
        raise ImproperlyConfigured(f"the setting BEMI has no key {min(unknown)!r}")
    found = Options(**given)
    try:
        checked(found.trust)
    except TypeError as error:
        raise ImproperlyConfigured(f"the setting BEMI: {error}") from error
    return found
