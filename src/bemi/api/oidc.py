"""Signing in at an OpenID provider: where the browser goes, and what came back of it.

The authorization code flow with PKCE. https://openid.net/specs/openid-connect-core-1_0.html
What belongs to one sign-in, state, nonce and verifier, is derived from one secret that the browser
keeps: nothing is stored here, and what another browser brings back is refused.
"""

import base64
import hmac
import logging
import re
import secrets
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from bemi.api.places import Places
from bemi.errors import BemiError, ConfigError
from bemi.settings import OidcSettings, is_private_url
from bemi.store.identities import Account

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import OAuth2Client
    from joserfc.jwk import KeySet

log = logging.getLogger("bemi.server")

START: Final = "/sign-in/oidc"
CALLBACK: Final = "/sign-in/oidc/callback"

LASTS: Final = 600
"""Seconds that somebody may take to sign in there."""
_TIMEOUT: Final = 10.0
_KEPT: Final = 3600.0
"""Seconds after which the provider is asked anew where it is and which keys it has."""
_ASKS_AGAIN: Final = 10.0
"""And for keys, where one that is not known was used; so that nobody has it asked all the time."""
_AT_ONCE: Final = 4
"""Sign-ins that wait for the provider: anybody may begin one, and threads are few."""
_LEEWAY: Final = 60
"""Seconds that clocks may differ."""
_LONGEST: Final = 255
"""Characters of a subject, as the specification has it."""
_LARGEST: Final = 1 << 20

# Those with a public key: of others, whoever knows the client's secret could sign.
_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
_ADDRESS: Final = ("email", "email_verified")
_KINDS_OF_KEYS: Final = ("RSA", "EC", "OKP")

# https://www.rfc-editor.org/rfc/rfc6749#section-4.1.2.1, and of OpenID
_DENIED: Final[Mapping[str, str]] = {
    "access_denied": "the provider did not let you in",
    "login_required": "the provider wants you to sign in there first",
    "interaction_required": "the provider has a question for you first",
    "account_selection_required": "the provider wants you to choose an account first",
    "consent_required": "the provider wants your consent first",
    "temporarily_unavailable": "the provider has no time just now",
}


_Kind = TypeVar("_Kind")


class SignInError(BemiError):
    """Somebody could not be signed in at the provider."""


_WORD: Final = re.compile("[a-z_]{1,60}")


class _Metadata(msgspec.Struct, frozen=True):
    """https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata"""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class Provider:
    """`origin`: of this server, to which browsers come back. Nothing is asked before somebody signs
    in. Raises `ConfigError` without the libraries that it takes."""

    def __init__(self, settings: OidcSettings, origin: str) -> None:
        self._tls = _tls()
        self.name = settings.oidc_name
        self.issuer = settings.oidc_issuer
        self.domains = frozenset(settings.oidc_domains)
        self._settings = settings
        self._callback = origin + CALLBACK
        self._places = Places("sign-ins", _AT_ONCE, _AT_ONCE)
        self._lock = threading.Lock()
        self._metadata: tuple[float, _Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def begin(self) -> tuple[str, str]:
        """Where the browser goes, and the secret that it keeps until it is back.

        Raises `SignInError`, and `BusyError`.
        """
        secret = secrets.token_urlsafe(32)
        with self._asking() as client:
            url, _ = client.create_authorization_url(
                self._found(client).authorization_endpoint,
                state=_derived(secret, "state"),
                nonce=_derived(secret, "nonce"),
                code_verifier=_derived(secret, "verifier"),
            )
        return str(url), secret

    def finish(self, secret: str, back: Mapping[str, str]) -> Account:
        """Who it is. `back`: the parameters with which the browser came back.

        Raises `SignInError`, and `BusyError`.
        """
        if not secret or not hmac.compare_digest(
            back.get("state", "").encode(), _derived(secret, "state").encode()
        ):
            raise SignInError(
                "this browser did not begin to sign in here, or did so too long ago", fix=_AGAIN
            )
        # https://www.rfc-editor.org/rfc/rfc9207
        if back.get("iss", self.issuer) != self.issuer:
            raise _wrong("another issuer answered")
        if "error" in back:
            # Of what stands in an address, only words that are known are shown.
            raise SignInError(
                _DENIED.get(back["error"], "the provider refused, for a reason of its own"),
                fix=f"{_AGAIN}, or ask whoever keeps the provider",
            )
        code = back.get("code")
        if not code:
            raise _wrong("there is no code in it")
        with self._asking() as client:
            metadata = self._found(client)
            token = client.fetch_token(
                metadata.token_endpoint,
                grant_type="authorization_code",
                code=code,
                code_verifier=_derived(secret, "verifier"),
            )
            claims = self._checked(client, metadata, token, _derived(secret, "nonce"))
            if not {*_ADDRESS} <= {*claims} and metadata.userinfo_endpoint is not None:
                claims |= self._address(client, metadata.userinfo_endpoint, claims["sub"])
        return _account(self.issuer, claims)

    @contextmanager
    def _asking(self) -> Iterator["OAuth2Client"]:
        """A client of the provider, whose errors are told as `SignInError`."""
        import httpx2
        from authlib.common.errors import AuthlibBaseError
        from authlib.integrations.httpx_client import OAuth2Client
        from joserfc.errors import JoseError

        settings = self._settings
        with (
            self._places.held(""),
            OAuth2Client(
                client_id=settings.oidc_client_id,
                client_secret=settings.oidc_client_secret or None,
                scope="openid email profile",
                redirect_uri=self._callback,
                code_challenge_method="S256",
                timeout=_TIMEOUT,
                verify=self._tls,
            ) as client,
        ):
            try:
                yield client
            except httpx2.HTTPError as error:
                log.warning(
                    "the provider does not answer as it should", extra={"reason": _kind(error)}
                )
                raise SignInError(
                    "the provider does not answer as it should just now",
                    fix="try again later, or sign in by a link; the server's log says more",
                ) from error
            except AuthlibBaseError as error:
                word = str(error.error)
                wrong = _wrong(word if _WORD.fullmatch(word) else "a reason of the provider's own")
                if word in ("invalid_client", "unauthorized_client"):
                    raise SignInError(
                        "the provider does not take this server for one that it knows",
                        fix="whoever runs it sees to oidc_client_id and oidc_client_secret",
                    ) from error
                raise wrong from error
            except (JoseError, msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise _wrong(_kind(error)) from error

    def _found(self, client: "OAuth2Client") -> _Metadata:
        """Where the provider is."""
        from authlib.oidc.discovery import get_well_known_url

        with self._lock:
            if self._metadata is None or time.monotonic() - self._metadata[0] > _KEPT:
                url = get_well_known_url(self.issuer, external=True)
                found = _read(client, url, _Metadata)
                if found.issuer != self.issuer:
                    raise _wrong("the metadata are of another issuer")
                for endpoint in (
                    found.authorization_endpoint,
                    found.token_endpoint,
                    found.jwks_uri,
                    found.userinfo_endpoint or self.issuer,
                ):
                    if not is_private_url(endpoint):
                        raise _wrong("the metadata have an endpoint without TLS")
                self._metadata = time.monotonic(), found
            found = self._metadata[1]
        if self._settings.oidc_client_secret:
            methods = found.token_endpoint_auth_methods_supported
            is_posted = "client_secret_basic" not in methods and "client_secret_post" in methods
            client.token_endpoint_auth_method = (
                "client_secret_post" if is_posted else "client_secret_basic"
            )
        return found

    def _checked(
        self, client: "OAuth2Client", metadata: _Metadata, token: Mapping[str, Any], nonce: str
    ) -> dict[str, Any]:
        """The claims of the ID token, which is signed by the provider, for this server and this
        sign-in, and of now."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import BadSignatureError, InvalidKeyIdError

        written = token.get("id_token")
        if not isinstance(written, str):
            raise _wrong("there is no ID token")
        try:
            read = jwt.decode(written, self._known(client, metadata), [*_ALGORITHMS])
        except (BadSignatureError, InvalidKeyIdError):
            # Keys are changed from time to time.
            read = jwt.decode(written, self._known(client, metadata, anew=True), [*_ALGORITHMS])
        claims = CodeIDToken(
            read.claims,
            read.header,
            options={
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self._settings.oidc_client_id},
            },
            params={
                "nonce": nonce,
                "client_id": self._settings.oidc_client_id,
                "access_token": token.get("access_token"),
            },
        )
        claims.validate(leeway=_LEEWAY)
        return dict(claims)

    def _known(
        self, client: "OAuth2Client", metadata: _Metadata, *, anew: bool = False
    ) -> "KeySet":
        """The provider's keys; `anew`: asked for again, but not all the time."""
        from joserfc.jwk import KeySet

        with self._lock:
            keeps = _ASKS_AGAIN if anew else _KEPT
            if self._keys is None or time.monotonic() - self._keys[0] > keeps:
                found = _read(client, metadata.jwks_uri, _Keys)
                usable: Any = [
                    key
                    for key in found.keys
                    if key.get("kty") in _KINDS_OF_KEYS and key.get("use", "sig") == "sig"
                ]
                self._keys = time.monotonic(), KeySet.import_key_set({"keys": usable})
            return self._keys[1]

    def _address(self, client: "OAuth2Client", url: str, subject: str) -> dict[str, Any]:
        """That and whether it is verified, which some providers tell beside the ID token."""
        found = _read(client, url, dict[str, Any], withhold_token=False)
        if found.get("sub") != subject:
            raise _wrong("what is told is of somebody else")
        return {name: found.get(name) for name in _ADDRESS}


_AGAIN: Final = "begin again"


def _wrong(why: str) -> SignInError:
    """An answer that proves nothing. Why is for the log: whoever made it up need not know."""
    log.warning("a sign-in at the provider does not hold", extra={"reason": why})
    return SignInError(
        "what came back from the provider does not hold",
        fix=f"{_AGAIN}, or sign in by a link; the server's log says more",
    )


def _kind(error: Exception) -> str:
    """Without what a library quotes, but for the claim that is wrong."""
    return f"{type(error).__name__} {getattr(error, 'claim', '')}".rstrip()


def _read(
    client: "OAuth2Client", url: str, kind: type[_Kind], *, withhold_token: bool = True
) -> _Kind:
    answer = client.request(
        "GET", url, withhold_token=withhold_token, headers={"Accept": "application/json"}
    )
    answer.raise_for_status()
    if len(answer.content) > _LARGEST:
        raise _wrong("the provider's answer is too large")
    return msgspec.json.decode(answer.content, type=kind)


def _derived(secret: str, what: str) -> str:
    """43 characters of those that a verifier may have. https://www.rfc-editor.org/rfc/rfc7636"""
    digest = hmac.digest(secret.encode(), what.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _account(issuer: str, claims: Mapping[str, Any]) -> Account:
    """Raises `SignInError` for a subject that is none."""
    subject, email = claims["sub"], claims.get("email")
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= _LONGEST
        or not subject.isprintable()
    ):
        raise _wrong("the subject is none")
    is_verified = claims.get("email_verified") is True
    is_address = (
        isinstance(email, str)
        and len(email) < _LONGEST
        and email.isprintable()
        and " " not in email
        and email.count("@") == 1
        and not email.startswith("@")
    )
    return Account(issuer, subject, email if is_verified and is_address else None)


def _tls() -> ssl.SSLContext:
    """Made once, since that takes a while. Raises `ConfigError`."""
    try:
        import authlib.integrations.httpx_client  # noqa: F401
        import httpx2
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"signing in at a provider needs {error.name}, which is not installed",
            fix="pip install 'bemi[oidc]', or unset oidc_issuer",
        ) from error
    return httpx2.create_ssl_context()
