"""Sessions: states that clients go on from, and what of their steps a client may still ask for.

Everything here runs in the event loop's thread.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator

import numpy as np

from stcn_tf.web.engine import State, Temperatures


class RequestError(Exception):
    """What is wrong with a request, in one sentence, with the HTTP status that says so.

    Attributes:
        status: of HTTP; of a stream, 4000 + status is its close code.
        retry_seconds: after how long it may go better; None: nobody knows.
    """

    def __init__(self, status: int, message: str, retry_seconds: float | None = None):
        super().__init__(message)
        self.status = status
        self.retry_seconds = retry_seconds


class Session:
    """Some sequences that go on together, from one state.

    Args:
        state: after their beginnings.
        temperatures: of what comes next.
        rows: how many sequences.
        limit: steps that may be made in all.
        ahead: steps that may be made beyond those that the client has.

    Attributes:
        id: 128 random bits: who knows it may use the session.
        made: steps made so far.
        have: of these, how many the client said it has.
        wanted: how many it wants in all.
        is_paused: whether none are to be made for now.
        failure: why it cannot go on; "": it can.
        is_computing: whether its state is being worked on.
        is_closed: whether it has ended.
        stream: a mark of the stream that reads it, the newest one; None: nobody does.
    """

    def __init__(self, state: State, temperatures: Temperatures, rows: int, limit: int, ahead: int):
        self.id = secrets.token_urlsafe(16)
        self.state = state
        self.temperatures = temperatures
        self.rows = rows
        self.limit = limit
        self.ahead = ahead
        self.made = self.have = self.wanted = 0
        self.is_paused = self.is_computing = self.is_closed = False
        self.failure = ""
        self.stream: object | None = None
        self.last_used = time.monotonic()
        self._blocks: list[tuple[int, np.ndarray]] = []  # first step, [rows, steps, features]
        self._waiting: list[asyncio.Future] = []

    @property
    def due(self) -> int:
        """How many steps are to be made now."""
        if self.is_paused or self.failure or self.is_closed:
            return 0
        return max(min(self.wanted, self.limit, self.have + self.ahead) - self.made, 0)

    def take(self, have: int) -> None:
        """Forgets the steps that the client says it has.

        Raises:
            RequestError: there are not so many, or the client has said that it has more.
        """
        if not self.have <= have <= self.made:
            raise RequestError(
                409, f"have: {have}; accepted: {self.have} to {self.made}, the steps that are kept"
            )
        self.have = have
        self._blocks = [(first, x) for first, x in self._blocks if first + x.shape[1] > have]

    def add(self, x: np.ndarray, state: State) -> None:
        """Takes steps that were made, [rows, steps, features], and the state after them."""
        if np.isfinite(x).all():
            self._blocks.append((self.made, x))
            self.made += x.shape[1]
            self.state = state
        else:
            self.fail("the model's next values are not finite: begin with something else")
        self.notify()

    def fail(self, why: str) -> None:
        """Ends it, with a reason that is told."""
        self.failure = why
        self.notify()

    def after(self, step: int) -> np.ndarray | None:
        """The steps from that number on, [rows, steps, features]; None: there are none yet.

        Raises:
            RequestError: the client has said that it has later ones, so that these are gone.
        """
        if step < self.have:
            raise RequestError(
                409, f"steps from {step} on are gone: {self.have} were said to have arrived"
            )
        parts = [x[:, max(step - first, 0) :] for first, x in self._blocks]
        parts = [part for part in parts if part.shape[1]]
        return np.concatenate(parts, axis=1) if parts else None

    def touch(self) -> None:
        """Its client has said something."""
        self.last_used = time.monotonic()

    def close(self) -> None:
        """Lets those who wait know that it has ended."""
        self.is_closed = True
        self.notify()

    def notify(self) -> None:
        """Wakes those who wait for a change."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def changed(self) -> None:
        """Waits for the next change."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future


class Sessions:
    """The sessions that there are.

    Args:
        most: how many at once.
        idle_seconds: after how long without a message one ends.
    """

    def __init__(self, most: int, idle_seconds: float):
        self.most = most
        self.idle_seconds = idle_seconds
        self._by_id: dict[str, Session] = {}
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def reserve(self) -> None:
        """Keeps a place for a session that is being made; `add` or `release` must follow.

        Raises:
            RequestError: there are as many as there may be.
        """
        if len(self._by_id) + self._reserved >= self.most:
            oldest = min((session.last_used for session in self), default=time.monotonic())
            left = oldest + self.idle_seconds - time.monotonic()
            raise RequestError(
                503, f"{self.most} sessions are open, no more are accepted now", max(left, 1.0)
            )
        self._reserved += 1

    def release(self) -> None:
        """Gives up a place that was kept."""
        self._reserved -= 1

    def add(self, session: Session) -> None:
        """Puts a session into the place that was kept."""
        self.release()
        self._by_id[session.id] = session

    def find(self, session_id: str) -> Session:
        """The session of that id, which counts as used.

        Raises:
            RequestError: there is none.
        """
        session = self._by_id.get(session_id)
        if session is None:
            raise RequestError(404, "no such session: it has ended, or never was")
        session.touch()
        return session

    def end(self, session: Session) -> None:
        """Ends a session."""
        self._by_id.pop(session.id, None)
        session.close()

    def end_idle(self) -> None:
        """Ends those whose clients have been silent for too long."""
        before = time.monotonic() - self.idle_seconds
        for session in self:
            if session.last_used < before:
                self.end(session)
