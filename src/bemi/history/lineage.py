"""The changes of a row, from the last one back, under each key and in each partition it was in.

Whose row it was before a key was moved, or a partition left, is told by the changes alone; asks
for those of one key after the other.
"""

import dataclasses
from collections.abc import Callable, Iterator

from bemi.history.blame import Step
from bemi.history.change import Change
from bemi.store.filters import Filters
from bemi.store.query import stored_keys


def steps(changes: Callable[[Filters], Iterator[Change]], asked: Filters) -> Iterator[Step]:
    """The newest first. `changes` are those that filters let through; `asked`: of the row's last
    key, by the log."""
    begun = False
    while asked.key is not None:
        keys = stored_keys(asked.key)
        step: Step | None = None
        for change in changes(asked):
            if change.previous_key in keys:
                # It was moved away from this key: what is older is of another row, unless
                # there is no row with this key any more.
                if begun:
                    return
                continue
            begun = True
            step = Step(change, _moved_from(changes, change))
            yield step
            if change.previous_key is not None or step.moved_from is not None:
                break
            step = None
        if step is None:
            return
        earlier = step.moved_from or step.change
        key = earlier.previous_key if earlier is step.change else earlier.primary_key
        asked = dataclasses.replace(asked, key=key, behind=earlier.place)


def _moved_from(changes: Callable[[Filters], Iterator[Change]], change: Change) -> Change | None:
    """The DELETE right before a CREATE with the flag `moved`."""
    if "moved" not in change.flags:
        return None
    before = Filters(
        table=f"{change.schema}.{change.table}",
        source=change.source,
        from_position=change.commit_position,
        to_position=change.commit_position,
        by_log=True,
        behind=change.place,
        limit=1,
    )
    return next((each for each in changes(before) if each.operation == "DELETE"), None)
