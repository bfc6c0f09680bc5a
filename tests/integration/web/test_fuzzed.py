"""Values of every kind, made from the OpenAPI document and beside it: no answer is an error of the
server, and each is of the shape that the document says.

BEMI_TEST_REQUESTS says how many requests there are of each operation, BEMI_TEST_SEED which.
"""

import os
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error, response_schema_conformance
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import content_type_conformance

from bemi.store import people
from tests.support import openapi
from tests.support.attic import BIG, HOSTILE
from tests.support.embedding import Embedding
from tests.support.web import Web

REQUESTS: Final = int(os.environ.get("BEMI_TEST_REQUESTS", "3"))
LIVE: Final = "/api/v1/stream"

# What gets further than made-up texts, and what those try who mean ill.
VALUES: Final = (
    *("todo", "public.todo", "secret", "pair", "bulk", "child", "nothing", "a.b.c", ".", "public."),
    *("1", "2", str(BIG), str(BIG + 1), "-1", '["1","x/y"]', "[]", "[[]]", '[null,"x"]', "1e400"),
    *("now", "1s", "2h", "yesterday 09:00", "2026-05-03T14:02Z", "0001-01-01", "99999-01-01"),
    *("0/0", "0/1A2B3C4D", "FFFFFFFF/FFFFFFFF", "00000000-0000-8000-8000-000000000000"),
    *("attic", "user_id=42", "task=paint it", "SQL=x", "a.b.c=1", "=", "=x", "x=", "id=null"),
    *("req-1", "transaction", "table", "context.user_id", "context.", "minute", "csv"),
    *("attic=1:0/0:0:0", "=", "WzAsMCwwLDBd", "WzFlMzAwLDAsMCwwXQ", "%", "\\", "'", '"', "%s"),
    *("'; drop table bemi.people; --", "\0", "\u202e", HOSTILE, "x" * 5000, ""),
)


def operations() -> list[APIOperation[Any, Any, Any, Any]]:
    schema = schemathesis.openapi.from_path(openapi.FILE)
    return [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]


@pytest.mark.parametrize("operation", operations(), ids=lambda each: each.label)
def test_no_value_is_an_error_of_the_server(
    web: Web, operation: APIOperation[Any, Any, Any, Any], seed: int
) -> None:
    token = Embedding(web).token() if "/embed/" in operation.path else web.token("admin")
    own: dict[str, Any] = {}
    if "{id}" in operation.path and "changes" not in operation.path:
        # Whoever is disabled or revoked is nobody that the test needs.
        with web.conn() as conn:
            if "people" in operation.path:
                own["id"] = people.add_person(conn, "bemi", people.new_secret(), "viewer", None).id
            elif "embeds" in operation.path:
                own["id"] = Embedding(web).id
            else:
                own["id"], _ = people.add_token(
                    conn, "bemi", "x", "viewer", None, created_by="ada", lasts=None
                )
    names = [each.name for each in operation.query] or ["other"]
    made = st.dictionaries(st.sampled_from(names), st.sampled_from(VALUES), max_size=4)
    cases = operation.as_strategy(GenerationMode.POSITIVE, path_parameters=own or None)

    @seeded(seed)
    @settings(
        max_examples=REQUESTS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, values=made)
    def ask(case: Case[Any], values: dict[str, str]) -> None:
        case.query = {**(case.query or {}), **values}
        headers = {"Authorization": f"Bearer {token}"}
        if operation.path == LIVE:
            # What it sends has no end: only how it begins is looked at.
            with requests.get(
                web.base + LIVE, params=case.query, headers=headers, stream=True, timeout=20
            ) as begun:
                assert begun.status_code < 500
            return
        answer = case.call(base_url=web.base, headers=headers, timeout=20)
        assert answer.status_code not in (401, 429), answer.text
        if answer.status_code == 503 and b"urn:bemi:busy" in answer.content:
            return  # as many exports as somebody may have
        case.validate_response(
            answer,
            checks=[not_a_server_error, content_type_conformance, response_schema_conformance],
        )

    ask()
