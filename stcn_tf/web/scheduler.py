"""Runs what all clients ask for on one thread: the steps of their sessions as one batch.

A step of many sequences takes little longer than one of a single one, so that sessions that are
due are stepped together, first come, first served, some steps at a time: so many that a call takes
about `_SECONDS`, which is how long whoever comes next must wait.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from stcn_tf.support.errors import reason_of
from stcn_tf.web.engine import Engine
from stcn_tf.web.sessions import RequestError, Session

_SECONDS = 0.05
_MOST_STEPS = 32  # of a call
_MOST_WAITING = 64  # calls that are no steps

_LOG = logging.getLogger(__name__)

P, T = ParamSpec("P"), TypeVar("T")


class Scheduler:
    """The one thread that computes, and whose turn it is.

    Args:
        engine: the model.
        rows_at_once: sequences that are stepped together at most; a session that has more is
            stepped alone.

    Attributes:
        steps_made: of each sequence, all together, since the start.
        calls: how many calls they were made in.
    """

    def __init__(self, engine: Engine, rows_at_once: int):
        self._engine = engine
        self._rows_at_once = rows_at_once
        self._thread = ThreadPoolExecutor(1, "model")
        self._queue: deque[Session] = deque()
        self._work = asyncio.Event()
        self._waiting = 0
        self._step_seconds = _SECONDS / 4
        self.steps_made = self.calls = 0

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function on the thread, between two calls for steps.

        Raises:
            RequestError: too many wait already.
        """
        if self._waiting >= _MOST_WAITING:
            raise RequestError(503, "too many requests wait, no more are accepted now", 1.0)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))
        finally:
            self._waiting -= 1

    def look(self, session: Session) -> None:
        """Takes note of a session of which steps may have become due."""
        if session.due and not session.is_computing and session not in self._queue:
            self._queue.append(session)
            self._work.set()

    async def run(self) -> None:
        """Steps what is due, for ever."""
        while True:
            await self._work.wait()
            batch = self._next_batch()
            if not batch:
                self._work.clear()
                continue
            count = min(session.due for session in batch)
            count = min(count, _MOST_STEPS, max(1, int(_SECONDS / self._step_seconds)))
            await self._step(batch, count)
            for session in batch:
                self.look(session)

    def close(self) -> None:
        """Ends the thread after the call that it is in."""
        self._thread.shutdown(cancel_futures=True)

    def _next_batch(self) -> list[Session]:
        batch, rows = [], 0
        while self._queue:
            session = self._queue[0]
            if batch and rows + session.rows > self._rows_at_once:
                break
            self._queue.popleft()
            if session.due:
                batch.append(session)
                rows += session.rows
        return batch

    async def _step(self, batch: list[Session], count: int) -> None:
        states = [session.state for session in batch]
        temperatures = [session.temperatures for session in batch]
        for session in batch:
            session.is_computing = True
        started = time.perf_counter()
        try:
            made, states = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._engine.steps, states, count, temperatures
            )
        except Exception as error:
            # Nobody may wait for steps that never come, and others may still be served.
            _LOG.exception("steps of %d sessions failed", len(batch))
            for session in batch:
                session.fail(f"the model failed ({reason_of(error)})")
            return
        finally:
            for session in batch:
                session.is_computing = False
        seconds = (time.perf_counter() - started) / count
        self._step_seconds += 0.3 * (seconds - self._step_seconds)
        for session, x, state in zip(batch, made, states, strict=True):
            session.add(x, state)
        self.steps_made += count * sum(session.rows for session in batch)
        self.calls += 1
