"""Signing in by a one-time link, or at an OpenID provider, and out."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import VIEWER, address_of, authenticated, record, record_refused
from bemi.api.asking import Text
from bemi.api.oidc import CALLBACK, LASTS, START, Provider, SignInError
from bemi.api.origins import host_of, is_own
from bemi.api.principals import ForbiddenError, Principal
from bemi.api.serving import Served, Serving
from bemi.errors import BemiError, UnknownStateError
from bemi.store import identities, people
from bemi.store.identities import NotAdmittedError
from bemi.store.people import SESSION_LASTS, Holder, Person
from bemi.ui.rendering import page

router = APIRouter()

Secret = Annotated[Text, Query(max_length=200)]

_ADDRESS: Final = 4000
"""Characters of a parameter with which a provider sends somebody back."""


@router.get("/sign-in")
def sign_in_page(request: Request, serving: Served, link: Secret = "") -> Response:
    """Shows a button: a link that is only looked at, as chats and mail do, is not used up."""
    return _page(request, serving, link=link)


@router.post("/sign-in")
def sign_in(
    request: Request,
    serving: Served,
    link: Annotated[Text, Form(max_length=200)],
    name: Annotated[Text, Form(min_length=1, max_length=100)] = "owner",
) -> Response:
    """Uses the link up, and begins a session."""
    if not is_own(request.headers, serving.origins):
        raise ForbiddenError("it can't be told that a page of this server asks this")
    with serving.archive.connected() as conn:
        found = people.sign_in(conn, serving.archive.schema, link, name.strip() or "owner")
    if found is None:
        serving.limits.failed(address_of(request))
        return _page(request, serving, 403, failed=True)
    person, session = found
    record(request, _principal(person), {})
    return _signed_in(serving, session)


@router.get(START)
def begin_at_provider(request: Request, serving: Served) -> Response:
    """Leads there. A link, and no form: browsers take no form to another origin."""
    provider = provider_of(serving)
    if request.headers.get("host", "").lower() != host_of(serving.origin):
        # What the browser keeps, it keeps for a host, and the provider knows one of ours.
        return RedirectResponse(serving.origin + START, 303)
    try:
        address, secret = provider.begin()
    except SignInError as error:
        return _page(request, serving, 503, problem=error)
    answer = RedirectResponse(address, 303)
    # Not Strict: browsers come back from another site with it.
    _keep(answer, serving, _cookie(serving), secret, LASTS)
    return answer


@router.get(CALLBACK)
def back_from_provider(
    request: Request,
    serving: Served,
    state: Annotated[Text, Query(max_length=_ADDRESS)] = "",
    code: Annotated[Text | None, Query(max_length=_ADDRESS)] = None,
    iss: Annotated[Text | None, Query(max_length=_ADDRESS)] = None,
    error: Annotated[Text | None, Query(max_length=_ADDRESS)] = None,
) -> Response:
    """Where the provider sends browsers back to: with a code, by which it says who it is."""
    provider = provider_of(serving)
    given = {"state": state, "code": code, "iss": iss, "error": error}
    back = {name: value for name, value in given.items() if value is not None}
    serving.limits.signs_in(address_of(request))
    whose, _, secret = request.cookies.get(_cookie(serving), "").rpartition(".")
    answer: Response
    try:
        account = provider.finish(secret, back)
        if whose:
            _bind(request, serving, account, whose)
            answer = RedirectResponse("/settings", 303)
        else:
            answer = _signed_in(serving, _admitted(request, serving, provider, account))
    except (SignInError, NotAdmittedError) as problem:
        serving.limits.failed(address_of(request))
        answer = _page(request, serving, 403, problem=problem)
    _drop(answer, serving, _cookie(serving))
    return answer


@router.post("/sign-out", dependencies=[VIEWER])
def sign_out(request: Request, serving: Served) -> Response:
    session = request.cookies.get(serving.cookie)
    if session is not None:
        with serving.archive.connected() as conn:
            people.sign_out(conn, serving.archive.schema, session)
    return signed_out(serving)


def keep_for_binding(answer: Response, serving: Serving, who: Principal, secret: str) -> None:
    """What the browser keeps while somebody who is signed in shows an account of theirs."""
    _keep(answer, serving, _cookie(serving), f"{who.holder.id}.{secret}", LASTS)


def signed_out(serving: Serving) -> Response:
    answer = RedirectResponse("/sign-in", 303)
    _drop(answer, serving, serving.cookie)
    return answer


def _admitted(
    request: Request, serving: Serving, provider: Provider, account: identities.Account
) -> str:
    """The secret of a session. Raises `NotAdmittedError`, once that is recorded."""
    what = {"issuer": account.issuer, "subject": account.subject, "email": account.email}
    try:
        with serving.archive.connected() as conn:
            person, session = identities.admit(
                conn, serving.archive.schema, account, provider.domains
            )
    except NotAdmittedError as error:
        name = account.email or account.subject
        who = name if error.person is None else _principal(error.person)
        record_refused(request, who, what)
        raise
    record(request, _principal(person), what)
    return session


def _bind(request: Request, serving: Serving, account: identities.Account, whose: str) -> None:
    """To whoever began that, and is signed in. Raises `NotAdmittedError`, once that is recorded."""
    who = authenticated(request)
    what = {"issuer": account.issuer, "subject": account.subject, "bound": True}
    try:
        if who.label != f"person {whose}":
            raise NotAdmittedError(
                "somebody else began to show an account in this browser",
                fix="begin again, in your settings",
            )
        with serving.archive.connected() as conn:
            identities.bind(conn, serving.archive.schema, account, who.holder.id)
    except NotAdmittedError:
        record_refused(request, who, what)
        raise
    record(request, who, what)


def provider_of(serving: Serving) -> Provider:
    """Raises `UnknownStateError`."""
    if serving.provider is None:
        raise UnknownStateError("this server knows no provider to sign in at")
    return serving.provider


def _principal(person: Person) -> Principal:
    holder = Holder("person", person.id, person.id, person.name, person.role, person.scopes, b"")
    return Principal.of(holder)


def _page(
    request: Request,
    serving: Serving,
    status: int = 200,
    *,
    link: str = "",
    failed: bool = False,
    problem: BemiError | None = None,
) -> Response:
    provider = None if serving.provider is None else serving.provider.name
    return page(
        request,
        "sign_in.html",
        None,
        status,
        link=link,
        failed=failed,
        problem=problem,
        provider=provider,
        start=START,
    )


def _signed_in(serving: Serving, session: str) -> Response:
    answer = RedirectResponse("/", 303)
    _keep(answer, serving, serving.cookie, session, int(SESSION_LASTS.total_seconds()))
    return answer


def _cookie(serving: Serving) -> str:
    """What the browser keeps while somebody signs in at the provider."""
    return f"{serving.cookie}_signing"


def _keep(answer: Response, serving: Serving, name: str, value: str, seconds: int) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=serving.is_secure,
        httponly=True,
        samesite="lax",
    )


def _drop(answer: Response, serving: Serving, name: str) -> None:
    answer.delete_cookie(name, path="/", secure=serving.is_secure, httponly=True, samesite="lax")
