"""Each rule with each library, and the table of what came out."""

from typing import Any

import pytest

from tests.conformance.clients import CLIENTS
from tests.conformance.clients.client import Client

_MARKS = {"passed": "yes", "failed": "NO", "skipped": "-"}


@pytest.fixture(params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest, record_property: Any) -> Client:
    chosen: Client = request.param
    record_property("client", chosen.name)
    record_property("rule", request.function.__doc__.strip().splitlines()[0])
    return chosen


class _Table:
    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        known = dict(report.user_properties)
        if "rule" not in known or (report.when != "call" and report.passed):
            return
        row = self.outcomes.setdefault(str(known["rule"]), {})
        mark = _MARKS[report.outcome]
        if row.get(str(known["client"])) != "NO":
            row[str(known["client"])] = mark

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        names = [client.name for client in CLIENTS]
        if not self.outcomes:
            return
        terminalreporter.section("the rules, and who keeps them")
        width = max(map(len, self.outcomes))
        numbers = [str(number).center(3) for number in range(1, len(names) + 1)]
        terminalreporter.line(f"{'':{width}}  {' '.join(numbers)}".rstrip())
        for rule, row in self.outcomes.items():
            marks = " ".join(row.get(name, "").center(3) for name in names)
            terminalreporter.line(f"{rule:{width}}  {marks}".rstrip())
        for number, name in zip(numbers, names, strict=True):
            terminalreporter.line(f"{number} {name}")
        terminalreporter.line("  - its library has no such thing")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Table(), "bemi-conformance-table")
