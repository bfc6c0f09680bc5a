"""Who is said to have written each row, by a plugin that is not ours."""

import json
import re
from typing import Any

from tests.support.wal import Log


def attributions(log: Log) -> list[tuple[dict[str, Any], str]]:
    """Each row's context, in the order of commits, and the row's `task`; {} where there is none."""
    rows = log.conn.execute(
        "select data from pg_logical_slot_get_changes(%s, null, null, 'include-xids', '0')",
        [f"seen_{log.conn.info.dbname}"],
    ).fetchall()
    found = []
    context: dict[str, Any] = {}
    for (data,) in rows:
        if data.startswith("BEGIN"):
            context = {}
        elif data.startswith("message: transactional: 1 prefix: _bemi,"):
            context = json.loads(data.partition("content:")[2])
        elif row := re.search(r"task\[text\]:'([^']*)'", data):
            found.append((context, row[1]))
    return found
