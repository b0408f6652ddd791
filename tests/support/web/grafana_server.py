"""A stand-in for Grafana with state, which refuses with 400 whatever the description of its HTTP API lacks.

Paths, methods, query parameters, fields, their types and the required ones are those of tests/ref; a status that an
endpoint does not have is a mistake of this server and raises. Only a bearer token that it knows is let in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from benchmarks.support.receiver import serving
from tests.support import ROOT

API = json.loads((ROOT / "tests" / "ref" / "grafana-http-api-13.json").read_text())["endpoints"]
TOKEN = "glsa_of-a-service-account"
TYPES = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "object": lambda v: isinstance(v, dict),
    "array of string": lambda v: isinstance(v, list) and all(isinstance(one, str) for one in v),
}
Answer = tuple[int, Any]


@dataclass
class Grafana:
    """`refuse` is answered to everything when set; `calls` are (method, path) with what was refused for its form."""

    url: str = ""
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    datasources: set[str] = field(default_factory=lambda: {"awry-postgres", "awry-prometheus"})
    calls: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    refuse: tuple[int, dict[str, str], bytes] | None = None
    hosts: list[str] = field(default_factory=list)

    def answer(self, method: str, target: str, body: Any) -> Answer:
        parts = urlsplit(target)
        query = parse_qsl(parts.query)
        for one in API:
            match = re.fullmatch(re.sub(r"\{\w+\}", "([^/]+)", one["path"]), parts.path)
            if match and one["method"] == method:
                wrong = _wrong(one, query, body)
                status, found = (400, wrong) if wrong else self._do(one["operation"], match, dict(query), query, body)
                if wrong:
                    self.refused.append(wrong)
                assert status == 400 or status in one["statuses"], f"{one['operation']} never answers {status}"
                return status, found if isinstance(found, (dict, list)) else {"message": found}
        self.refused.append(f"{method} {parts.path}: there is no such endpoint")
        return 400, {"message": self.refused[-1]}

    def _do(self, operation: str, match: re.Match[str], query: dict[str, str], all_query: Any, body: Any) -> Answer:
        key = unquote(match[1]) if match.re.groups else ""
        if operation == "getHealth":
            return 200, {"database": "ok", "version": "13.2.3"}
        if operation == "getDataSourceByUID":
            return (200, {"uid": key}) if key in self.datasources else (404, "data source not found")
        if operation == "getFolderByUID":
            return (200, self.folders[key]) if key in self.folders else (404, "folder not found")
        if operation == "createFolder":
            if body["uid"] in self.folders:
                return 409, "a folder with that uid already exists"
            self.folders[body["uid"]] = {"title": body["title"], "uid": body["uid"], "version": 1}
            return 200, self.folders[body["uid"]]
        if operation == "updateFolder":
            if key not in self.folders:
                return 404, "folder not found"
            self.folders[key] |= {"title": body["title"], "version": self.folders[key]["version"] + 1}
            return 200, self.folders[key]
        if operation == "getDashboardByUID":
            return (200, self.dashboards[key]) if key in self.dashboards else (404, "Dashboard not found")
        if operation == "postDashboard":
            return self._save(body)
        if operation == "getAnnotations":
            tags = {v for k, v in all_query if k == "tags"}
            return 200, [a for a in self.annotations.values() if tags <= set(a["tags"])][: int(query["limit"])]
        if operation == "postAnnotation":
            number = len(self.annotations) + 1
            self.annotations[number] = {"id": number, **body}
            return 200, {"id": number, "message": "Annotation added"}
        if operation == "patchAnnotation":
            if int(key) not in self.annotations:
                return 404, "annotation not found"
            self.annotations[int(key)] |= body
            return 200, {"message": "Annotation patched"}
        raise AssertionError(operation)

    def _save(self, body: dict[str, Any]) -> Answer:
        board, folder = body["dashboard"], body.get("folderUid", "")
        if folder and folder not in self.folders:
            return 400, "folder not found"
        known = self.dashboards.get(board["uid"])
        if known and not body.get("overwrite"):
            return 412, "The dashboard has been changed by someone else"
        version = known["dashboard"]["version"] + 1 if known else 1
        number = known["dashboard"]["id"] if known else len(self.dashboards) + 1
        kept = {**board, "id": number, "version": version}
        self.dashboards[board["uid"]] = {"dashboard": kept, "meta": {"folderUid": folder}}
        return 200, {"uid": board["uid"], "version": version, "status": "success"}


def _wrong(endpoint: dict[str, Any], query: list[tuple[str, str]], body: Any) -> str | None:
    """What the description does not allow."""
    where = f"{endpoint['method']} {endpoint['path']}"
    unknown = {name for name, _ in query} - set(endpoint["query"])
    if unknown:
        return f"{where}: unknown query {sorted(unknown)}"
    fields = endpoint.get("body")
    if fields is None:
        return None if body is None else f"{where}: takes no body"
    if not isinstance(body, dict):
        return f"{where}: the body is no object"
    for name, value in body.items():
        if name not in fields:
            return f"{where}: unknown field {name}"
        if not TYPES[fields[name]["type"]](value):
            return f"{where}: field {name} is no {fields[name]['type']}"
    missing = [name for name, facts in fields.items() if facts["required"] and name not in body]
    return f"{where}: missing {missing}" if missing else None


@contextmanager
def running(prefix: str = "") -> Iterator[Grafana]:
    """It listens on loopback until the block ends, below a path where one is given."""
    state = Grafana()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            target = self.path.removeprefix(prefix)
            state.calls.append((self.command, urlsplit(target).path))
            state.hosts.append(self.headers["host"])
            headers, status = {"content-type": "application/json"}, 401
            payload = b'{"message": "Invalid API key"}'
            if state.refuse is not None:
                status, more, payload = state.refuse
                headers |= more
            elif self.headers.get("authorization") == f"Bearer {TOKEN}" and self.path.startswith(prefix):
                status, found = state.answer(self.command, target, json.loads(raw) if raw else None)
                payload = json.dumps(found).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - their names

        def log_message(self, *_: object) -> None:
            return None

    with serving(Handler) as url:
        state.url = url + prefix
        yield state
