"""Pushes folder, dashboards and annotations to a running Grafana, through the package `grafana-api`.

Contract: `push(url, token, folder, sources, changes)` brings them up to date and yields a line for each step. It is
idempotent: folder and dashboards have fixed uids, an annotation a tag of its own. It fails before any change when a
data source of the dashboards is missing. Raises GrafanaError, which names the fix and holds no token.

The package is no longer maintained. Only its session with its errors and its methods by uid are used; it has none for
data sources by uid, and sends numeric ids with annotations, which Grafana 13 refuses: for these its raw request method
is used. Redirects are refused: they would carry the token to another host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from alerts.dashboards.board import FOLDER_UID, TAG
from alerts.dashboards.changes import Change
from alerts.dashboards.panels import Json
from alerts.errors import GrafanaError

TIMEOUT_SECONDS = 15.0
# At most this many annotations are read: there are a few changes a month.
MAX_ANNOTATIONS = 5000


def push(
    url: str, token: str, folder: str, sources: Mapping[str, str], changes: Sequence[Change] = ()
) -> Iterator[str]:
    """`sources`: from the uid in the dashboards to the uid of the data source in that Grafana."""
    from alerts.dashboards import dashboards

    api = _Api(url, token)
    version = api.call(lambda: api.face.api.GET("/health").get("version"), "health")
    yield f"{url} runs Grafana {version or '(version unknown)'}"
    for uid in sources.values():
        if api.ask("GET", f"/datasources/uid/{quote(uid, safe='')}", missing_ok=True) is None:
            raise GrafanaError(
                f"{url} has no data source with the uid {uid}: add one, or name yours with --postgres UID and "
                "--prometheus UID (awry grafana write FOLDER has both as files)"
            )
    yield _folder(api, folder)
    for board in dashboards().values():
        yield _dashboard(api, _with_sources(board, sources))
    if changes:
        yield _annotations(api, changes)


class _Api:
    """The package's client; its errors and those of `requests` become GrafanaError."""

    def __init__(self, url: str, token: str) -> None:
        from grafana_api.grafana_face import GrafanaFace

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise GrafanaError("--url: write http(s)://HOST[:PORT][/PATH] without a name, a password or a query")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise GrafanaError("--token: give the token of a service account (or set GRAFANA_TOKEN)")
        prefix = parts.path.strip("/")
        try:
            port = parts.port
        except ValueError:
            raise GrafanaError("--url: the port is no number between 0 and 65535") from None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._url = url
        self._face = GrafanaFace(
            token, host, port, f"{prefix}/" if prefix else "", parts.scheme, timeout=TIMEOUT_SECONDS
        )
        session = self._face.api.s
        session.max_redirects = 0

    @property
    def face(self) -> Any:
        return self._face

    def ask(self, method: str, path: str, body: Json | None = None, *, missing_ok: bool = False) -> Any:
        """The package's raw request."""
        return self.call(lambda: getattr(self._face.api, method)(path, json=body), path, missing_ok=missing_ok)

    def call(self, work: Any, what: str, *, missing_ok: bool = False) -> Any:
        """The result of `work`; None for 404 if `missing_ok`."""
        from grafana_api.grafana_api import GrafanaException
        from requests import RequestException, TooManyRedirects

        try:
            return work()
        except GrafanaException as error:
            if error.status_code == 404 and missing_ok:
                return None
            raise GrafanaError(f"{self._url}{_fix(error.status_code, what)} ({_message(error.response)})") from None
        except TooManyRedirects:
            raise GrafanaError(f"{self._url} redirects: give the address that it redirects to") from None
        except RequestException as error:
            raise GrafanaError(f"{self._url}: no answer ({type(error).__name__}); is the address right?") from None
        except (ValueError, TypeError, AttributeError, KeyError):
            raise GrafanaError(f"{self._url}: the answer is not Grafana's; is the address right?") from None


def _folder(api: _Api, title: str) -> str:
    known = api.call(lambda: api.face.folder.get_folder(FOLDER_UID), "folder", missing_ok=True)
    if known is None:
        api.call(lambda: api.face.folder.create_folder(title, FOLDER_UID), "folder")
        return f"folder {title}: made"
    if known.get("title") != title:
        api.call(lambda: api.face.folder.update_folder(FOLDER_UID, title, overwrite=True), "folder")
        return f"folder {title}: renamed"
    return f"folder {title}: is there"


def _dashboard(api: _Api, board: Json) -> str:
    known = api.call(lambda: api.face.dashboard.get_dashboard(board["uid"]), "dashboard", missing_ok=True)
    if known is not None and _is_same(known.get("dashboard", {}), board) and _folder_uid(known) == FOLDER_UID:
        return f"dashboard {board['title']}: is up to date"
    body = {"dashboard": board, "folderUid": FOLDER_UID, "overwrite": True, "message": "awry grafana push"}
    api.call(lambda: api.face.dashboard.update_dashboard(body), "dashboard")
    return f"dashboard {board['title']}: {'made' if known is None else 'updated'}"


def _is_same(pushed: Json, board: Json) -> bool:
    """Grafana adds an id and a version."""
    return {k: v for k, v in pushed.items() if k not in ("id", "version")} == board


def _folder_uid(known: Json) -> Any:
    return known.get("meta", {}).get("folderUid")


def _with_sources(value: Any, sources: Mapping[str, str]) -> Any:
    """The dashboard with the uids of that Grafana's data sources."""
    if isinstance(value, dict):
        return {
            k: sources.get(v, v) if k == "uid" and isinstance(v, str) else _with_sources(v, sources)
            for k, v in value.items()
        }
    return [_with_sources(one, sources) for one in value] if isinstance(value, list) else value


def _annotations(api: _Api, changes: Sequence[Change]) -> str:
    """Annotations of the organisation with the tag awry, so that any dashboard can show them."""
    existing = api.ask("GET", f"/annotations?type=annotation&tags={TAG}&limit={MAX_ANNOTATIONS}")
    known = {tag: one for one in existing for tag in one.get("tags", []) if str(tag).startswith(f"{TAG}:")}
    made = changed = 0
    for change in changes:
        body: Json = {
            "time": int(change.at.timestamp() * 1000),
            "text": change.text,
            "tags": [TAG, "probe", change.key],
        }
        found = known.get(change.key)
        if found is None:
            api.ask("POST", "/annotations", body)
            made += 1
        elif any(found.get(name) != body[name] for name in ("time", "text")):
            api.ask("PATCH", f"/annotations/{int(found['id'])}", body)
            changed += 1
    return f"annotations: {made} made, {changed} changed, {len(changes) - made - changed} up to date"


def _fix(status: int, what: str) -> str:
    if status == 401:
        return ": the token is not valid; make one for a service account"
    if status == 403:
        return f": the token may not do this ({what}); its service account needs the role Editor"
    if status == 412:
        return f": {what}: somebody changes it at the same time, or it is provisioned from a file; try again"
    return f": {what} failed with status {status}"


def _message(response: Any) -> str:
    message = response.get("message") if isinstance(response, dict) else response
    return " ".join(str(message).split())[:200]
