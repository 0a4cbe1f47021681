"""A stand-in for the Hugging Face Hub on this machine: takes an upload as the Hub's own HTTP interface does.

Of that interface it has what a client without Xet asks for to make a model repository and commit files to it: small
files within the commit, large ones by Git LFS. What does not fit the protocol is an error of the client's.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from huggingface_hub import ModelCard

LARGE = (".npy", ".safetensors")  # what a new repository's .gitattributes gives to LFS
TOKEN = "hf_writer"


@dataclass
class Hub:
    """What has arrived: files by repository and name, large ones by hash, and each commit's message."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def validate(self, body: bytes) -> dict[str, Any]:
        ModelCard(json.loads(body)["content"])  # refuses metadata that are not YAML
        return {"errors": [], "warnings": []}

    def create(self, body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        self.files.setdefault(name, {})
        return {"url": f"{self.url}/{name}", "name": name}

    def preupload(self, body: bytes, repo: str) -> dict[str, Any]:
        assert repo in self.files
        paths = [file["path"] for file in json.loads(body)["files"]]
        modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in paths}
        return {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]}

    def batch(self, body: bytes, repo: str) -> dict[str, Any]:
        assert repo in self.files
        objects = json.loads(body)["objects"]
        return {
            "transfer": "basic",
            "objects": [{**item, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}} for item in objects],
        }

    def put(self, body: bytes, oid: str) -> dict[str, Any]:
        assert hashlib.sha256(body).hexdigest() == oid
        self.large[oid] = body
        return {}

    def commit(self, body: bytes, repo: str) -> dict[str, Any]:
        header, *operations = map(json.loads, body.splitlines())
        assert header["key"] == "header"
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                content = base64.b64decode(value["content"], validate=True)
            else:
                assert operation["key"] == "lfsFile"
                content = self.large[value["oid"]]
                assert len(content) == value["size"]
            self.files[repo][value["path"]] = content
        self.messages.append(header["value"]["summary"])
        oid = hashlib.sha1(body).hexdigest()
        return {"commitUrl": f"{self.url}/{repo}/commit/{oid}", "commitOid": oid}


ROUTES: list[tuple[str, str, Callable[..., dict[str, Any]]]] = [
    ("POST", r"/api/validate-yaml", Hub.validate),
    ("POST", r"/api/repos/create", Hub.create),
    ("POST", r"/api/models/([\w.-]+/[\w.-]+)/preupload/main", Hub.preupload),
    ("POST", r"/api/models/([\w.-]+/[\w.-]+)/commit/main", Hub.commit),
    ("POST", r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", Hub.batch),
    ("PUT", r"/lfs/(\w+)", Hub.put),
]


@contextmanager
def standing_in() -> Iterator[Hub]:
    """A hub that answers at `url` within, to whoever has the token."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            matches = [(re.fullmatch(path, self.path), call) for verb, path, call in ROUTES if verb == self.command]
            status, value = 404, dict[str, Any](error=f"no {self.command} {self.path} here")
            if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, value = 401, {"error": "Invalid username or password."}
            for match, call in matches:
                if match and status == 404:
                    status, value = 200, call(hub, body, *match.groups())
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Standard error is the client's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
