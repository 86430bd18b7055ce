"""The part of a cluster's API that a launcher of runs asks, on loopback: it notes what is asked, and keeps jobs.

It stands where a real one cannot be had. Nothing runs: what is tested is what the real launcher asks for.
"""

import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

import yaml

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/?]+))?(?:/(?P<part>[a-z]+))?"
)
VERBS = {"POST": "create", "DELETE": "delete", "PATCH": "patch", "PUT": "update"}


@dataclass(frozen=True)
class Asked:
    """One request, in the words of a Role."""

    group: str
    resource: str
    verb: str


@dataclass
class ClusterAPI:
    """`asked`: everything so far, in order. `jobs`: those that were created, by name, as they were sent."""

    asked: list[Asked] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    namespaces: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def kubeconfig(self) -> str:
        """What leads a client here."""
        server = f"http://127.0.0.1:{self._server.server_address[1]}"
        return str(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": {"server": server}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
                    "users": [{"name": "nobody", "user": {}}],
                    "current-context": "here",
                }
            )
        )

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """What the API says to a request."""
        parts = PATH.match(path)
        if parts is None:
            return 404, {"kind": "Status", "code": 404}
        verb = VERBS.get(method) or ("get" if parts["name"] else "list")
        resource = "/".join(filter(None, (parts["resource"], parts["part"])))
        self.asked.append(Asked(parts["group"] or "", resource, verb))
        self.namespaces.add(parts["namespace"])
        if body is not None and verb == "create":
            self.jobs[body["metadata"]["name"]] = body
            return 201, body
        if verb == "list":
            names = [f"{name}-pod" for name in self.jobs] if resource == "pods" else []
            return 200, {"kind": "List", "items": [{"metadata": {"name": name}} for name in names]}
        known = parts["name"].removesuffix("-pod") in self.jobs
        return (200, {"status": {"active": 1}, "metadata": {}}) if known else (404, {"kind": "Status", "code": 404})


def _handler(api: ClusterAPI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length)
            status, body = api.answer(self.command, self.path, json.loads(sent) if sent else None)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _do  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
