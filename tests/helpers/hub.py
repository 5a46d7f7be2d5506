"""A hub on this machine: answers the requests of `huggingface_hub` from a folder of repositories, and takes uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_this_machine"  # noqa: S105 (of this hub alone)
GATED, MISSING = (403, "GatedRepo"), (404, "RepoNotFound")


@contextmanager
def local_hub(folder: Path, cache: Path) -> Iterator[dict[str, str]]:
    """Serve ``folder/{models,datasets}/<owner>/<name>``; yields the environment that makes a program use it.

    A repository with a file ``GATED`` is gated; for one with a file ``LOST``, the connection drops partway through every file.
    Uploads need the token ``TOKEN``; safetensors files come as LFS objects, which are kept in ``folder/objects`` by their digest.
    """

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(with_body=True)

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def log_message(self, *_: object) -> None:
            pass

        def do_PUT(self) -> None:
            target = folder / "objects" / self.path.strip("/").rpartition("/")[2]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(self.body())
            self.give(b"", with_body=True)

        def do_POST(self) -> None:
            content = self.body()
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refuse(401, "")
                return
            where = f"http://{self.headers['Host']}"
            self.give(json.dumps(self.posted(urlsplit(self.path).path, content, where)).encode(), with_body=True)

        def posted(self, path: str, content: bytes, where: str) -> dict[str, object]:
            if path.endswith("/commit/main"):
                repository = folder / "/".join(path.split("/")[2:5])
                for entry in map(json.loads, content.splitlines()):
                    if "path" in entry["value"]:
                        target = repository / entry["value"]["path"]
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(committed(entry, folder / "objects"))
                return {
                    "commitUrl": f"{where}/{'/'.join(path.split('/')[3:5])}/commit/{COMMIT}",
                    "commitOid": COMMIT,
                    "pullRequestUrl": None,
                }
            asked = json.loads(content)
            if path == "/api/repos/create":
                (folder / "models" / asked["organization"] / asked["name"]).mkdir(parents=True, exist_ok=True)
                return {"url": f"{where}/{asked['organization']}/{asked['name']}"}
            if path.endswith("/preupload/main"):
                modes = {
                    each["path"]: "lfs" if each["path"].endswith(".safetensors") else "regular"
                    for each in asked["files"]
                }
                return {
                    "files": [{"path": each, "uploadMode": mode, "shouldIgnore": False} for each, mode in modes.items()]
                }
            if path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**each, "actions": {"upload": {"href": f"{where}/objects/{each['oid']}"}}}
                    for each in asked["objects"]
                ]
                return {"transfer": "basic", "objects": objects}
            return {}  # validate-yaml

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            blocks = []
            while size := int(self.rfile.readline(), 16):
                blocks.append(self.rfile.read(size))
                self.rfile.readline()
            return b"".join(blocks)

        def answer(self, *, with_body: bool) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            api = parts[0] == "api"
            parts = parts[1:] if api else parts
            kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
            repository, (verb, _, *rest) = folder / kind / parts[0] / parts[1], parts[2:] or ("revision", "main")
            if not repository.is_dir():
                self.refuse(*MISSING)
            elif (repository / "GATED").exists() and not (api and verb == "revision"):
                self.refuse(*GATED)
            elif verb == "revision":
                self.give(json.dumps({"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": []}).encode(), with_body)
            elif verb == "tree":
                self.give(json.dumps(listing(repository)).encode(), with_body)
            elif with_body and (repository / "LOST").exists():
                self.head((repository / "/".join(rest)).read_bytes())
                self.reset()
            else:
                self.give((repository / "/".join(rest)).read_bytes(), with_body)

        def give(self, body: bytes, with_body: bool) -> None:
            self.head(body)
            if with_body:
                self.wfile.write(body)

        def reset(self) -> None:
            """Close the connection abruptly, with a TCP reset."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def head(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield online(f"http://127.0.0.1:{server.server_port}", cache)
    finally:
        server.shutdown()
        server.server_close()


def committed(entry: dict[str, dict[str, str]], objects: Path) -> bytes:
    """The content of a file of a commit."""
    value = entry["value"]
    return (objects / value["oid"]).read_bytes() if entry["key"] == "lfsFile" else base64.b64decode(value["content"])


def listing(repository: Path) -> list[dict[str, object]]:
    """The hub's listing of a repository's files."""
    files = sorted(path for path in repository.rglob("*") if path.is_file())
    return [
        {"type": "file", "path": path.relative_to(repository).as_posix(), "size": path.stat().st_size, "oid": "0" * 40}
        for path in files
    ]


def online(endpoint: str, cache: Path) -> dict[str, str]:
    """The environment of a program that uses the hub at ``endpoint``."""
    return {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_CACHE": str(cache / "hub"),
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }  # fmt: skip


def nowhere(cache: Path) -> dict[str, str]:
    """The environment of a program whose hub cannot be reached."""
    return online("http://127.0.0.1:9", cache)
