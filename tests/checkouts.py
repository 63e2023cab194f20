"""Copies of this checkout for tests that do what a reader does in one: call make, start the server, commit."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kernels import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
IGNORED = (".git", ".venv", "build", "data", "mine", "__pycache__", "*.egg-info", ".pytest_cache", ".ruff_cache")
ADDRESS = re.compile(r"(http://localhost:\d+/\S+)\n")


def copied(target: Path) -> Path:
    """A copy of the working tree, ready for make: what stands for its Python is the one that runs the tests, with the
    package of the copy before any other."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*IGNORED))
    (target / "data").mkdir()
    shutil.copy(ROOT / "data" / "README.md", target / "data")
    return ready(target)


def ready(target: Path) -> Path:
    """Stand in for `make setup` in a checkout."""
    python = target / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{target}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (target / ".venv" / ".ready").write_text(str(target))
    return target


def environment(home: Path, **more: str) -> dict[str, str]:
    """A reader's environment with an empty home: nobody's settings of Jupyter or git, and no browser."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "GIT_", "MAKE"))}
    settings = home / "jupyter"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "jupyter_server_config.json").write_text(
        json.dumps({"ServerApp": {"open_browser": False, "allow_root": True, "port": 0}})
    )
    own = {"HOME": str(home), "JUPYTER_CONFIG_DIR": str(settings), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    author = {f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return outer | own | author | {"PYTHONPATH": str(home), "BROWSER": "true"} | more


def program(name: str) -> str:
    """The path of a program of this machine; the test that asks for it is skipped where there is none."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def git(folder: Path, *arguments: str) -> str:
    """What git prints, in a folder, without anybody's settings."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    command = [program("git"), *author, "-C", str(folder), *arguments]
    return subprocess.run(command, env=outer | own, check=True, capture_output=True, text=True).stdout


class Server:
    """A command that starts a Jupyter server, as a context: its printed address, its pages, its end."""

    def __init__(self, command: list[str] | str, folder: Path, env: dict[str, str]):
        self.log = folder / "server.log"
        with open(self.log, "wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                shell=isinstance(command, str),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Server":
        for _ in range(10 * PATIENCE):
            self.printed = self.log.read_text()
            if (found := ADDRESS.search(self.printed)) and self._listens(found[1]):  # it prints before it listens
                self.address = found[1]
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.__exit__()
        raise AssertionError(f"no server:\n{self.printed}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _listens(self, address: str) -> bool:
        try:
            with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=5):
                return True
        except OSError:
            return False

    @property
    def path(self) -> str:
        """The path of the printed address."""
        return urlsplit(self.address).path

    def page(self) -> str:
        """The page at the printed address."""
        with urllib.request.urlopen(self.address, timeout=PATIENCE) as answer:
            assert answer.status == 200 and urlsplit(answer.url).path == self.path
            return answer.read().decode()

    def call(self, path: str, send: Any = None) -> Any:
        """What the server's interface answers; `send` is put there."""
        parts = urlsplit(self.address)
        data = None if send is None else json.dumps(send).encode()
        address = f"{parts.scheme}://{parts.netloc}/{path}?{parts.query}"
        request = urllib.request.Request(address, data, method="GET" if send is None else "PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)
