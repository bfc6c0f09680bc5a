"""Signing in at an OpenID provider: who may, and that nobody else does, whatever comes back."""

import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from limits import RateLimitItemPerMinute
from playwright.sync_api import Browser

from bemi.api import oidc
from bemi.api.limits import Limits
from bemi.api.oidc import Provider
from bemi.config import OidcSettings, Settings
from bemi.errors import ConfigError
from bemi.store import people
from tests.support.attic import HOSTILE
from tests.support.html import Page
from tests.support.provider import CLIENT, SECRET, LyingProvider, hmac_key, key_of, lying, mock
from tests.support.reading import HTML, require_harmless
from tests.support.screens import opened
from tests.support.web import API, Web, serve

ADA = {"email": "Ada@Example.com", "email_verified": True}
CALLBACK = "/sign-in/oidc/callback"


@pytest.fixture(scope="module")
def _provider() -> Iterator[LyingProvider]:
    with lying() as provider:
        yield provider


@pytest.fixture
def provider(_provider: LyingProvider, web: Web) -> LyingProvider:
    _provider.reset()
    settings = _provider.settings(oidc_domains=("here.example",))
    web.serving.provider = Provider(settings, web.serving.origin)
    return _provider


@pytest.fixture(scope="module")
def web(history: Settings) -> Iterator[Web]:
    with serve(history) as running:
        yield running


def invited(web: Web, email: str, role: Any = "editor") -> int:
    with web.conn() as conn:
        name = f"{email} {people.new_secret()}"
        conn.execute("update bemi.people set email = null where email = %s", [email])
        return people.add_person(conn, "bemi", name, role, None, email).id


def browser(web: Web) -> httpx.Client:
    return web.client(**HTML)


def begun(client: httpx.Client) -> str:
    """Where the browser is sent to."""
    answer = client.get("/sign-in/oidc")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def back(client: httpx.Client, **given: str) -> httpx.Response:
    """As the provider sends a browser back."""
    site = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    return client.get(CALLBACK, params=given, headers=site)


def signed_in(web: Web, provider: LyingProvider, **claims: Any) -> httpx.Client:
    provider.claims = {**ADA, **claims}
    client = browser(web)
    answer = back(client, **provider.authorize(begun(client)))
    assert (answer.status_code, answer.headers.get("location")) == (303, "/"), answer.text
    return client


def refused(web: Web, client: httpx.Client, answer: httpx.Response, status: int = 403) -> str:
    """The text of the page that says why; nobody is signed in."""
    assert answer.status_code == status, answer.text
    assert web.serving.cookie not in client.cookies
    assert client.get(f"{API}/me").status_code == 401
    page = Page(answer.text)
    require_harmless(page)
    assert SECRET not in answer.text
    return page.text


def tried(web: Web, provider: LyingProvider, client: httpx.Client | None = None) -> str:
    client = client or browser(web)
    return refused(web, client, back(client, **provider.authorize(begun(client))))


def test_who_was_invited_by_an_address_comes_in_as_that_person(
    web: Web, provider: LyingProvider
) -> None:
    id = invited(web, "ada@example.com")
    client = signed_in(web, provider)
    assert web.get("/me", client)["role"] == "editor"
    entered = web.get("/accesses", by=f"person {id}")["accesses"][-1]
    assert (entered["action"], entered["allowed"]) == (f"GET {CALLBACK}", True)
    assert entered["asked"] == {
        "issuer": provider.issuer,
        "subject": "subject-1",
        "email": "Ada@Example.com",
    }
    # From then on it is the account that counts.
    again = signed_in(web, provider, email="other@example.com", email_verified=False)
    assert web.get("/me", again)["name"] == web.get("/me", client)["name"]
    provider.claims = {**ADA, "sub": "subject-2"}
    assert "was bound to another account" in tried(web, provider)
    path = f"{API}/people/{id}"
    assert web.as_admin.patch(path, json={"forget_account": True}).is_success
    assert [each.get(f"{API}/me").status_code for each in (client, again)] == [401, 401]
    other = signed_in(web, provider, sub="subject-2")
    assert web.as_admin.patch(path, json={"email": "ada@example.com"}).is_success
    assert other.get(f"{API}/me").status_code == 200
    assert web.as_admin.patch(path, json={"email": "b@example.com"}).is_success
    assert other.get(f"{API}/me").status_code == 401
    assert "ada@example.com is not invited here".lower() in tried(web, provider).lower()


def test_who_is_disabled_stays_out(web: Web, provider: LyingProvider) -> None:
    id = invited(web, "off@here.example")
    client = signed_in(web, provider, sub="off", email="off@here.example")
    path = f"{API}/people/{id}"
    assert web.as_admin.patch(path, json={"disabled": True}).is_success
    assert client.get(f"{API}/me").status_code == 401
    assert "is disabled here" in tried(web, provider)
    provider.claims["sub"] = "off-2"
    assert "was bound to another" in tried(web, provider)
    assert web.as_admin.patch(path, json={"forget_account": True}).is_success
    assert "is disabled here" in tried(web, provider)
    refusals = web.get("/accesses", by=f"person {id}", refused=True)["accesses"]
    assert [each["action"] for each in refusals] == [f"GET {CALLBACK}"] * 3
    assert web.as_admin.patch(path, json={"disabled": False}).is_success
    signed_in(web, provider, sub="off-2", email="off@here.example")


def test_whoever_has_an_address_of_a_domain_comes_in_as_a_viewer(
    web: Web, provider: LyingProvider
) -> None:
    for _ in range(2):
        client = signed_in(web, provider, sub="new", email="New@here.EXAMPLE")
        me = web.get("/me", client)
        assert (me["name"], me["role"], me["scopes"]) == ("New@here.EXAMPLE", "viewer", None)
    client = browser(web)
    for number, email in enumerate(
        (
            "x@there.example",
            "x@evil-here.example",
            "x@here.example.evil",
            "x@sub.here.example",
            "x@here.example@evil.example",
            "x@evil.example@here.example",
            "here.example",
            "@here.example",
            "x@here.example ",
            "x@here.example\0",
            "x@hère.example",
            "",
            ["x@here.example"],
            {"x@here.example": 1},
        )
    ):
        provider.claims = {"sub": f"x{number}", "email": email, "email_verified": True}
        text = tried(web, provider, client)
        assert "is not invited here" in text or "is verified" in text, email
    assert all(each["actor"] for each in web.get("/accesses", refused=True)["accesses"])


def test_letters_that_only_look_small_are_others(web: Web, provider: LyingProvider) -> None:
    """Of the sign for kelvin, `lower` makes a k."""
    invited(web, "kay@kk.example", "admin")
    settings = provider.settings(oidc_domains=("kk.example",))
    web.serving.provider = Provider(settings, web.serving.origin)
    for number, email in enumerate(("\u212aay@kk.example.com", "KAY@\u212a\u212a.example")):
        provider.claims = {"sub": f"k{number}", "email": email, "email_verified": True}
        assert "is not invited here" in tried(web, provider), email
    client = signed_in(web, provider, sub="other", email="\u212aay@kk.example")
    assert web.get("/me", client)["role"] == "viewer"
    invited(web, "\u212aay@there.example")
    signed_in(web, provider, sub="itself", email="\u212aay@THERE.example")


def test_an_address_that_is_not_verified_proves_nothing(web: Web, provider: LyingProvider) -> None:
    invited(web, "ada@example.com", "admin")
    lies: list[Any] = [None, False, "true", "false", 1, [True], {}]
    for verified in lies:
        provider.claims = {"sub": "liar", "email": "ada@example.com", "email_verified": verified}
        assert "does not say that the e-mail address" in tried(web, provider), verified
    refusal = web.get("/accesses", refused=True, limit=1)["accesses"][0]
    assert (refusal["actor"], refusal["by"]) == ("liar", None)


def test_answers_that_are_made_up_are_looked_at_so_often(
    web: Web, provider: LyingProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the provider asked."""
    limits = Limits(signing=RateLimitItemPerMinute(2, namespace="s"))
    monkeypatch.setattr(web.serving, "limits", limits)
    client = browser(web)
    statuses = []
    for _ in range(3):
        state = provider.authorize(begun(client))["state"]
        statuses.append(back(client, state=state, code="made up").status_code)
    assert statuses == [403, 403, 429]
    assert provider.asked.count("/token") == 2


def test_some_providers_tell_the_address_elsewhere(web: Web, provider: LyingProvider) -> None:
    invited(web, "ada@example.com")
    provider.metadata = {"userinfo_endpoint": f"{provider.issuer}/userinfo"}
    provider.claims = {"sub": "elsewhere"}
    for told, words in (
        ({**ADA, "sub": "somebody else"}, "does not hold"),
        ({**ADA}, "does not hold"),
        ({"sub": "elsewhere", "email": "ada@example.com"}, "does not say that"),
        ({"sub": "elsewhere", "email_verified": True}, "does not say that"),
    ):
        provider.told = told
        assert words in tried(web, provider), told
    provider.told = {**ADA, "sub": "elsewhere"}
    signed_in(web, provider, sub="elsewhere", email=None, email_verified=None)


def binding(client: httpx.Client) -> str:
    """Where somebody who is signed in is to go, to show an account of theirs."""
    answer = client.post("/settings/account", headers=HTML)
    assert answer.status_code == 200, answer.text
    return Page(answer.text).links[-2]


def test_who_is_signed_in_shows_an_account_of_theirs(web: Web, provider: LyingProvider) -> None:
    """Whatever its address: some providers say of none that it is verified."""
    id, session = web.person("entra", "editor")
    client = web.browser(session)
    assert "Sign in with Example & Sons from now on" in Page(client.get("/settings").text).text
    provider.claims = {"sub": "shown", "email": "any@example.com"}
    answer = back(client, **provider.authorize(binding(client)))
    assert (answer.status_code, answer.headers["location"]) == (303, "/settings")
    page = Page(client.get("/settings").text)
    assert f"With the account shown of {provider.issuer}" in page.text
    assert "from now on" not in page.text
    (done,) = web.get("/accesses", by=f"person {id}", action=f"GET {CALLBACK}")["accesses"]
    assert done["asked"] == {"issuer": provider.issuer, "subject": "shown", "bound": True}
    again = signed_in(web, provider, sub="shown", email="any@example.com", email_verified=False)
    assert web.get("/me", again)["name"] == "entra"
    # Once more is no harm; another account is.
    assert back(client, **provider.authorize(binding(client))).status_code == 303
    provider.claims = {"sub": "shown 2"}
    answer = back(client, **provider.authorize(binding(client)))
    assert answer.status_code == 403
    assert "entra was bound to another account" in Page(answer.text).text
    other = web.browser(web.person("entra 2", "viewer")[1])
    provider.claims = {"sub": "shown"}
    answer = back(other, **provider.authorize(binding(other)))
    assert answer.status_code == 403
    assert "is somebody else's here" in Page(answer.text).text


def test_an_account_is_bound_by_nobody_else(web: Web, provider: LyingProvider) -> None:
    id, session = web.person("bound by", "editor")
    client = web.browser(session)
    provider.claims = {"sub": "of a thief"}
    # A link of a thief's, followed by somebody who is signed in.
    thief = web.browser(web.person("thief", "viewer")[1])
    given = provider.authorize(binding(thief))
    assert back(client, **given).status_code == 403
    binding(client)
    assert back(client, **given).status_code == 403
    assert back(client, **provider.authorize(begun(client))).status_code == 403
    # Whoever else signs in in the same browser meanwhile.
    given = provider.authorize(binding(client))
    meanwhile = web.person("meanwhile", "viewer")[1]
    client.cookies.set(web.serving.cookie, meanwhile, domain="127.0.0.1")
    assert back(client, **given).status_code == 403
    client.cookies.set(web.serving.cookie, session, domain="127.0.0.1")
    # Who is not signed in any more, and a program.
    given = provider.authorize(binding(client))
    web.as_admin.patch(f"{API}/people/{id}", json={"disabled": True})
    assert back(client, **given).status_code == 401
    given = provider.authorize(binding(web.as_admin))
    assert back(web.as_admin, **given).status_code == 403
    foreign = web.browser(session, **{"Sec-Fetch-Site": "cross-site"})
    assert foreign.post("/settings/account").status_code == 403
    with web.conn() as conn:
        found = conn.execute("select from bemi.identities where subject = 'of a thief'")
        assert found.fetchall() == []
    provider.answers["/.well-known/openid-configuration"] = (500, b"")
    web.serving.provider = Provider(provider.settings(), web.serving.origin)
    answer = thief.post("/settings/account", headers=HTML)
    assert answer.status_code == 503
    assert "does not answer as it should" in Page(answer.text).text


def test_what_one_browser_began_no_other_one_ends(web: Web, provider: LyingProvider) -> None:
    invited(web, "ada@example.com")
    provider.claims = {**ADA, "sub": "of one browser"}
    victim, thief = browser(web), browser(web)
    given = provider.authorize(begun(victim))
    assert "did not begin" in refused(web, thief, back(thief, **given))
    begun(thief)
    assert "did not begin" in refused(web, thief, back(thief, **given))
    # A code that was caught, in a sign-in of one's own.
    own = provider.authorize(begun(thief))
    assert "does not hold" in refused(web, thief, back(thief, **own | {"code": given["code"]}))
    for wrong in ({"state": ""}, {"state": "x"}, {"state": given["state"][:-1]}):
        begun(thief)
        assert "did not begin" in refused(web, thief, back(thief, **{**given, **wrong}))
    # What went over is used up, also by whoever kept all of it.
    given = provider.authorize(begun(victim))
    kept = dict(victim.cookies)
    assert back(victim, **given).status_code == 303
    again = web.client(Cookie="; ".join(f"{name}={value}" for name, value in kept.items()), **HTML)
    assert "does not hold" in refused(web, again, back(again, **given))


def test_an_answer_that_proves_nothing_lets_nobody_in(
    web: Web, provider: LyingProvider, caplog: pytest.LogCaptureFixture
) -> None:
    invited(web, "ada@example.com", "admin")
    client, now = browser(web), int(time.time())
    public, other = provider.key.as_pem(private=False), key_of("another")
    lies: list[dict[str, Any]] = [
        {"alg": "none"},
        {"alg": "none", "header": {"alg": "None"}},
        {"alg": "HS256", "signs": hmac_key(SECRET)},
        {"alg": "HS256", "signs": hmac_key(public.replace(b"-----", b"----"))},
        {"signs": other},
        {"header": {"kid": "another"}},
        {"header": {"jwk": other.as_dict(private=False)}, "signs": other},
        *(
            {"claims": claims}
            for claims in (
                {"iss": "https://evil.example"},
                {"iss": None},
                {"iss": [provider.issuer]},
                {"aud": "another"},
                {"aud": None},
                {"aud": ["another"]},
                {"aud": [CLIENT, "another"], "azp": None},
                {"aud": [CLIENT, "another"], "azp": "another"},
                {"azp": "another"},
                {"exp": now - 61},
                {"exp": None},
                {"exp": "tomorrow"},
                {"exp": True},
                {"iat": now + 3600},
                {"iat": None},
                {"nbf": now + 3600},
                {"nonce": None},
                {"nonce": "another"},
                {"nonce": ["x"]},
                {"sub": None},
                {"sub": ""},
                {"sub": 7},
                {"sub": "x" * 256},
                {"sub": "\0"},
                {"sub": HOSTILE},
                {"at_hash": "wrong"},
            )
        ),
        *(
            {"answers": {"/token": answer}}
            for answer in (
                (200, b"{}"),
                (200, b"[]"),
                (200, b'{"access_token": "x", "token_type": "Bearer"}'),
                (200, b'{"access_token": "x", "token_type": "Bearer", "id_token": 7}'),
                (200, b'{"access_token": "x", "token_type": "Bearer", "id_token": "a.b.c"}'),
                (200, b"\xff"),
                (400, b'{"error": "<script>alert(1)</script>"}'),
                (500, b"oops"),
            )
        ),
        *({"answers": {"/jwks": (200, body)}} for body in (b"{}", b'{"keys": []}', b"x", b"[]")),
    ]
    for number, lie in enumerate(lies):
        provider.reset()
        if "answers" in lie:
            web.serving.provider = Provider(provider.settings(), web.serving.origin)
        provider.claims = {**ADA, "sub": f"liar {number}"}
        for name, value in lie.items():
            setattr(provider, name, provider.claims | value if name == "claims" else value)
        text = tried(web, provider, client)
        assert "does not hold" in text or "does not answer" in text, lie
        assert "script" not in text
        # For what was wrong about it, and not for something else.
        told = [each.__dict__ for each in caplog.records]
        reason = next(each["reason"] for each in reversed(told) if "reason" in each)
        names = lie.get("claims", {})
        assert not names or any(name in reason.replace("subject", "sub") for name in names), lie
    assert len(caplog.records) >= len(lies)
    with web.conn() as conn:
        assert conn.execute("select from bemi.identities where subject ~ 'liar'").fetchall() == []


def test_what_the_address_says_is_shown_only_as_far_as_it_is_known(
    web: Web, provider: LyingProvider
) -> None:
    for given, words in (
        ({"error": "access_denied", "error_description": HOSTILE}, "did not let you in"),
        ({"error": HOSTILE}, "for a reason of its own"),
        ({"iss": "https://evil.example", "code": "x"}, "does not hold"),
        ({}, "does not hold"),
        ({"code": ""}, "does not hold"),
        ({"code": "made up"}, "does not hold"),
    ):
        client = browser(web)
        state = provider.authorize(begun(client))["state"]
        text = refused(web, client, back(client, state=state, **given))
        assert words in text
        assert "alert" not in text
        assert "Sign in with Example & Sons" in text


@pytest.mark.parametrize(
    "metadata",
    [
        (200, b'{"issuer": "https://evil.example"}'),
        (200, b"[" * 100_000),
        (200, b'"' + b"x" * 2_000_000 + b'"'),
        (404, b"{}"),
        (301, b""),
        {"issuer": "https://evil.example"},
        {"jwks_uri": "http://keys.example/"},
        {"token_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": 7},
    ],
    ids=str,
)
def test_a_provider_that_is_not_as_it_should_be(
    web: Web, provider: LyingProvider, metadata: Any
) -> None:
    if isinstance(metadata, dict):
        provider.metadata = metadata
    else:
        provider.answers["/.well-known/openid-configuration"] = metadata
    client = browser(web)
    refused(web, client, client.get("/sign-in/oidc"), 503)


def test_keys_that_were_changed_are_asked_for(
    web: Web, provider: LyingProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    invited(web, "ada@example.com")
    signed_in(web, provider, sub="of the first key")
    provider.key = key_of("two")
    assert "does not hold" in tried(web, provider)  # not all the time
    provider.known.insert(0, provider.key)
    monkeypatch.setattr(oidc, "_ASKS_AGAIN", 0.0)
    signed_in(web, provider, sub="of the first key")
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_a_client_says_who_it_is_as_the_provider_takes_it(
    web: Web, provider: LyingProvider
) -> None:
    invited(web, "ada@example.com")
    provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    signed_in(web, provider, sub="posted")
    wrong = provider.settings(oidc_client_secret="wrong")
    web.serving.provider = Provider(wrong, web.serving.origin)
    assert "oidc_client_id and oidc_client_secret" in tried(web, provider)


def test_what_the_browser_keeps_meanwhile(web: Web, provider: LyingProvider) -> None:
    client = browser(web)
    answer = client.get("/sign-in/oidc")
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=lax", "Max-Age=600", "Path=/"):
        assert part in cookie
    secret = client.cookies[f"{web.serving.cookie}_signing"]
    assert secret not in answer.headers["location"]
    refused(web, client, back(client, state="x"))
    assert dict(client.cookies) == {}
    # The provider sends browsers to one of our names: there it has to be kept.
    elsewhere = client.get(
        "/sign-in/oidc", headers={"Host": web.base.replace("http://127.0.0.1", "localhost")}
    )
    assert elsewhere.headers["location"] == f"{web.base}/sign-in/oidc"
    assert "set-cookie" not in elsewhere.headers


def test_without_a_provider_there_is_nothing(web: Web, provider: LyingProvider) -> None:
    assert "Sign in with Example & Sons" in Page(web.nobody.get("/sign-in").text).text
    web.serving.provider = None
    assert "Sign in with" not in web.nobody.get("/sign-in").text
    for path in ("/sign-in/oidc", CALLBACK):
        assert web.nobody.get(path).status_code == 404


def test_without_the_libraries_the_server_does_not_begin(
    provider: LyingProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigError, match="needs httpx2") as raised:
        Provider(provider.settings(), "http://127.0.0.1")
    assert raised.value.fix is not None
    assert "bemi[oidc]" in raised.value.fix


def test_addresses_are_given_by_admins(web: Web) -> None:
    new = {"name": f"x {people.new_secret()}", "role": "viewer", "email": "X@Given.example"}
    answer = web.as_admin.post(f"{API}/people", json=new)
    assert answer.json()["person"]["email"] == "x@given.example"
    path = f"{API}/people/{answer.json()['person']['id']}"
    other = invited(web, "taken@given.example")
    assert web.as_admin.post(f"{API}/people", json={**new, "name": "y"}).status_code == 400
    for email, status in (
        ("TAKEN@given.example", 400),
        ("no address", 422),
        ("@", 422),
        ("a@b\n", 422),
        ("x" * 300, 422),
        (None, 200),
    ):
        answer = web.as_admin.patch(path, json={"email": email})
        assert answer.status_code == status, email
    assert answer.json()["email"] is None
    assert web.as_admin.patch(f"{API}/people/{other}", json={"role": "viewer"}).json()["email"]


def test_somebody_signs_in_at_a_provider(chromium: Browser, history: Settings) -> None:
    """Another's, in a browser, from the invitation on."""
    with mock(sub="hedy", email="hedy@example.com", email_verified=True) as issuer:
        settings = OidcSettings(
            oidc_issuer=issuer,
            oidc_client_id=CLIENT,
            oidc_client_secret=SECRET,
            oidc_name="Example",
        )
        styles = "https://cdn.jsdelivr.net"
        with (
            serve(history, oidc=settings) as web,
            opened(chromium, web, 1280, "light", role="admin") as admin,
            opened(chromium, web, 390, "dark", signed_in=False, also=(issuer, styles)) as hers,
        ):
            page = admin.page
            page.goto(f"{web.base}/settings/people")
            page.get_by_text("Invite somebody").click()
            page.get_by_label("Name").fill(f"Hedy Lamarr {web.base}")
            page.get_by_label("E-mail address").fill("Hedy@example.com")
            admin.shows("settings-people-provider")
            page.get_by_role("button", name="Make a link").click()
            page.get_by_text("They may sign in with Example instead").wait_for()

            her = hers.page
            her.route(f"{styles}/**", lambda route: route.fulfill(body=""))
            her.goto(f"{web.base}/")
            hers.is_accessible("sign-in-provider")
            her.get_by_role("link", name="Sign in with Example").click()
            her.wait_for_url(re.compile("/oauth2/authorize"))
            her.get_by_role("button", name="Deny").click()
            her.get_by_role("alert").wait_for()  # of the state, which this one forgets then
            hers.refused += 1
            hers.shows("sign-in-denied")
            her.get_by_role("link", name="Sign in with Example").click()
            her.get_by_role("button", name="hedy").click()
            her.get_by_role("heading", name="Activity").wait_for()
            assert her.url == f"{web.base}/"
            (cookie,) = her.context.cookies(web.base)
            assert (cookie["name"], cookie["sameSite"]) == (web.serving.cookie, "Lax")

            her.goto(f"{web.base}/settings")
            her.get_by_text("With the account hedy").wait_for()
            hers.shows("settings-account")
            page.get_by_role("link", name="You", exact=True).click()
            page.get_by_role("button", name="Sign in with Example from now on").click()
            page.get_by_role("link", name="Go on to Example").wait_for()
            admin.is_accessible("settings-account-begun")
            page.get_by_role("link", name="People", exact=True).click()
            page.get_by_role("link", name="Hedy Lamarr").click()
            page.get_by_text("hedy of").wait_for()
            admin.is_accessible("settings-person-provider")
            page.get_by_role("button", name="Forget the account").click()
            page.get_by_text("Forgotten:").wait_for()
            her.reload()
            her.get_by_role("heading", name="Sign in").wait_for()
