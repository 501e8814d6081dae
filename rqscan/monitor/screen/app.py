"""App: the loop of `rqscan top` on a terminal: look when it is time · draw · wait for keys."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import structs

from rqscan.errors import RedisUnavailable, RqscanError
from rqscan.monitor.records import Snapshot
from rqscan.monitor.screen.aside import Aside, Outcome
from rqscan.monitor.screen.board import arrange
from rqscan.monitor.screen.columns import Pane
from rqscan.monitor.screen.fit import ENDLESS, Watch, fit, screen
from rqscan.monitor.screen.keys import press
from rqscan.monitor.screen.paint import Painter
from rqscan.monitor.screen.state import Here, Line, Order, Page, Question, State, Subject, Wish
from rqscan.monitor.screen.terminal import Terminal

__all__ = ["Hands", "Look", "run"]

Look = Callable[[], Snapshot]

RETRY_S = 1.0
"""Redis, when away, is tried again so often."""

TICK_S = 1.0
"""How often the clock moves on a screen that nothing else moves."""


class Hands(Protocol):
    """What the loop has done for it; each may wait for Redis, and raise any RqscanError."""

    @property
    def where(self) -> str:
        """Redis' address, without a password."""

    def look(self) -> Snapshot:
        """Give the fleet as it is; while Redis is away the last look, which says so."""

    def read(self, subject: Subject, shot: Snapshot) -> Page:
        """Give what is known of a subject."""

    def ask(self, order: Order, shot: Snapshot) -> Question:
        """Count what an order means."""

    def act(self, order: Order) -> str:
        """Carry out an order that was answered with yes, and tell what came of it."""


def run(
    terminal: Terminal, hands: Hands, state: State, refreshes: int | None, *, is_ascii: bool
) -> None:
    """Show snapshots until the user or `refreshes` ends it.

    Raises:
        RedisUnavailable: the very first look failed; later ones are tried again for ever.
    """
    _Loop(terminal, hands, state, refreshes, is_ascii=is_ascii).run()


class _Loop:
    def __init__(
        self,
        terminal: Terminal,
        hands: Hands,
        state: State,
        refreshes: int | None,
        *,
        is_ascii: bool,
    ) -> None:
        self._terminal, self._hands, self._state = terminal, hands, state
        self._left, self._is_ascii = refreshes, is_ascii
        self._aside, self._painter = Aside(terminal.wake), Painter()
        self._shot: Snapshot | None = None
        self._board: Mapping[str, Pane] = {}
        self._drawn: object = None
        self._due_at = self._asked_at = self._seen_at = time.monotonic()

    def run(self) -> None:
        while not self._state.is_over:
            if not self._state.is_frozen and time.monotonic() >= self._due_at:
                if self._left == 0:
                    return
                self._look()
            self._draw()
            for key in self._terminal.wait(self._pause_s()):
                self._press(key)
            for outcome in self._aside.ended():
                self._take(outcome)

    def _look(self) -> None:
        if self._aside.start("look", self._hands.look):
            self._asked_at = time.monotonic()
            self._due_at = float("inf")

    def _pause_s(self) -> float | None:
        due_s = float("inf") if self._state.is_frozen else self._due_at - time.monotonic()
        is_still = self._state.is_frozen or (self._shot and not self._shot.redis.up)
        pause_s = min(due_s, TICK_S) if is_still else due_s
        return None if pause_s == float("inf") else max(0.0, pause_s)

    def _draw(self) -> None:
        shot, now = self._shot, time.monotonic()
        is_away = shot is not None and not shot.redis.up
        watch = Watch(
            age_s=now - self._seen_at if is_away or self._state.is_frozen else 0.0,
            retry_s=max(0.0, self._due_at - now) if is_away and self._due_at < now + 60 else None,
            where=self._hands.where,
            interval_s=self._state.interval_s,
        )
        size = self._terminal.size()
        frame = id(shot), self._state, size, int(watch.age_s), int(watch.retry_s or 0)
        if frame == self._drawn:  # a look begins, and nothing on the screen tells of it
            return
        self._drawn = frame
        if shot:
            self._board = arrange(shot, self._state.view)
        lines = screen(shot, size, self._state, watch, self._board, is_ascii=self._is_ascii)
        self._painter.draw(lines, size, is_dim=is_away)

    def _press(self, key: str) -> None:
        if self._shot:
            self._board = arrange(self._shot, self._state.view)
        self._state = press(self._state, key, self._board)
        wish = self._state.wish
        self._state = structs.replace(self._state, wish=None)
        if wish is not None:
            self._fulfil(wish)

    def _fulfil(self, wish: Wish) -> None:
        shot = self._shot
        if isinstance(wish, str):
            self._do(wish)
        elif shot is None:
            self._say("nothing is known yet")
        elif isinstance(wish, Subject):
            if not self._aside.start("read", lambda: self._hands.read(wish, shot)):
                self._say("what was asked before is still being read")
        elif not shot.redis.up:
            self._say("Redis is away: nothing can be changed now")
        elif isinstance(wish, Order):
            self._begin("ask", lambda: self._hands.ask(wish, shot))
        else:
            self._begin("act", lambda: self._hands.act(wish.order))

    def _do(self, what: Here) -> None:
        if what == "refresh":
            self._look()
        elif what == "save":
            self._save()
        else:
            (self._terminal.stop if what == "shell" else self._terminal.clear)()
            self._drawn = None

    def _begin(self, kind: str, work: Callable[[], object]) -> None:
        if "act" in self._aside.busy or not self._aside.start(kind, work):
            self._say("what was asked before is still being done")

    def _take(self, done: Outcome) -> None:
        if done.kind == "look":
            self._take_look(done)
        elif isinstance(done.error, RqscanError):
            self._say(str(done.error))
        elif done.error:
            raise done.error
        elif done.kind == "read":
            self._state = structs.replace(self._state, pages=(*self._state.pages, done.value))
        elif done.kind == "read again":
            self._renew(done.value)
        elif done.kind == "ask":
            self._ask(done.value)
        else:
            self._say(done.value)
            self._due_at = min(self._due_at, time.monotonic())

    def _take_look(self, done: Outcome) -> None:
        if done.error and (self._shot is None or not isinstance(done.error, RedisUnavailable)):
            raise done.error
        if done.error is None:
            self._shot = done.value
            self._left = self._left and self._left - 1
            self._read_again()
        now, pause_s = time.monotonic(), self._state.interval_s
        if self._shot and self._shot.redis.up:
            self._seen_at = now
            self._due_at = max(now, self._asked_at + pause_s)
        else:
            self._due_at = now + min(pause_s, RETRY_S)

    def _read_again(self) -> None:
        shot, pages = self._shot, self._state.pages
        if shot and shot.redis.up and pages:
            subject = pages[-1].subject
            self._aside.start("read again", lambda: self._hands.read(subject, shot))

    def _renew(self, page: Page) -> None:
        *under, last = self._state.pages or (None,)
        if last and last.subject == page.subject:
            at = min(last.at, max(0, len(page.lines) - 1))
            pages = (*filter(None, under), structs.replace(page, at=at))
            self._state = structs.replace(self._state, pages=pages)

    def _ask(self, question: Question) -> None:
        if question.count == 0:
            self._say(question.text)
        elif self._state.dialog is None:
            line = Line("answer", question=question)
            self._state = structs.replace(self._state, dialog=line, message="")
        else:
            self._say("another line is being typed: nothing was done")

    def _say(self, message: str) -> None:
        self._state = structs.replace(self._state, message=message)

    def _save(self) -> None:
        """Write the snapshot into the working folder: all of it, as text and as JSON."""
        if self._shot is None:
            return
        path = Path(f"rqscan-top-{self._shot.at:%Y%m%dT%H%M%SZ}")
        width, _ = self._terminal.size()
        lines = fit(self._shot, max(width, 160), ENDLESS, is_ascii=self._is_ascii)
        try:
            text = "".join(f"{line.plain.rstrip()}\n" for line in lines)
            path.with_suffix(".txt").write_text(text, "utf-8")
            path.with_suffix(".json").write_bytes(msgspec.json.encode(self._shot) + b"\n")
        except OSError as e:
            self._say(f"cannot write {e.filename}: {e.strerror}")
        else:
            self._say(f"saved {path}.txt and .json in {Path.cwd()}")
