"""Probes, figures and the log."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bemi.api.serving import QUESTIONS
from bemi.cli import logs
from bemi.config import Settings
from tests.support.attic import HOSTILE
from tests.support.waiting import until
from tests.support.web import API, Web, serve


def test_probes_take_no_token_and_no_name(web: Web) -> None:
    probe = web.client(Host="10.1.2.3:8420")
    assert probe.get("/healthz").json() == {"status": "ok"}
    assert probe.get("/readyz").json() == {"status": "ok"}


def test_a_history_of_another_version_is_not_ready(
    history: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bemi.api.readiness._LASTS", 0.0)
    with serve(history) as web, psycopg.connect(history.destination_url, autocommit=True) as conn:
        conn.execute("update bemi.schema_versions set version = version + 1000")
        try:
            answer = web.nobody.get("/readyz")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:bemi:setup")
            assert "version" not in answer.json()["detail"]
            assert web.nobody.get("/healthz").status_code == 200
        finally:
            conn.execute("update bemi.schema_versions set version = version - 1000")
        assert web.nobody.get("/readyz").status_code == 200


def test_the_process_runs_while_all_of_it_waits(web: Web) -> None:
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock'"
    )
    many = 3 * QUESTIONS
    with web.conn() as conn, ThreadPoolExecutor(many) as threads:
        clients = [web.client(web.token("viewer")) for _ in range(many)]
        with conn.transaction():
            conn.execute("lock table bemi.accesses")
            asked = [threads.submit(each.get, f"{API}/me") for each in clients]
            with web.conn() as other:
                until(lambda: other.execute(waiting).fetchone() == (QUESTIONS,), 20, "all wait")
            assert web.nobody.get("/healthz", timeout=5).status_code == 200
        # Those who clicked at the same moment wait for each other.
        assert [each.result().status_code for each in asked] == [200] * many


def test_figures_have_as_many_labels_as_there_are_routes(web: Web) -> None:
    for number in range(20):
        web.as_admin.get(f"{API}/changes/{number}")
        web.as_admin.get(f"/nothing/{number}")
        web.as_admin.request(f"VERB{number}", "/healthz")
    families = {
        family.name: family
        for family in text_string_to_metric_families(web.as_admin.get("/metrics").text)
    }
    labels = [sample.labels for sample in families["bemi_http_requests"].samples]
    routes = {each["route"] for each in labels}
    assert f"{API}/changes/{{id}}" in routes
    assert "other" in routes
    assert not [route for route in routes if "nothing" in route]
    assert {each["method"] for each in labels} <= {"GET", "POST", "PATCH", "DELETE", "other"}
    (age,) = families["bemi_checkpoint_age_seconds"].samples
    assert age.labels == {"source": "attic"}
    assert families["bemi_history_readable"].samples[0].value == 1
    assert web.nobody.get("/metrics").status_code == 401


def test_a_line_for_each_request_without_its_values(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bemi.server")
    answer = web.as_admin.get(f"{API}/changes", params={"after": f"task={HOSTILE}"})
    number = answer.headers["x-request-id"]
    # It is written behind the answer.
    (record,) = until(
        lambda: [each for each in caplog.records if getattr(each, "request", "") == number],
        10,
        "the line is written",
    )
    line = json.loads(logs._Json().format(record))
    assert line["message"] == "answered"
    assert (line["method"], line["route"], line["status"]) == ("GET", f"{API}/changes", 200)
    assert line["by"].startswith("token ")
    assert "script" not in json.dumps(line)
