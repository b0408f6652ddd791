"""Folder, dashboards and annotations into a Grafana that runs, through the package `grafana-api`.

Contract: `push(url, token, folder, sources, changes)` brings them up to date and says line by line what it did; it may
be repeated: folder and dashboards are known by fixed uids, an annotation by a tag of its own. It refuses before it
changes anything when a data source that the dashboards need is not there. Raises GrafanaError, which names the fix and
holds no token.

The package is no longer maintained. Used of it are its session with its errors, and those of its methods that name
things by uid; it knows no uid of data sources, and sends numeric ids with annotations, which Grafana 13 has switched
off: there its raw request method is used. A redirect is refused: it would carry the token elsewhere.
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
# More marks than this are not looked for: of probes and thresholds there are a few a month.
MOST_MARKS = 5000


def push(
    url: str, token: str, folder: str, sources: Mapping[str, str], changes: Sequence[Change] = ()
) -> Iterator[str]:
    """`sources`: by the uid that the dashboards name, the uid of the data source there."""
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
        yield _marks(api, changes)


class _Api:
    """The package's client; its errors and those below it become GrafanaError."""

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
        """What `work` answers; None for 404 where that is `missing_ok`."""
        from grafana_api.grafana_api import GrafanaException
        from requests import RequestException, TooManyRedirects

        try:
            return work()
        except GrafanaException as error:
            if error.status_code == 404 and missing_ok:
                return None
            raise GrafanaError(f"{self._url}{_fix(error.status_code, what)} ({_said(error.response)})") from None
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
    if known is not None and _same(known.get("dashboard", {}), board) and _place(known) == FOLDER_UID:
        return f"dashboard {board['title']}: is up to date"
    body = {"dashboard": board, "folderUid": FOLDER_UID, "overwrite": True, "message": "awry grafana push"}
    api.call(lambda: api.face.dashboard.update_dashboard(body), "dashboard")
    return f"dashboard {board['title']}: {'made' if known is None else 'updated'}"


def _same(there: Json, board: Json) -> bool:
    """Grafana adds an id and a version of its own."""
    return {k: v for k, v in there.items() if k not in ("id", "version")} == board


def _place(known: Json) -> Any:
    return known.get("meta", {}).get("folderUid")


def _with_sources(value: Any, sources: Mapping[str, str]) -> Any:
    """The dashboard with the data sources' uids there."""
    if isinstance(value, dict):
        return {
            k: sources.get(v, v) if k == "uid" and isinstance(v, str) else _with_sources(v, sources)
            for k, v in value.items()
        }
    return [_with_sources(one, sources) for one in value] if isinstance(value, list) else value


def _marks(api: _Api, changes: Sequence[Change]) -> str:
    """Annotations of the organisation, so that any dashboard can show them: by the tag awry."""
    there = api.ask("GET", f"/annotations?type=annotation&tags={TAG}&limit={MOST_MARKS}")
    known = {tag: one for one in there for tag in one.get("tags", []) if str(tag).startswith(f"{TAG}:")}
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


def _said(response: Any) -> str:
    said = response.get("message") if isinstance(response, dict) else response
    return " ".join(str(said).split())[:200]
