"""`bemi teardown --legacy-triggers`: takes away what Bemi's earlier packages left in the source."""

import sys

from bemi.config import Settings


def remove(settings: Settings, *, yes: bool, json: bool) -> int:
    """Lists it, asks, and removes all of it or nothing. Exit code 1 where something is left."""
    import psycopg

    from bemi.capture import legacy_triggers
    from bemi.cli import output
    from bemi.connections import connect

    with connect(settings.source_url, what="source", client_encoding="UTF8") as conn:
        found = legacy_triggers.find(conn)
        if not json:
            print("Bemi's earlier packages left nothing" if not found else "found on the source:")
            for each in found:
                on = f" on {each.table}" if each.table else ""
                print(f"  {each.kind} {output.printable(each.name + on)}")
        agreed = yes or (not json and bool(found) and sys.stdin.isatty() and _asked())
        script = None
        if found and agreed:
            try:
                legacy_triggers.remove(conn, found)
            except psycopg.errors.InsufficientPrivilege:
                script = legacy_triggers.script(found)
    removed = bool(found) and agreed and script is None
    if json:
        output.print_json({"found": found, "removed": removed, "script": script})
    elif script is not None:
        print("this role may not remove them. As the owner of the tables (a superuser for event")
        print("triggers), run:\n")
        print(output.lines(script))
    elif removed:
        print(f"removed {output.count(len(found), 'object')}")
    elif found:
        print("nothing was done" if sys.stdin.isatty() else "nothing was done: --yes removes them")
    return int(bool(found) and not removed)


def _asked() -> bool:
    from bemi.cli.output import ask

    print("Contexts from those packages are not recorded any more, once they are gone.")
    return ask("Remove them? [y/N] ").lower() in ("y", "yes")
