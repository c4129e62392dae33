"""Servers that fail: no failure loses or doubles a sample, and nothing is tried for ever."""

import asyncio
import contextlib
import email.utils
import logging
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from scripted_server import CUT, GARBAGE, HANG, REFUSE, REQUESTS, ScriptedServer, answer, draw, error, once, texts_of
from scripted_server import quick as quick

from trl_math.errors import ServerError
from trl_math.generation import Request, server_pool
from trl_math.generation.server import ServerBackend
from trl_math.generation.server_messages import retry_after
from trl_math.generation.server_pool import ServerPool, TryAgain
from trl_math.records import Sampling


def producers():
    return [thread for thread in threading.enumerate() if thread.name == "trl-math-producer"]


# Passing trouble.


@pytest.mark.parametrize(
    "misdeed",
    [
        *(error(status, "for now") for status in (408, 409, 425, 429, 500, 502, 503, 504)),
        error(429, "slowly", {"Retry-After": "0.05"}),
        HANG,
        REFUSE,
        CUT,
        GARBAGE,
        {"error": "with status 200"},
        [],
        {"choices": []},
        answer({"prompt": 1}, finish_reason="abort"),
        answer({"prompt": 1}, finish_reason=None),
    ],
    ids=str,
)
def test_what_fails_once_is_done_again(misdeed):
    with ScriptedServer(once(misdeed)) as server:
        samples = draw(ServerBackend(server.url, "m", timeout=0.5, concurrency=4))
        assert [sample.text for sample in samples] == texts_of(REQUESTS)
        assert len(server.bodies) == len(REQUESTS) + 1


def test_a_server_is_left_alone_as_long_as_it_asks():
    with ScriptedServer(once(error(429, "slowly", {"Retry-After": "0.4"}))) as server:
        draw(ServerBackend(server.url, "m", concurrency=1))
    assert server.times[1] - server.times[0] >= 0.4


def test_retry_after_is_a_number_or_a_date():
    assert retry_after("3") == 3 and retry_after(None) == retry_after("soon") == retry_after("-1") == 0
    assert 50 < retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60


def test_every_sample_arrives_once_whatever_fails():
    rng = random.Random(0)
    misdeeds = [REFUSE, CUT, GARBAGE, HANG, error(500, "oops"), error(503, "wait", {"Retry-After": "0.01"})]

    def script(number, body):
        return rng.choice(misdeeds) if rng.random() < 0.2 else answer(body)

    requests = [Request([index]) for index in range(150)]
    with ScriptedServer(script) as one, ScriptedServer(script) as two, ScriptedServer(script) as three:
        backend = ServerBackend([one.url, two.url, three.url], "m", timeout=0.5, concurrency=8)
        assert [sample.text for sample in draw(backend, requests)] == texts_of(requests)
        assert len(one.bodies) + len(two.bodies) + len(three.bodies) > len(requests)


def test_others_take_the_work_of_a_server_that_is_gone(caplog):
    with ScriptedServer() as one, ScriptedServer() as two:
        backend = ServerBackend([one.url, two.url], "m", concurrency=2)
        two.close()
        assert [sample.text for sample in draw(backend)] == texts_of(REQUESTS)
        assert len(one.bodies) == len(REQUESTS) and not two.bodies
    assert f"{two.url}: ConnectError" in caplog.text and "Leaving it alone" in caplog.text


def test_a_server_that_comes_back_gets_work_again(caplog):
    caplog.set_level(logging.INFO, "trl_math.generation.server_pool")
    requests = [Request([index]) for index in range(40)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ScriptedServer(delay=0.02))
        samples = ServerBackend(server.url, "m", concurrency=2).stream(requests, Sampling())
        found = [next(samples) for _ in range(5)]
        server.close()
        threading.Timer(
            0.3, lambda: stack.enter_context(ScriptedServer(port=server.port))
        ).start()  # as when it is started again
        found += list(samples)
    assert sorted(index for index, _ in found) == list(range(40))
    assert "is back" in caplog.text


def hang_on(number):
    return lambda _, body: HANG if body["prompt"][0] == number else answer(body)


def test_what_a_replaced_server_still_held_is_drawn_anew(monkeypatch):
    """A server that is told to stop may never finish what it has; this shows before requests time out."""
    monkeypatch.setattr(server_pool, "HEARTBEAT", 0.05)
    with ScriptedServer(hang_on(0)) as server:
        samples = ServerBackend(server.url, "m", concurrency=2).stream(REQUESTS[:4], Sampling())
        found = [next(samples) for _ in range(3)]  # what is left hangs
        server.stop_listening()
        time.sleep(0.3)
        with ScriptedServer(port=server.port):
            found += list(samples)
    assert sorted(index for index, _ in found) == list(range(4))


def test_what_a_server_that_is_gone_still_held_is_drawn_elsewhere(monkeypatch):
    monkeypatch.setattr(server_pool, "HEARTBEAT", 0.05)
    monkeypatch.setattr(server_pool, "GRACE", 0.2)
    with ScriptedServer(hang_on(0)) as one, ScriptedServer() as two:
        samples = ServerBackend([one.url, two.url], "m", concurrency=2).stream(REQUESTS, Sampling())
        found = [next(samples)]
        one.stop_listening()
        found += list(samples)
    assert sorted(index for index, _ in found) == list(range(len(REQUESTS)))


def test_a_server_that_is_slow_is_not_taken_for_gone(monkeypatch, caplog):
    monkeypatch.setattr(server_pool, "HEARTBEAT", 0.05)
    monkeypatch.setattr(server_pool, "GRACE", 0.0)
    with ScriptedServer(delay=0.5) as server:
        assert [sample.text for sample in draw(ServerBackend(server.url, "m"))] == texts_of(REQUESTS)
    assert len(server.bodies) == len(REQUESTS) and not caplog.records


def test_patience_ends(caplog):
    with ScriptedServer() as one, ScriptedServer() as two:
        samples = ServerBackend([one.url, two.url], "m", concurrency=2, patience=0.3).stream(REQUESTS, Sampling())
        next(samples)
        one.close()
        two.close()
        with pytest.raises(ServerError, match=r"127.0.0.1:\d+/v1 has failed for \d+ s, and so have the other 1") as e:
            list(samples)
    assert "Patience was for 0.3 s" in str(e.value) and "the same command goes on" in str(e.value)
    assert "\n" not in str(e.value) and not producers()


@pytest.mark.parametrize("misdeed", [error(500, "broken"), HANG, error(429, "quota"), error(503, "soon")], ids=str)
def test_patience_ends_with_a_server_that_answers_but_never_samples(misdeed):
    with ScriptedServer(lambda number, body: misdeed) as server:
        backend = ServerBackend(server.url, "m", concurrency=2, timeout=0.1, patience=0.3)
        with pytest.raises(ServerError, match=f"127.0.0.1:{server.port}/v1"):
            draw(backend)


def test_a_request_that_no_server_can_take_does_not_hold_up_the_others():
    def script(number, body):
        return error(500, "division by zero") if body["prompt"][0] == 0 else answer(body)

    with ScriptedServer(script) as server:
        found = []
        with pytest.raises(ServerError, match=r"A request failed .* division by zero"):
            for sample in ServerBackend(server.url, "m", concurrency=2, patience=0.3).stream(REQUESTS, Sampling()):
                found.append(sample)
    assert sorted(index for index, _ in found) == list(range(1, len(REQUESTS)))


# Many at once, and stopping.


def test_no_more_than_allowed_is_in_flight():
    requests = [Request([index]) for index in range(60)]
    with ScriptedServer(delay=0.02) as one, ScriptedServer(delay=0.02) as two:
        draw(ServerBackend([one.url, two.url], "m", concurrency=5), requests)
    assert 1 < one.max_in_flight <= 5 and 1 < two.max_in_flight <= 5
    assert one.in_flight == two.in_flight == 0


def test_a_slow_consumer_is_waited_for():
    requests = [Request([index]) for index in range(100)]
    with ScriptedServer() as server:
        samples = ServerBackend(server.url, "m", concurrency=4).stream(requests, Sampling())
        found = [next(samples)]
        time.sleep(0.5)
        assert len(server.bodies) <= 1 + 4 + 4
        found += list(samples)
    assert sorted(index for index, _ in found) == list(range(100))


def test_a_consumer_that_stops_cancels_what_is_under_way():
    def script(number, body):
        return answer(body) if number == 0 else HANG

    with ScriptedServer(script) as server:
        backend = ServerBackend(server.url, "m", concurrency=4)
        for _ in backend.stream(REQUESTS, Sampling()):
            assert producers()
            break
        assert not producers()
        server.script = once(HANG)
        server.bodies.clear()
        with pytest.raises(ZeroDivisionError):
            for _ in backend.stream(REQUESTS, Sampling()):
                raise ZeroDivisionError
        assert not producers()
        assert draw(ServerBackend(server.url, "m"), []) == []


def test_an_interrupt_ends_at_once(tmp_path):
    """A real process, interrupted while it waits for a server that hangs."""
    code = """
        import sys
        from trl_math.generation import Request
        from trl_math.generation.server import ServerBackend
        from trl_math.records import Sampling
        for _ in ServerBackend(sys.argv[1], "m").stream([Request([1])] * 10, Sampling()):
            pass
        """
    with ScriptedServer(lambda number, body: HANG) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), server.url], stderr=subprocess.PIPE, text=True
        )
        try:
            while len(server.bodies) < 10:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert "KeyboardInterrupt" in said and process.returncode == -signal.SIGINT


# The pool alone.


def pooled(servers, draw_one, requests, concurrency=4, patience=5.0):
    """Run a pool of named servers and return the answers."""
    found = {}

    async def greet(server):
        pass

    async def run():
        pool = ServerPool(
            [(name, name) for name in servers],
            draw_one,
            greet,
            concurrency=concurrency,
            patience=patience,
        )
        await pool.run(requests, lambda index, answer: found.update({index: answer}))

    asyncio.run(run())
    return found


def test_work_goes_where_the_fewest_are_in_flight():
    num_quick = 0

    async def draw_one(server, request):
        nonlocal num_quick
        num_quick += server == "quick"
        while server == "slow" and num_quick < 38:
            await asyncio.sleep(0.001)
        return server

    assert sorted(pooled("abc", draw_one, range(6)).values()) == ["a", "a", "b", "b", "c", "c"]
    found = pooled(["slow", "quick"], draw_one, range(40), concurrency=2)
    assert sorted(found.values()).count("slow") == 2


def test_a_request_is_rather_not_tried_again_where_it_failed():
    tried = []

    async def draw_one(server, request):
        tried.append(server)
        if server == "a":
            raise TryAgain("not here")
        return server

    assert pooled("ab", draw_one, [0]) == {0: "b"}
    assert tried in (["b"], ["a", "b"])


def test_failing_together_counts_once(caplog):
    """When a server goes, all that is in flight fails: one failure, and one short rest."""
    num_failed = 0

    async def draw_one(server, request):
        nonlocal num_failed
        await asyncio.sleep(0.001 * request)
        if num_failed < 8:
            num_failed += 1
            raise TryAgain("gone")
        return request

    assert pooled("a", draw_one, range(8), concurrency=8) == {index: index for index in range(8)}
    assert caplog.text.count("Leaving it alone") == 1


def test_an_error_of_ours_is_not_tried_again():
    async def draw_one(server, request):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        pooled("a", draw_one, range(8))
