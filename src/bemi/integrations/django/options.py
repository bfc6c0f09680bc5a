"""The setting BEMI: what is sent, and where the history is read."""

from dataclasses import dataclass, field, fields

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from bemi.context import sender
from bemi.context.sender import Sender
from bemi.integrations.request import TRUSTED, Trust, check_options


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

    def sending(self) -> sender.Options:
        """What a `Sender` takes."""
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
        there = ", ".join(each.name for each in fields(Options))
        raise ImproperlyConfigured(
            f"the setting BEMI has no key {min(unknown)!r}; there are {there}"
        )
    found = Options(**given)
    if found.history is not None and found.history not in settings.DATABASES:
        raise ImproperlyConfigured(
            f"the setting BEMI: DATABASES has no {found.history!r}, where the history is to be"
        )
    try:
        check_options(None, found.trust)
        Sender(**found.sending())
    except TypeError as error:
        raise ImproperlyConfigured(f"the setting BEMI: {error}") from error
    return found
