"""The parent's end of a sandbox's interpreter: start it, ask it, and be sure that it ends."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trl_math.errors import TrlMathError
from trl_math.grading.sandbox_paths import devices, hidden_paths, library_paths, package_paths
from trl_math.grading.sandbox_wire import WireClosed, WireTimeout, receive, send


# What the interpreter is started with. Programs see no more than this: `-P -s -S` and a path of our own keep it from
# everything else. A set comes out in the same order each time, and a thread more would be a process more.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
# Where shared objects are, in case Python's own is found through it.
LIBRARY_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
START = "import sys; sys.path.append(sys.argv[1]); import sandbox_server; sandbox_server.main()"

START_SECONDS = 60.0
IMPORT_SECONDS = 120.0  # for packages, on a machine with other things to do
GRACE_SECONDS = 10.0  # beyond a program's deadline, which the server keeps itself
CLOSE_SECONDS = 2.0


class CannotConfine(TrlMathError):
    """This way of confining programs does not work here."""


class SandboxDied(TrlMathError):
    """The sandbox's interpreter ended or fell silent."""


class SandboxProcess:
    """An interpreter that runs programs one after the other."""

    def __init__(self, mode: str, places: dict[str, str]) -> None:
        self._folder: str | None = None  # the server makes and removes it; here in case it is killed
        self._loaded: set[str] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", "-c", START, str(Path(__file__).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT | {name: os.environ[name] for name in LIBRARY_VARIABLES if name in os.environ},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        settings = {
            "mode": mode,
            # With a file system of its own, it needs no folder of ours.
            "temporary": None if mode == "namespaces" else tempfile.gettempdir(),
            "readable": [*library_paths(), *package_paths(places)],
            "hidden": hidden_paths(),
            "devices": devices(),
            "packages": places,
        }
        try:
            reply = self._ask(settings, START_SECONDS)
        except BaseException:
            self.close()
            raise
        if "ready" not in reply:
            self.close()
            raise CannotConfine(str(reply.get("failed")))
        self._folder = reply["folder"]

    def run(self, request: dict[str, Any], preload: set[str]) -> dict[str, Any]:
        """Run one program, with these packages imported before it, and return what the server tells."""
        missing = sorted(preload - self._loaded)
        seconds = request["limits"]["seconds"] + GRACE_SECONDS + (IMPORT_SECONDS if missing else 0)
        reply = self._ask(request | {"preload": missing}, seconds)
        self._loaded |= preload
        if "not_confined" in reply:
            raise CannotConfine(reply["not_confined"])
        return reply

    def close(self) -> None:
        """End it, and whatever it runs. Nothing of it is left afterwards."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stderr.close()  # type: ignore[union-attr]
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            send(self._process.stdin.fileno(), message)  # type: ignore[union-attr]
            return receive(self._process.stdout.fileno(), seconds)  # type: ignore[union-attr]
        except WireTimeout as error:
            raise SandboxDied(f"The sandbox did not answer within {seconds:g} seconds.") from error
        except (WireClosed, json.JSONDecodeError) as error:
            raise SandboxDied(f"The sandbox ended unexpectedly.{self._last_words()}") from error

    def _last_words(self) -> str:
        """Return the last line that the interpreter wrote to its own stderr."""
        os.set_blocking(self._process.stderr.fileno(), False)  # type: ignore[union-attr]
        said = (self._process.stderr.read() or b"").decode(errors="replace").strip()  # type: ignore[union-attr]
        return f" It said: {said.splitlines()[-1][:300]}" if said else ""
