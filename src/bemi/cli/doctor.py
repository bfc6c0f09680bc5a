"""`bemi doctor`: looks at both servers and says what to do."""

import sys
from typing import Final

from bemi import observed
from bemi.cli.options import SettingsFlags

_FIGURES: Final = 5
"""Tables whose figures are shown; --json has all."""


def command(
    *,
    connection: SettingsFlags = SettingsFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Check that source and destination are as Bemi needs them.

    Changes nothing. Each check ends as ok, warning, failure or not checked; exit code 1 when one
    is a failure.

    Parameters
    ----------
    json
        Print one JSON value: a list of findings with check, level, message, fix and figures.
    """
    settings = connection.settings()

    from bemi.capture import preflight
    from bemi.cli import output

    findings = preflight.diagnose(settings)
    failed = any(finding.level == "failure" for finding in findings)
    if json:
        output.print_json(findings)
        return int(failed)
    styles = {"ok": "green", "warning": "yellow", "failure": "red bold", "not checked": "dim"}
    made = output.table("", "check", "finding")
    made.columns[0].no_wrap = made.columns[1].no_wrap = True
    for finding in findings:
        found = output.text(finding.message)
        for price in finding.figures[:_FIGURES]:
            found = found + "\n" + output.text(observed.price(price))
        if (more := len(finding.figures) - _FIGURES) > 0:
            found = found + "\n" + output.text(f"and {output.count(more, 'table')} more (--json)")
        if finding.fix:
            found = found + "\n" + output.text("fix: ", "dim") + output.lines(finding.fix)
        made.add_row(
            output.text(finding.level, styles[finding.level]), output.text(finding.check), found
        )
    output.show(made, output.console())
    counts = {level: sum(f.level == level for f in findings) for level in styles}
    print()
    print(
        ", ".join(
            output.count(number, level) if level in ("warning", "failure") else f"{number} {level}"
            for level, number in counts.items()
            if number
        )
    )
    sys.stdout.flush()
    return int(failed)
