"""An iterator over what an asynchronous producer makes in a thread of its own.

The producer goes on while the consumer is busy, so that requests are neither late nor timed out because a sample is
being written. When the consumer stops (by `break`, `close` or an interrupt), the producer is cancelled and waited for.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar


T = TypeVar("T")


@dataclass
class _End:
    error: BaseException | None = None


def iterate_in_background(
    produce: Callable[["queue.SimpleQueue[T | _End]"], Coroutine[Any, Any, None]],
) -> Iterator[T]:
    """Yield what `produce` puts into the queue that it is given; raise what it raises, after all that came before."""
    results: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(produce(results))
    # A daemon: an iterator that nobody closed must not keep the interpreter from exiting.
    thread = threading.Thread(target=_work, args=(loop, task, results), name="trl-math-producer", daemon=True)
    thread.start()
    try:
        while True:
            result = results.get()
            if not isinstance(result, _End):
                yield result
            elif result.error is None:
                return
            else:
                raise result.error
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def _work(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", results: "queue.SimpleQueue[Any]") -> None:
    end = _End()
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        pass
    except BaseException as error:
        end = _End(error)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        results.put(end)
