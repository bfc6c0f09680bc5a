"""Whether the source's event triggers record DDL, where that was asked for."""

from bemi.capture import event_triggers
from bemi.capture.checks.finding import Servers, source_of, stored_source
from bemi.observed import Finding

_FIX = "run `bemi init --ddl`; where its role may not, it prints the SQL for a superuser"


def recorded(servers: Servers) -> Finding:
    state = event_triggers.read(source_of(servers))
    if state.installed == "no":
        stored = stored_source(servers)
        if stored is not None and stored.setup.ddl:
            return Finding("DDL", "warning", "the event triggers that record DDL are gone", _FIX)
        return Finding(
            "DDL",
            "ok",
            "DDL statements are not recorded: what the stream shows of them is kept;"
            " `bemi init --ddl` records them with their context",
        )
    if state.faults:
        return Finding("DDL", "warning", f"DDL is not recorded: {'; '.join(state.faults)}", _FIX)
    return Finding("DDL", "ok", "event triggers record DDL statements")
