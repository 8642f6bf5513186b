"""A Hugging Face hub on loopback: the few requests with which huggingface_hub fetches a model.

GET  /api/models/ORG/NAME/revision/REV   what a name stands for: its commit
GET  /api/models/ORG/NAME/tree/COMMIT    the files and their sizes
HEAD /ORG/NAME/resolve/COMMIT/FILE       a file's hash and size
GET  /ORG/NAME/resolve/COMMIT/FILE       its bytes, from where `Range` says
"""

import hashlib
import json
import threading
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests import loopback

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server offers, how it misbehaves, and what it was asked.

    Attributes:
        folder: The files of `org/tiny`, at revision `main`.
        gated: Whether files of the model are given only to a request with a token.
        cut_after: Bytes of a file's body after which the line is cut, by file name; once.
        down: Answer everything with this status.
        silent_after: So many requests are answered, the others never; None: all are.
        log: Method, path and `Range` of every request.
        over: When nobody waits for an answer any more.
    """

    folder: Path
    gated: bool = False
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    down: int | None = None
    silent_after: int | None = None
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def bytes_of(self, name):
        """The bodies of a file that were asked for, as (path's file, range)."""
        return [(m, r) for m, path, r in self.log if m == "GET" and path.endswith(f"/{name}")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        hub = self.server.of_test
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hub.log.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if hub.silent_after is not None and len(hub.log) > hub.silent_after:
            self.close_connection = hub.over.wait()
            return None
        if hub.down is not None:
            return self._error(hub.down)
        if parts[:2] == ["api", "models"] and len(parts) == 6:
            owner, name, what, revision = parts[2:]
        elif len(parts) >= 5 and parts[2] == "resolve":
            owner, name, what, revision = parts[:4]
        else:
            return self._error(404, "EntryNotFound")
        if (owner, name) != ("org", "tiny"):
            return self._error(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._error(404, "RevisionNotFound")
        if what == "revision":
            return self._json({"id": "org/tiny", "sha": COMMIT, "private": False, "siblings": []})
        if what == "tree":
            return self._json([self._entry(path) for path in sorted(hub.folder.iterdir())])
        if hub.gated and "Authorization" not in self.headers:
            return self._error(401, "GatedRepo")
        return self._file(hub.folder / "/".join(parts[4:]), body=body)

    def _entry(self, path):
        content = path.read_bytes()
        return {
            "type": "file",
            "path": path.name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }

    def _file(self, path, *, body):
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        content = path.read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        first = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if not body:
            return None
        cuts = self.server.of_test.cut_after.get(path.name)
        if cuts:
            self.wfile.write(content[first : cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return self.connection.close()
        self.wfile.write(content[first:])
        return None

    def _json(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _error(self, status, code=None):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(folder):
    """Serve a folder as org/tiny; yields the hub with its address in `url`."""
    with loopback.serving(_Handler, lambda url: Hub(folder, url=url)) as hub:
        try:
            yield hub
        finally:
            hub.over.set()
