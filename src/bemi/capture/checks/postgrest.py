"""Whether requests through PostgREST have a context, where the function for that is there."""

from bemi.capture import postgrest
from bemi.capture.checks.finding import Servers, source_of
from bemi.observed import Finding

_CHECK = "PostgREST"


def contexts(servers: Servers) -> Finding:
    conn = source_of(servers)
    found = postgrest.read(conn)
    if not found:
        return Finding(_CHECK, "ok", "no function of Bemi's for PostgREST; `bemi init --postgrest`")
    messages, fixes = [], []
    for installed in found:
        chosen = installed.options
        if not installed.current:
            messages.append(f"{chosen.function} is not as this version of Bemi makes it")
            fixes.append("run `bemi init --postgrest` with its flags again")
        for role, statements in postgrest.unable(conn, chosen).items():
            messages.append(f"requests as {role} have no context: the role may not send it")
            fixes.extend(statements)
    if messages:
        return Finding(_CHECK, "warning", "; ".join(messages), "\n".join(dict.fromkeys(fixes)))
    calls = [caller for each in found for caller in postgrest.callers(conn, each.options)]
    if calls:
        return Finding(_CHECK, "ok", f"requests have their context, by {', '.join(calls)}")
    names = ", ".join(each.options.function for each in found)
    return Finding(
        _CHECK,
        "ok",
        f"{names} is there; nothing in the database has PostgREST call it, its own settings may",
    )
