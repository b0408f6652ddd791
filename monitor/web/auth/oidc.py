"""Single sign-on by OpenID Connect: the authorization code flow with PKCE, state and nonce, and a checked ID token.

Contract: `Provider.address` is where a browser is sent, `Provider.identity` turns the code that it comes back with into
what the provider says of a person; both talk to the provider, so neither belongs into a transaction. An ID token is
accepted when it is signed with an asymmetric key of the provider's, names the issuer, this client as its audience and
the nonce, and is neither expired nor of the future, give or take LEEWAY_SECONDS. Keys are fetched again when a token
names one that is not known (KEYS_SECONDS apart at most), so that a rotation needs nothing here. `signed_in` maps groups
to scope and tenant. Whatever goes wrong is an OidcError: its words quote nothing that a browser or the provider sent.

Does not know: where state and nonce are kept (`monitor.web.auth.sign_ins`), sessions, cookies.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, KeySet

from monitor.web.auth.sessions import SignedIn
from monitor.web.auth.tokens import PageScope

LEEWAY_SECONDS = 60
DISCOVERY_SECONDS = 3600.0
KEYS_SECONDS = 10.0
ANY_GROUP = "*"
# No `none`, and nothing symmetric: the client's secret signs nothing.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")

_TIMEOUT_SECONDS = 10.0
_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class OidcError(Exception):
    """A sign-on that failed; `str` may be shown."""


@dataclass(frozen=True)
class Grant:
    """What members of a group may; the group `*` has everybody whom the provider signs in."""

    group: str
    scope: PageScope
    tenant: str | None = None


@dataclass(frozen=True)
class OidcOptions:
    """The provider, this client there, and what its groups may: of those that somebody is in, the first grant counts.
    A claim is named, or, within objects, by a path with dots."""

    issuer: str
    client_id: str
    client_secret: str | None
    redirect_uri: str
    grants: tuple[Grant, ...]
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    groups_claim: str = "groups"
    name_claim: str = "email"


class Provider:
    """One provider. `clock` is in seconds since 1970."""

    def __init__(self, options: OidcOptions, clock: Callable[[], float] = time.time) -> None:
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def address(self, state: str, nonce: str, verifier: str) -> str:
        """The provider's page where a browser signs in."""
        endpoint = self._discovered()["authorization_endpoint"]
        query = {
            "response_type": "code",
            "client_id": self._options.client_id,
            "redirect_uri": self._options.redirect_uri,
            "scope": " ".join(self._options.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def identity(self, answer: Mapping[str, str], nonce: str, verifier: str) -> Mapping[str, Any]:
        """The claims about who signed in, by the query that the browser came back with."""
        metadata = self._discovered()
        issuer = answer.get("iss")
        if issuer is None and metadata.get("authorization_response_iss_parameter_supported"):
            raise OidcError("the provider's answer does not name the provider")
        if issuer not in (None, self._options.issuer):
            raise OidcError("the answer is of another provider")
        if "error" in answer or not answer.get("code"):
            raise OidcError("the provider did not sign you in")
        tokens = self._tokens(answer["code"], verifier, metadata)
        claims = self._checked(tokens.get("id_token"), nonce, tokens.get("access_token"))
        wanted = (self._options.groups_claim, self._options.name_claim)
        if any(_claim(claims, name) is None for name in wanted) and metadata.get("userinfo_endpoint"):
            more = self._get(
                metadata["userinfo_endpoint"], headers={"Authorization": f"Bearer {tokens.get('access_token')}"}
            )
            if more.get("sub") != claims["sub"]:
                raise OidcError("the provider told of somebody else")
            claims = {**more, **claims}
        return claims

    def signed_in(self, claims: Mapping[str, Any]) -> SignedIn:
        """Who that is here, and what they may."""
        groups = _claim(claims, self._options.groups_claim)
        member_of = {groups} if isinstance(groups, str) else set(groups) if isinstance(groups, list) else set()
        grant = next((g for g in self._options.grants if g.group in member_of | {ANY_GROUP}), None)
        if grant is None:
            raise OidcError("none of your groups may read these pages; oidc_grants in the settings says which may")
        name = _claim(claims, self._options.name_claim) or claims["sub"]
        return SignedIn(str(name), grant.scope, grant.tenant)

    def _tokens(self, code: str, verifier: str, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        options = self._options
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": options.redirect_uri,
            "code_verifier": verifier,
        }
        auth = None
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if options.client_secret is None or "client_secret_basic" not in methods:
            form |= {"client_id": options.client_id}
            form |= {"client_secret": options.client_secret} if options.client_secret is not None else {}
        else:
            auth = httpx2.BasicAuth(*(_form_encoded(part) for part in (options.client_id, options.client_secret)))
        return self._ask("POST", metadata["token_endpoint"], data=form, auth=auth)

    def _checked(self, id_token: Any, nonce: str, access_token: Any) -> dict[str, Any]:
        """The claims of an ID token that stands."""
        options = self._options
        if not isinstance(id_token, str):
            raise OidcError("the provider sent no ID token")
        try:
            token = jwt.decode(id_token, self._keys_for, algorithms=list(ALGORITHMS))
            essential = {
                "iss": {"essential": True, "value": options.issuer},
                "aud": {"essential": True, "value": options.client_id},
            }
            params = {"nonce": nonce, "client_id": options.client_id, "access_token": access_token}
            claims = CodeIDToken(token.claims, token.header, essential, params)
            claims.validate(now=int(self._clock()), leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise OidcError(f"the provider's ID token is not to be accepted ({type(error).__name__})") from None
        return dict(claims)

    def _keys_for(self, token: GuestProtocol) -> KeySet:
        """The provider's keys, fetched again where none has the id that the token names."""
        named = token.headers().get("kid")
        with self._lock:
            age = self._clock() - self._keys[0] if self._keys is not None else float("inf")
            known = self._keys is not None and (named is None or any(k.kid == named for k in self._keys[1].keys))
            if age > DISCOVERY_SECONDS or (not known and age > KEYS_SECONDS):
                keys = KeySet.import_key_set(self._get(self._discovered_locked()["jwks_uri"]))  # type: ignore[arg-type]
                self._keys = (self._clock(), keys)
            assert self._keys is not None  # noqa: S101 - for the type checker
            return self._keys[1]

    def _discovered(self) -> Mapping[str, Any]:
        with self._lock:
            return self._discovered_locked()

    def _discovered_locked(self) -> Mapping[str, Any]:
        if self._metadata is None or self._clock() - self._metadata[0] > DISCOVERY_SECONDS:
            found = self._get(f"{self._options.issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self._options.issuer or not all(isinstance(found.get(n), str) for n in _NEEDED):
                raise OidcError("what the provider says of itself does not fit oidc_issuer")
            self._metadata = (self._clock(), found)
        return self._metadata[1]

    def _get(self, url: str, **more: Any) -> Mapping[str, Any]:
        return self._ask("GET", url, **more)

    def _ask(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        try:
            with httpx2.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
                answer = client.request(method, url, **more)
            found = answer.json() if answer.status_code == 200 else None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise OidcError(f"the provider cannot be reached ({type(error).__name__})") from None
        if not isinstance(found, dict):
            raise OidcError(f"the provider refused (status {answer.status_code})")
        return found


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _form_encoded(text: str) -> str:
    """As a login is encoded for Basic authentication at a token endpoint (RFC 6749, 2.3.1)."""
    return urlencode({"": text})[1:]
