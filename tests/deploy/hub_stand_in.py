"""A stand-in for the Hugging Face hub on this machine: as much of its API as pushing and loading a model needs.

Repositories live in memory, every commit with its files. Uploads of large files go through the LFS protocol.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens of the user "me": one that may write to "me/...", one that may only read."""


@dataclass
class Commit:
    message: str
    files: dict[str, bytes]

    @property
    def sha(self) -> str:
        digest = hashlib.sha1(self.message.encode())
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


@dataclass
class Repository:
    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [Commit("initial commit", {})]})

    def at(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((one for line in self.branches.values() for one in line if one.sha == revision), None)


@dataclass
class Hub:
    """What tests look at and set: repositories by name, requests so far, and which of them fail."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lfs: str | None = None
    """Pattern of the files that are uploaded as large ones."""
    broken: str | None = None
    """Pattern of the requests, "METHOD path", whose connection is cut without an answer."""

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        commit = self.repositories[name].at(revision)
        assert commit is not None
        return commit.files


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """Runs the stand-in on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Routes a request by the first pattern that fits."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        if self.hub.broken and fnmatch.fnmatch(request, self.hub.broken):
            self.close_connection = True
            return
        try:
            for method, pattern, action in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    return action(self, body, *found.groups())
            raise Refusal(404, f"the stand-in knows no {request}")
        except Refusal as refusal:
            headers = {"X-Error-Message": str(refusal)} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self.reply({"error": str(refusal)}, refusal.status, headers)

    def reply(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def token(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if given not in (None, WRITER, READER):
            raise Refusal(401, "Invalid credentials in Authorization header")
        return given

    def writable(self, name: str) -> None:
        if self.token() is None:
            raise Refusal(401, "Invalid username or password.")
        if self.token() != WRITER or not name.startswith("me/"):
            raise Refusal(403, f"You don't have the rights to write to {name}")

    def repository(self, name: str) -> Repository:
        token = self.token()
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and token is None):
            raise Refusal(404 if token else 401, "Repository not found", "RepoNotFound")
        return repository

    def commit(self, name: str, revision: str) -> Commit:
        commit = self.repository(name).at(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # What the routes do

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        self.writable(name)
        if name in self.hub.repositories:
            url = f"{self.hub.url}/{name}"
            return self.reply({"error": "You already created this model repo", "url": url}, 409)
        self.hub.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        self.reply({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def validate(self, body: bytes) -> None:
        header = json.loads(body)["content"].split("---")[1]
        try:
            assert isinstance(yaml.safe_load(header), dict)
        except Exception as error:
            return self.reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
        self.reply({"errors": [], "warnings": []})

    def info(self, _: bytes, name: str, revision: str | None) -> None:
        commit, repository = self.commit(name, revision or "main"), self.repository(name)
        siblings = [{"rfilename": file} for file in commit.files]
        self.reply({"id": name, "sha": commit.sha, "private": repository.private, "siblings": siblings, "tags": []})

    def tree(self, _: bytes, name: str, revision: str) -> None:
        entries = [
            {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for file, content in self.commit(name, revision).files.items()
        ]
        self.reply(entries)

    def branch(self, _: bytes, name: str, branch: str) -> None:
        self.writable(name)
        branches = self.repository(name).branches
        if branch in branches:
            raise Refusal(409, "Reference already exists")
        branches[branch] = list(branches["main"])
        self.reply({})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        self.writable(name)
        self.commit(name, revision)
        files = json.loads(body)["files"]
        modes = {file["path"]: fnmatch.fnmatch(file["path"], self.hub.lfs or "") for file in files}
        self.reply(
            {
                "files": [
                    {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                    for path, large in modes.items()
                ]
            }
        )

    def lfs_batch(self, body: bytes, name: str) -> None:
        self.writable(name)
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects})

    def lfs_upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "wrong content")
        self.hub.large[oid] = body
        self.reply({})

    def make_commit(self, body: bytes, name: str, revision: str) -> None:
        self.writable(name)
        files, message = dict(self.commit(name, revision).files), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
                case other:
                    raise Refusal(400, f"the stand-in knows no {other}")
        commit = Commit(message, files)
        self.repository(name).branches[revision].append(commit)
        self.reply({"commitUrl": f"{self.hub.url}/{name}/commit/{commit.sha}", "commitOid": commit.sha})

    def resolve(self, _: bytes, name: str, revision: str, file: str) -> None:
        commit = self.commit(name, revision)
        if file not in commit.files:
            raise Refusal(404, f"{file} does not exist", "EntryNotFound")
        content = commit.files[file]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self.reply(content, headers=headers)


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("GET", rf"/api/models/{NAME}(?:/revision/(.+))?", Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/(.+)", Handler.tree),
    ("POST", rf"/api/models/{NAME}/branch/(.+)", Handler.branch),
    ("POST", rf"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/api/models/{NAME}/commit/(.+)", Handler.make_commit),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(\w+)", Handler.lfs_upload),
    ("GET HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
)
