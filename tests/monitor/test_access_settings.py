"""The settings of access: what is missing or unsafe is named."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from monitor.cli.processes.serve import access_options
from monitor.errors import SettingsError
from monitor.settings import load_settings

OIDC: dict[str, Any] = {
    "oidc_issuer": "https://login.example.org",
    "oidc_client_id": "awry",
    "oidc_client_secret": "geheim",
    "public_url": "https://awry.example.org/",
    "oidc_grants": [{"group": "security", "scope": "act"}, {"group": "acme", "scope": "read", "tenant": "acme"}],
}


def test_without_any_nobody_reads_without_signing_in() -> None:
    options = access_options(load_settings())
    assert (options.page_open, options.oidc, options.secure) == ("never", None, False)


def test_all_of_them() -> None:
    options = access_options(load_settings(**OIDC, session_hours=1, trusted_proxies=["10.0.0.0/8", "::1"]))
    assert options.secure
    assert options.session_lasting == timedelta(hours=1)
    assert options.trusted_proxies == ("10.0.0.0/8", "::1")
    assert options.oidc is not None
    assert options.oidc.redirect_uri == "https://awry.example.org/sign-in/oidc/callback"
    assert options.oidc.client_secret == "geheim"
    assert [(g.group, g.scope, g.tenant) for g in options.oidc.grants] == [
        ("security", "act", None),
        ("acme", "read", "acme"),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"oidc_client_id": None}, "needs oidc_client_id as well"),
        ({"oidc_grants": []}, "needs oidc_grants as well"),
        ({"public_url": None}, "needs public_url as well"),
        ({"oidc_scopes": ["email"]}, "must hold openid"),
        ({"oidc_issuer": "http://login.example.org"}, "must be https"),
        ({"oidc_issuer": "login.example.org"}, "must be a URL"),
        ({"public_url": "https://example.org/awry"}, "scheme and host alone"),
        ({"public_url": "https://u:p@example.org"}, "must be a URL"),
        ({"trusted_proxies": ["proxy.local"]}, "neither an address nor a network"),
        ({"oidc_grants": [{"group": "x", "scope": "ingest"}]}, "oidc_grants"),
        ({"oidc_grants": [{"group": "x", "scope": "read", "tenants": "y"}]}, "oidc_grants"),
        ({"page_open": "always"}, "page_open"),
        ({"session_hours": 0}, "session_hours"),
    ],
)
def test_what_is_missing_or_unsafe_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        load_settings(**(OIDC | changes))
    assert "geheim" not in str(refused.value)


def test_a_provider_on_this_machine_may_speak_http() -> None:
    assert load_settings(**(OIDC | {"oidc_issuer": "http://127.0.0.1:8080"})).oidc_issuer == "http://127.0.0.1:8080"
