"""An OpenAI-compatible server that does what it is told to, failures included."""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trl_math.generation import Request, server_messages, server_pool
from trl_math.records import Sampling


# What a script may return instead of an answer.
HANG, REFUSE, CUT, GARBAGE = "hang", "refuse", "cut", "garbage"
MODEL = {"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 100}


def answer(body, text=None, **choice):
    """Return a completion (or a chat's) that names the prompt it answers."""
    prompt = body.get("prompt", body.get("messages"))
    said = f"answer to {prompt}" if text is None else text
    told = {"index": 0, "finish_reason": "stop", "logprobs": None}
    told |= {"message": {"role": "assistant", "content": said}} if "messages" in body else {"text": said}
    if body.get("return_token_ids"):
        told["token_ids"] = [7, 8, 2]
    return {"choices": [told | choice], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}


def error(status, message, headers=(), **fields):
    """Return an error answer."""
    return status, {"error": {"message": message, **fields}}, dict(headers)


class ScriptedServer:
    """Answers the n-th request for a sample with `script(n, body)`: JSON, (status, JSON, headers), or a misdeed."""

    def __init__(self, script=lambda number, body: answer(body), models=(MODEL,), delay=0.0, port=0):
        self.script, self.models, self.delay = script, models, delay
        self.bodies, self.headers, self.times, self.paths = [], [], [], []
        self.in_flight = self.max_in_flight = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.is_stopped = False
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = type("Server", (ThreadingHTTPServer,), {"request_queue_size": 256})(
            ("127.0.0.1", port), handler
        )
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.handle_error = lambda *args: None  # a client that hangs up is part of the script
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self._closing.set()
        self.stop_listening()

    def stop_listening(self):
        """Take no new connections and no new requests, and leave the connections that wait for an answer open."""
        self.is_stopped = True
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def counted(self):
        with self._lock:
            self.in_flight += 1
            self.max_in_flight = max(self.in_flight, self.max_in_flight)
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1

    def note(self, path, body, headers):
        with self._lock:
            self.paths.append(path)
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            return len(self.bodies) - 1

    def wait(self):
        self._closing.wait(30)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.owner.is_stopped:  # a connection from before
            return self._hang_up()
        if self.path == "/version":
            return self._say(200, {"version": "0.30.0"})
        models = self.owner.models
        return self._say(models, {}) if isinstance(models, int) else self._say(200, {"data": list(models)})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.owner.is_stopped:
            return self._hang_up()
        with self.owner.counted():
            number = self.owner.note(self.path, body, dict(self.headers))
            time.sleep(self.owner.delay)
            said = self.owner.script(number, body)
            if said == HANG:
                self.owner.wait()
            if said in (HANG, REFUSE):
                return self._hang_up()
            if said == CUT:
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                return self._hang_up()
            if said == GARBAGE:
                return self._say(200, '{"choices": [{"te')
        return self._say(*said) if isinstance(said, tuple) else self._say(200, said)

    def _say(self, status, said, headers=None):
        data = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def free_port():
    """Return a port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


REQUESTS = [Request([index, 5, 6], seed=100 + index) for index in range(8)]
CHAT = [Request([], prompt=[{"role": "user", "content": f"{index}?"}]) for index in range(3)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Where this is imported, rests are short, and every test warns anew."""
    monkeypatch.setattr(server_pool, "FIRST_REST", 0.02)
    monkeypatch.setattr(server_pool, "LONGEST_REST", 0.1)
    monkeypatch.setattr(server_messages, "_warned", set())
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def draw(backend, requests=REQUESTS, sampling=None):
    """Return the samples in order, after making sure that there is one for each request."""
    samples = list(backend.stream(requests, sampling or Sampling(max_tokens=10)))
    assert sorted(index for index, _ in samples) == list(range(len(requests)))
    return [completion for _, completion in sorted(samples, key=lambda sample: sample[0])]


def texts_of(requests):
    """Return what `answer` says to them."""
    return [f"answer to {list(request.prompt_ids) or request.prompt}" for request in requests]


def once(misdeed):
    """Return a script that does `misdeed` for the first request."""
    return lambda number, body: misdeed if number == 0 else answer(body)
