"""Who may show an embed, and for how long: what does not hold tells nothing."""

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from joserfc.jwk import ECKey, RSAKey
from limits import RateLimitItemPerMinute

import bemi
from bemi.api.limits import Limits
from bemi.errors import BemiError
from tests.support.embedding import ORIGIN, Embedding
from tests.support.orders import BOUND
from tests.support.web import API, UNLIMITED, Web, serve

PATH: Final = f"{API}/embed/changes"
OTHER: Final = "https://evil.example"
PREFLIGHT: Final = {
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


@pytest.fixture(scope="module")
def embedding(shop: Web) -> Embedding:
    return Embedding(shop, BOUND, tenant="7")


def claims_refused(good: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    now = good["iat"]
    yield 401, {**good, "exp": now - 1, "iat": now - 60}
    yield 401, {**good, "exp": now + 901}
    yield 401, {**good, "iat": now + 300, "exp": now + 400}
    yield 401, {**good, "exp": 10**30}
    yield 401, {**good, "exp": str(now + 60)}
    yield 401, {**good, "aud": "https://another.example"}
    yield 401, {**good, "aud": [good["aud"]]}
    yield 401, {name: value for name, value in good.items() if name != "aud"}
    yield 401, {name: value for name, value in good.items() if name != "exp"}
    yield 401, {**good, "tables": "orders"}
    yield 401, {**good, "colums": ["status"]}
    yield 401, {**good, "tenant": 7}
    yield 401, {**good, "tenant": ""}
    yield 401, {**good, "tenant": "7\0"}
    yield 401, {**good, "tenant": ["7", "8"]}
    yield 401, {**good, "language": "de\r\nX-Evil: 1"}
    yield 403, {name: value for name, value in good.items() if name != "tenant"}
    for table in ("public.hidden", "hidden", "*", "public.*", "other.orders", "bemi.people", "x\0"):
        yield 403, {**good, "tables": [{"table": table}]}
        if "\0" not in table:
            yield 403, {**good, "record": {"table": table, "key": "1"}}
    for column in ("hidden_pin", "customer", "id", "*"):
        yield 403, {**good, "tables": [{"table": "orders", "columns": ["status", column]}]}
    for member in ("SQL", "who", "*", "user_name.x"):
        yield 403, {**good, "context": [member]}
    records: tuple[Any, ...] = (
        {},
        {"table": "orders"},
        {"table": "orders", "key": 1},
        [],
        "orders",
    )
    for each in records:
        yield 401, {**good, "record": each}


def encoded_bytes(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def test_what_does_not_hold_tells_nothing(embedding: Embedding) -> None:
    good = embedding.claims(tenant="7")
    whole = embedding.signed(good)
    assert embedding.ask(whole).status_code == 200
    head, body, signature = whole.split(".")
    other = Embedding(embedding.web, BOUND)

    def encoded(value: object) -> str:
        return encoded_bytes(json.dumps(value).encode())

    public = {name: value for name, value in embedding.key.items() if name != "d"}
    # Of whoever takes the public key for a secret that both know.
    symmetric = encoded({"alg": "HS256", "kid": embedding.kid, "typ": "bemi-embed+jwt"})
    confused = [
        hmac.digest(secret, f"{symmetric}.{body}".encode(), "sha256")
        for secret in (
            base64.urlsafe_b64decode(f"{embedding.key['x']}=="),
            json.dumps(public).encode(),
            ECKey.import_key({**public}).as_pem(private=False),
        )
    ]
    none = {"alg": "none", "kid": embedding.kid, "typ": "bemi-embed+jwt"}
    signed = [
        embedding.signed(good, ECKey.generate_key("P-384"), alg="ES384"),
        embedding.signed(good, RSAKey.generate_key(2048), alg="RS256"),
        embedding.signed(good, ECKey.generate_key("P-256")),
        embedding.signed(good, typ="JWT"),
        embedding.signed(good, kid="nothing"),
        embedding.signed(good, kid="a\0"),
        embedding.signed(good, kid="\ud800"),
        embedding.signed(good, kid=other.kid),
        other.signed(good, kid=embedding.kid),
        embedding.signed(good, jwk=public),
        embedding.signed(good, cty="x"),
        embedding.signed(b"[]"),
        embedding.signed(b"\xff"),
        embedding.signed(b"[" * 2000),
    ]
    tampered = [
        *(f"{symmetric}.{body}.{encoded_bytes(each)}" for each in confused),
        f"{encoded(none)}.{body}.",
        f"{encoded({**none, 'alg': 'None'})}.{body}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{encoded({**good, 'tenant': '8'})}.{signature}",
        f"{head}.{body}.{'A' * 86}",
        f"{head}.{body}.{signature}.x",
        f"{head}..{signature}",
        "x" * 20_000,
        "..",
        embedding.web.token("admin"),
        embedding.web.admin_session,
    ]
    for token in (*signed, *tampered):
        answer = embedding.ask(token)
        assert answer.status_code == 401, token
        assert "changes" not in answer.json()
    assert embedding.ask(other.signed(good)).status_code == 200
    for status, claims in claims_refused(good):
        answer = embedding.ask(embedding.signed(claims))
        assert answer.status_code == status, (claims, answer.text)
        assert "changes" not in answer.json()
    # A cookie is nothing here, and such a token nothing elsewhere.
    assert embedding.web.browser(embedding.web.admin_session).get(PATH).status_code == 401
    for path in ("/changes", "/me", "/export", "/embeds", "/stream"):
        assert embedding.client().get(f"{API}{path}").status_code == 401


def test_only_pages_of_its_origins_show_it(embedding: Embedding) -> None:
    web, token = embedding.web, embedding.token()
    answer = web.client(token, Origin=ORIGIN, **{"Sec-Fetch-Site": "cross-site"}).get(PATH)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in answer.headers["vary"]
    asked = web.nobody.options(PATH, headers={"Origin": ORIGIN, **PREFLIGHT})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert asked.headers["access-control-allow-headers"] == "Authorization"
    # That a token has expired, a page has to see.
    expired = web.client(embedding.token(lasts=0), Origin=ORIGIN).get(PATH)
    assert expired.status_code == 401
    assert expired.headers["access-control-allow-origin"] == ORIGIN
    own = web.client(token, **{"Sec-Fetch-Site": "same-origin"}).get(PATH)
    assert own.status_code == 200
    foreign: tuple[dict[str, str], ...] = (
        {"Origin": OTHER},
        {"Origin": "null"},
        {"Origin": f"{ORIGIN}.evil.example"},
        {"Origin": ORIGIN.replace("https", "http")},
        {"Origin": f"{ORIGIN}:8443"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    )
    for headers in foreign:
        for refused in (
            web.client(token, **headers).get(PATH),
            web.nobody.options(PATH, headers={**headers, **PREFLIGHT}),
        ):
            assert refused.status_code == 403, headers
            assert "changes" not in refused.text
            assert "access-control-allow-origin" not in refused.headers
    for each in (answer, asked, expired, own):
        assert "access-control-allow-credentials" not in each.headers


def test_a_page_to_be_framed_is_framed_by_its_origins_only(embedding: Embedding) -> None:
    answer = embedding.web.nobody.get(
        f"/embed/{embedding.kid}",
        headers={
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "iframe",
        },
    )
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.endswith(f"frame-ancestors {embedding.web.base} {ORIGIN}")
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "x-frame-options" not in answer.headers
    script = embedding.web.nobody.get("/embed.js", headers={"Origin": OTHER})
    assert script.headers["access-control-allow-origin"] == "*"
    assert script.headers["cross-origin-resource-policy"] == "cross-origin"
    assert script.headers["content-encoding"] == "gzip"
    assert int(script.headers["content-length"]) < 10_000
    again = embedding.web.nobody.get("/embed.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304
    for kid in ("nothing", "x" * 300, "%00", "..%2fapi"):
        missing = embedding.web.nobody.get(f"/embed/{kid}")
        assert missing.status_code in (404, 422)
        assert "frame-ancestors 'none'" in missing.headers["content-security-policy"]


def test_what_is_revoked_ends_at_once(shop: Web) -> None:
    origin = "https://gone.example"
    embedding = Embedding(shop, {**BOUND, "origins": [origin]}, tenant="7")
    token = embedding.token()
    preflight = {"Origin": origin, **PREFLIGHT}
    assert embedding.ask(token).status_code == 200
    assert shop.nobody.options(PATH, headers=preflight).status_code == 204
    assert shop.as_admin.delete(f"{API}/embeds/{embedding.id}").status_code == 200
    assert embedding.ask(token).status_code == 401
    assert shop.nobody.options(PATH, headers=preflight).status_code == 403
    assert shop.nobody.get(f"/embed/{embedding.kid}").status_code == 404
    assert shop.as_admin.delete(f"{API}/embeds/999999").status_code == 404
    (listed,) = [each for each in shop.get("/embeds")["embeds"] if each["id"] == embedding.id]
    assert listed["revoked_at"] is not None
    assert "seal" not in listed


def test_who_looks_is_recorded(embedding: Embedding) -> None:
    embedding.ask(embedding.token(subject="user 12", record=("orders", 1)), limit=1)
    embedding.ask(embedding.token(subject="user 12"), table="hidden", tenant="8")
    embedding.ask(embedding.signed(embedding.claims()))
    _, beyond, known, seen = embedding.web.get("/accesses", limit=4)["accesses"]
    assert (seen["kind"], seen["actor"], seen["action"], seen["allowed"]) == (
        "embed",
        BOUND["name"],
        f"GET {PATH}",
        True,
    )
    assert seen["asked"] == {
        "limit": "1",
        "tenant": "7",
        "sub": "user 12",
        "table": "orders",
        "key": "1",
    }
    # Whatever a parameter says, and it is not looked at.
    assert (known["asked"]["tenant"], known["allowed"]) == ("7", True)
    assert (beyond["allowed"], beyond["asked"]) == (False, {})


def test_each_tenant_asks_so_often(shop: Web) -> None:
    limits = Limits(
        asked=UNLIMITED,
        refused=RateLimitItemPerMinute(2, namespace="r"),
        of_tenant=RateLimitItemPerMinute(2, namespace="t"),
        of_embed=RateLimitItemPerMinute(5, namespace="e"),
    )
    with serve(shop.settings, limits=limits) as web:
        embedding = Embedding(web, BOUND)

        def statuses(tenant: str, times: int) -> list[int]:
            client = embedding.client(embedding.token(tenant=tenant), Origin=ORIGIN)
            answers = [client.get(PATH) for _ in range(times)]
            assert all("access-control-allow-origin" in each.headers for each in answers)
            assert all("retry-after" in each.headers for each in answers[2:])
            return [each.status_code for each in answers]

        assert statuses("7", 3) == [200, 200, 429]
        assert statuses("8", 2) == [200, 200]
        assert statuses("9", 1) == [200]
        assert statuses("10", 1) == [429]
        # What is not signed is counted by where it comes from, and keeps nobody out.
        assert [embedding.ask("x").status_code for _ in range(3)] == [401, 401, 429]
        other = Embedding(web, BOUND)
        assert other.ask(other.token(tenant="7")).status_code == 200


def test_what_an_admin_can_not_mean_is_refused(shop: Web) -> None:
    pem = ECKey.generate_key("P-256")
    table = {"table": "public.orders", "columns": ["status"], "tenant": None}
    for change, status in (
        ({}, 201),
        ({"tables": [{"table": "orders", "columns": ["status"]}]}, 422),  # whose is it?
        ({"tables": []}, 422),
        ({"tables": [{**table, "columns": None}]}, 422),
        ({"tables": [{**table, "table": "public.*"}]}, 400),
        ({"tables": [{**table, "label": "number"}]}, 400),
        ({"tables": [table, {**table, "table": "orders"}]}, 400),
        ({"context": ["SQL"]}, 400),
        ({"origins": ["*"]}, 400),
        ({"origins": ["null"]}, 400),
        ({"origins": ["https://a.example; script-src *"]}, 400),
        ({"origins": ["https://ä.example"]}, 400),
        ({"source": "nothing"}, 400),
        ({"public_key": pem.as_pem(private=False).decode()}, 201),
        ({"public_key": pem.as_pem(private=True).decode()}, 400),
        ({"public_key": ECKey.generate_key("P-384").as_pem(private=False).decode()}, 400),
        ({"public_key": RSAKey.generate_key(2048).as_pem(private=False).decode()}, 400),
        ({"public_key": "x"}, 400),
        ({"extra": 1}, 422),
    ):
        answer = shop.as_admin.post(f"{API}/embeds", json={**BOUND, **change})
        assert answer.status_code == status, (change, answer.text)
        if "public_key" in change and status == 201:
            assert answer.json()["private_key"] is None
            token = bemi.embed_token(
                pem.as_pem(private=True).decode(),
                kid=answer.json()["embed"]["kid"],
                audience=shop.base,
                tenant=7,
            )
            assert shop.client(token).get(PATH).status_code == 200
    for wrong in ("x", "{}", pem.as_pem(private=False).decode(), pem.as_pem().decode()):
        with pytest.raises(BemiError, match="no key that signs"):
            bemi.embed_token(wrong, audience=shop.base)
