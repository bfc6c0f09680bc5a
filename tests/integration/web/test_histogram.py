"""How much happened when: bars that lead to the changes behind them."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from bemi.history.trends import Trend
from bemi.store.trends import Count, Every
from bemi.ui.histogram import HEIGHT, drawn
from tests.support.html import Page
from tests.support.web import Web

START = datetime(2026, 5, 3, 14, 0, tzinfo=UTC)


def trend(every: Every, since: datetime, until: datetime) -> Trend:
    return Trend(every, since, until, (), None)


def range_of(href: str) -> list[str]:
    query = parse_qs(urlsplit(href).query)
    return [query["since"][0], query["until"][0]]


def test_a_bar_is_as_high_as_there_are_changes_and_never_unseen() -> None:
    hours = [Count(START + timedelta(hours=each), (), n) for each, n in enumerate((1000, 0, 1))]
    found = drawn(trend("hour", START, START + timedelta(hours=3)), None, hours, [("table", "a")])
    assert [(each.y, each.height) for each in found.bars] == [(0, HEIGHT), (100, 0), (99, 1)]
    assert (found.total, found.most, found.every) == ("1,001 changes", "1,000", "hour")
    assert found.bars[2].said == "1 change, 2026-05-03 16:00"
    assert (found.begin, found.end) == ("2026-05-03 14:00", "2026-05-03 16:00")


def test_bars_lead_to_what_was_counted_and_no_more() -> None:
    since, until = START + timedelta(minutes=7), START + timedelta(hours=1, minutes=30)
    hours = [Count(START + timedelta(hours=each), (), 1) for each in range(2)]
    found = drawn(
        trend("hour", since, until),
        until,
        hours,
        [("table", "a"), ("since", "2h"), ("behind", "x"), ("chart", "true")],
    )
    assert [range_of(each.href) for each in found.bars] == [
        ["2026-05-03T14:07:00+00:00", "2026-05-03T14:59:59.999999+00:00"],
        ["2026-05-03T15:00:00+00:00", "2026-05-03T15:30:00+00:00"],
    ]
    query = parse_qs(urlsplit(found.bars[0].href).query)
    assert {name: query[name] for name in query if name not in ("since", "until")} == {
        "table": ["a"],
        "chart": ["true"],
    }


def test_a_month_is_as_long_as_it_is() -> None:
    months = [Count(datetime(2026, month, 1, tzinfo=UTC), (), 1) for month in (2, 12)]
    ends = drawn(trend("month", months[0].start, START), None, months, []).bars
    assert [range_of(each.href)[1][:10] for each in ends] == ["2026-02-28", "2026-12-31"]


def test_the_activity_has_a_chart_when_it_is_asked_for(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, session = web.person("mary", "viewer")
    _, part = web.person("henrietta", "viewer", [{"table": "public.todo"}])
    browser = web.browser(session)

    def charted(by: str = session, **query: str) -> Page:
        answer = web.browser(by).get("/", params={"chart": "true", **query})
        assert answer.status_code == 200
        return Page(answer.text)

    assert "<svg" not in browser.get("/").text
    page = charted()
    assert "1,512 changes, by minute" in page.text
    assert "5 changes, by minute" in charted(part).text
    bars = [given for tag, given in page.elements if given.get("aria-label", "").count(" changes,")]
    (bar, *_) = bars
    assert "data-row" in browser.get(bar["href"]).text
    assert "<svg" in browser.get(bar["href"]).text
    assert "0 changes" not in charted(table="nothing").text
    assert "No changes match" in charted(table="nothing").text
    # Of what is not on the page, too.
    assert "1,512 changes" in charted(limit="1").text
    monkeypatch.setattr("bemi.ui.histogram.PATIENCE", 1)
    monkeypatch.setattr(
        "bemi.ui.histogram.trends.plan", lambda conn, *_, **__: conn.execute("select pg_sleep(9)")
    )
    assert "too many to be counted while you wait" in charted().text
