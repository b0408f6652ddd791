"""The settings of access (`monitor.settings.Settings` has them): who may read the web pages, and how people sign in.

Contract: a single sign-on needs its issuer, a client, `public_url` and at least one grant; what is missing is named. An
issuer is asked over https, or over http on this machine.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

Text = Annotated[str, Field(min_length=1, max_length=500)]


class OidcGrant(BaseModel):
    """What the members of a group may: a scope, and a tenant where they are to see that one alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Text
    scope: Literal["read", "act"]
    tenant: Text | None = None


class AccessSettings(BaseSettings):
    """Part of all settings."""

    page_open: Literal["never", "loopback"] = Field(
        "never",
        description="who may read the web pages without signing in: nobody; or whoever is on this machine, where "
        "awry serve listens on loopback and no proxy is before it (docs/access.md)",
    )
    public_url: str | None = Field(
        None,
        description="how browsers reach awry serve, such as https://awry.example.org; with https cookies are Secure",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto awry serve believes",
    )
    session_hours: float = Field(12.0, gt=0, le=720, description="how long somebody stays signed in to the web pages")
    oidc_issuer: str | None = Field(
        None, description="OpenID Connect provider for signing in to the web pages; default: tokens only"
    )
    oidc_client_id: Text | None = Field(None, description="awry's client id there")
    oidc_client_secret: SecretStr | None = Field(None, description="its secret; without one it is a public client")
    oidc_scopes: tuple[Text, ...] = Field(
        ("openid", "profile", "email"), description="scopes that are asked for; the groups may need one more"
    )
    oidc_groups_claim: Text = Field("groups", description="claim with a person's groups, or a path such as realm.roles")
    oidc_name_claim: Text = Field("email", description="claim that people are called by here, in the audit too")
    oidc_grants: tuple[OidcGrant, ...] = Field(
        (),
        description="what groups may: a list of tables with group, scope (read, act) and, for one tenant, tenant; "
        "the first that fits counts, and the group * is everybody",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ipaddress.ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r} is neither an address nor a network such as 10.0.0.0/8") from None
        return value

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = _parts(value)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("must be scheme and host alone: awry serve needs a host of its own, not a path")
        return f"{parts.scheme}://{parts.netloc}"

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str | None) -> str | None:
        if value is not None and _parts(value).scheme == "http" and not _is_here(_parts(value).hostname or ""):
            raise ValueError("must be https: whoever is on the way could sign in as anybody")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Any:
        if self.oidc_issuer is not None:
            missing = [n for n in ("oidc_client_id", "oidc_grants", "public_url") if not getattr(self, n)]
            if missing:
                raise ValueError(f"oidc_issuer: needs {' and '.join(missing)} as well")
            if "openid" not in self.oidc_scopes:
                raise ValueError("oidc_scopes: must hold openid")
        return self


def _parts(url: str) -> Any:
    parts = urlsplit(url)  # raises ValueError for a port or a bracket that is none
    if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be a URL such as https://awry.example.org")
    return parts


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
