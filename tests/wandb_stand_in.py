"""A W&B server on loopback: what `wandb sync` and an online run ask for, kept by run.

    POST /graphql                              runs, files' addresses and artefacts, by mutation
    POST /files/ENTITY/PROJECT/RUN/file_stream rows of the history, each with its line's number
    PUT  /upload/...                           bodies of files, manifests and artefacts

Rows lie where their number says, as at W&B: a part that counts from 0 again would overwrite.
"""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from raysplit.base.offline_runs import SYNC_COMMAND
from tests import loopback

KEY = "canary0123456789abcdef0123456789abcdef0123"
NOBODY = "http://127.0.0.1:9"  # where no server answers


@dataclass
class Run:
    """What the server knows of a run.

    Attributes:
        name: As people read it.
        group: The experiment.
        config: The last one sent, JSON.
        rows: The history, by line.
        summary: The last one sent.
        exit_code: None until the run has ended.
        files: Bodies by name.
    """

    name: str | None = None
    group: str | None = None
    config: dict = field(default_factory=dict)
    rows: dict[int, dict] = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    exit_code: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def history(self):
        return [self.rows[line] for line in sorted(self.rows)]


@dataclass
class Artifact:
    """An artefact's type, the run that logged it, its files by name, and whether it is whole."""

    name: str
    kind: str
    run: str
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""
    committed: bool = False


@dataclass
class Server:
    """Runs by id, artefacts in the order in which they came, and the names of what was asked."""

    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def named(self, name):
        (run,) = [run for run in self.runs.values() if run.name == name]
        return run


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server, body = self.server.of_test, self._body()
        with self.server.of_test.lock:
            if self.path == "/graphql":
                asked = json.loads(body)
                operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
                server.asked.append(operation)
                variables = asked.get("variables") or {}
                answer = {"data": self._answer(server, operation, variables)}
            elif self.path.endswith("/file_stream"):
                self._stream(server.runs[self.path.split("/")[-2]], json.loads(body))
                answer = {}
            else:  # W&B's own telemetry
                answer = {}
        self._reply(json.dumps(answer).encode())

    def do_PUT(self):
        body = self._body()
        with self.server.of_test.lock:
            _, _, kind, owner, name = self.path.split("/", 4)
            kept = self.server.of_test
            if kind == "file":
                kept.runs[owner].files[name] = body
            elif kind == "manifest":
                kept.artifacts[int(owner)].manifest = body
            else:
                kept.artifacts[int(owner)].files[name] = body
        self._reply(b"")

    def do_GET(self):
        self._reply(b"{}")

    def _body(self):
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, content):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    @staticmethod
    def _stream(run, sent):
        for line, row in _lines(sent, "wandb-history.jsonl"):
            run.rows[line] = row
        for _, summary in _lines(sent, "wandb-summary.json"):
            run.summary = summary
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")

    def _answer(self, server, operation, variables):
        match operation:
            case "UpsertBucket":
                return {"upsertBucket": self._upsert(server, variables)}
            case "RunResumeStatus":
                return {"model": self._resumed(server, variables["name"])}
            case "Viewer":
                return {"viewer": {"id": "V", "entity": "me", "username": "me", "flags": "{}"}}
            case "ArtifactType":  # nothing of that name is known by another type
                return {"project": {"artifact": None}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "CreateRunFiles":
                return {"createRunFiles": self._run_files(variables)}
            case "CreateArtifact":
                given = variables["input"]
                server.artifacts.append(
                    Artifact(
                        given["artifactCollectionName"], given["artifactTypeName"], given["runName"]
                    )
                )
                sequence = {"latestArtifact": None}
                artifact = {"id": str(len(server.artifacts) - 1), "state": "PENDING"}
                return {"createArtifact": {"artifact": {**artifact, "artifactSequence": sequence}}}
            case "CreateArtifactManifest":
                manifest = self._manifest(variables["artifactID"])
                return {"createArtifactManifest": {"artifactManifest": manifest}}
            case "UpdateArtifactManifest":
                manifest = self._manifest(variables["artifactManifestID"])
                return {"updateArtifactManifest": {"artifactManifest": manifest}}
            case "CreateArtifactFiles":
                return {"createArtifactFiles": {"files": self._artifact_files(variables["input"])}}
            case "CommitArtifact":
                artifact = server.artifacts[int(variables["artifactID"])]
                artifact.committed = True
                return {
                    "commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}
                }
        return {}

    def _upsert(self, server, given):
        run = server.runs.get(given["name"])
        inserted = run is None
        if run is None:
            run = server.runs[given["name"]] = Run()
        run.name = given["displayName"] or run.name
        run.group = given["groupName"] or run.group
        if given["config"]:
            run.config = json.loads(given["config"])
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "displayName": run.name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": {"id": "P", "name": given["project"], "entity": {"id": "E", "name": "me"}},
            "historyLineCount": len(run.rows),
        }
        return {"bucket": bucket, "inserted": inserted}

    @staticmethod
    def _resumed(server, name):
        model = {"id": "P", "name": "raysplit", "entity": {"id": "E", "name": "me"}, "bucket": None}
        run = server.runs.get(name)
        if run is not None:
            model["bucket"] = {
                "id": name,
                "name": name,
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.name,
                "logLineCount": 0,
                "historyLineCount": len(run.rows),
                "eventsLineCount": 0,
                "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
                "eventsTail": "[]",
                "config": json.dumps(run.config),
                "tags": [],
                "notes": None,
                "wandbConfig": "{}",
            }
        return model

    def _url(self, *parts):
        return "/".join([self.server.of_test.url, "upload", *parts])

    def _run_files(self, given):
        files = [
            {"name": name, "uploadUrl": self._url("file", given["run"], name)}
            for name in given["files"]
        ]
        return {"runID": given["run"], "uploadHeaders": [], "files": files}

    def _manifest(self, artifact):
        url = self._url("manifest", artifact, "manifest.json")
        return {"id": artifact, "file": {"id": "F", "uploadUrl": url, "uploadHeaders": []}}

    def _artifact_files(self, given):
        nodes = [
            {
                "storagePath": file["name"],
                "uploadUrl": self._url("artifact", file["artifactID"], file["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in given["artifactFiles"]
        ]
        return {"edges": [{"node": node} for node in nodes]}


def _lines(sent, name):
    file = (sent.get("files") or {}).get(name) or {"offset": 0, "content": []}
    return enumerate(map(json.loads, file["content"]), file["offset"])


def environment(home, url):
    """A machine whose W&B is at `url`, with a key for it and nothing of the user's own settings."""
    own = {"HOME": str(home), "NETRC": str(home / "netrc")}
    cleared = {"WANDB_MODE", "WANDB_DIR", "WANDB_ENTITY", "WANDB_PROJECT"}
    kept = {name: value for name, value in os.environ.items() if name not in cleared}
    return kept | own | {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}


def send(tracking, home, server):
    """Send what lies in a folder of offline runs, as the docs say; return what was printed."""
    given = environment(home, server.url)
    done = subprocess.run(
        SYNC_COMMAND,
        shell=True,
        env=given | {"PATH": f"{Path(sys.executable).parent}:{given['PATH']}"},
        cwd=tracking,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def serving():
    """Serve; yields what the server keeps, with its address in `url`."""
    return loopback.serving(_Handler, lambda url: Server(url=url))
