"""A stand-in for the Hub on this machine: repositories with commits in memory, behind the calls its client makes.

``serve`` starts one; ``Hub.commits`` holds what was pushed. All files are taken as ordinary ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = dict[str, bytes]


@dataclass
class Hub:
    """Repositories by name: each a list of commits (sha, files), the newest last.

    A model's name is ``owner/name``, a data set's ``datasets/owner/name``.
    """

    commits: dict[str, list[tuple[str, Files]]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    """Paths of the files that were downloaded."""
    read_only: bool = False
    """Refuse files, as for a token without the right to write."""
    address: str = ""

    def create(self, name: str) -> None:
        """A repository with an empty first commit, if it is not there."""
        if name not in self.commits:
            self.commits[name] = []
            self.push(name, {".gitattributes": b""})

    def push(self, name: str, files: Files) -> str:
        """A new commit; returns its sha."""
        listed = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())
        sha = hashlib.sha1(json.dumps([len(self.commits[name]), listed]).encode()).hexdigest()
        self.commits[name].append((sha, files))
        return sha

    def at(self, name: str, revision: str) -> tuple[str, Files] | None:
        """The commit a revision means: ``main``, or a sha."""
        found = self.commits[name]
        return found[-1] if revision == "main" else next((each for each in found if each[0] == revision), None)


class Handler(BaseHTTPRequestHandler):
    """The calls of ``huggingface_hub`` that pushing and loading make."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def answer(self, code: int, body: Any = b"", **headers: str) -> None:
        """Send bytes, or JSON of anything else."""
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str, message: str) -> None:
        """404 with the reason where the client looks for it."""
        self.answer(404, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def parts(self) -> list[str]:
        """The path, taken apart before decoding, so that a revision may hold a slash."""
        path = urllib.parse.urlparse(self.path).path
        return [urllib.parse.unquote(part) for part in path.strip("/").split("/")]

    def do_HEAD(self) -> None:
        """Like GET without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """A repository's facts, its tree, or a file."""
        parts = self.parts()
        api, dataset = parts[0] == "api", "datasets" in parts[:2]
        skipped = 2 if api else int(dataset)
        name, rest = _name(dataset, parts[skipped : skipped + 2]), parts[skipped + 2 :]
        if name not in self.hub.commits:
            return self.missing("RepoNotFound", f"Repository {name} not found")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self.hub.at(name, revision)
        if commit is None:
            return self.missing("RevisionNotFound", f"Revision {revision} not found")
        if api and rest[:1] in ([], ["revision"]):
            return self.answer(200, self.facts(name, *commit))
        if api and rest[0] == "tree":
            return self.answer(200, [_entry(path, data) for path, data in sorted(commit[1].items())])
        if rest[:1] == ["resolve"]:
            return self.file("/".join(rest[2:]), *commit)
        return self.missing("EntryNotFound", self.path)

    def facts(self, name: str, sha: str, files: Files) -> dict[str, Any]:
        """What ``repo_info`` reads."""
        siblings = [{"rfilename": path} for path in sorted(files)]
        plain = {"id": name, "modelId": name, "sha": sha, "private": False, "tags": [], "downloads": 0, "likes": 0}
        return {**plain, "siblings": siblings}

    def file(self, path: str, sha: str, files: Files) -> None:
        """One file."""
        if path not in files:
            return self.missing("EntryNotFound", f"{path} not found")
        if self.command == "GET":
            self.hub.fetched.append(path)
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self.answer(200, files[path], ETag=etag, X_Repo_Commit=sha)

    def do_POST(self) -> None:
        """Creating a repository, asking how to upload, and a commit."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = self.parts()
        if self.hub.read_only and parts[-1] != "create":
            return self.answer(403, {"error": "this token may not write"}, X_Error_Message="this token may not write")
        if parts[-1] == "validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if parts == ["api", "repos", "create"]:
            asked = json.loads(raw)
            short = [asked.get("organization") or "me", asked["name"].split("/")[-1]]
            name = _name(asked.get("type") == "dataset", short)
            self.hub.create(name)
            return self.answer(200, {"url": f"{self.hub.address}/{name}", "name": name, "id": name})
        name = _name(parts[1] == "datasets", parts[2:4])
        if parts[4] == "preupload":
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer(200, {"files": [{"path": f["path"], **plain} for f in json.loads(raw)["files"]]})
        assert parts[4] == "commit", self.path
        sha = self.hub.push(name, _changed(dict(self.hub.commits[name][-1][1]), raw))
        address = f"{self.hub.address}/{name}/commit/{sha}"
        return self.answer(200, {"commitUrl": address, "commitOid": sha, "success": True})


def _name(dataset: bool, parts: list[str]) -> str:
    return "/".join(["datasets", *parts] if dataset else parts)


def _changed(files: Files, lines: bytes) -> Files:
    """The files after a commit's lines of JSON."""
    for line in lines.splitlines():
        entry = json.loads(line)
        if entry["key"] == "file":
            files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        if entry["key"] == "deletedFile":
            del files[entry["value"]["path"]]
    return files


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def serve() -> Iterator[Hub]:
    """A running stand-in; ``address`` is what ``HF_ENDPOINT`` should say."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
