"""The addresses of targets' names: looked up again as they age, the last good answer kept.

`getaddrinfo` blocks, so it runs in a thread; it tells no time to live, so an answer is used for
`limits.FORWARD_RESOLVE_SECONDS` and then asked for again. An answer that once was good is used on
where the name server fails or is slow, and the report says so: an old address usually still works.
A connect that fails makes its answer old at once (`doubt`).
"""

import errno
import functools
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from typing import cast

from kmstool import limits
from kmstool.parent.dialling import SocketAddress, interleave
from kmstool.parent.loop import Loop, Timer
from kmstool.parent.metrics import Metrics
from kmstool.parent.settings import METADATA_WORDS, Target, is_metadata_service

LookUp = Callable[[str, int], Sequence[SocketAddress]]
Answer = tuple[SocketAddress, ...]  # empty: there is none


class Question:
    """One connection's wait for addresses."""

    __slots__ = ("_name", "_then", "timer")

    def __init__(self, name: "_Name", then: Callable[[Answer], None]) -> None:
        self._name = name
        self._then = then
        self.timer: Timer | None = None

    def cancel(self) -> None:
        """It is not answered any more."""
        self._name.questions.discard(self)
        if self.timer is not None:
            self.timer.cancel()

    def answer(self, addresses: Answer) -> None:
        """Answers it, once."""
        self.cancel()
        self._then(addresses)


class Resolver:
    """Answers questions on the loop's thread.

    Args:
        report: gets a line when a name stops resolving, resolves again, or moves.
        look_up: gives the addresses of a name or raises OSError; called in a thread.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        report: Callable[[str], None],
        metrics: Metrics,
        look_up: LookUp | None = None,
    ) -> None:
        self._loop = loop
        self._report = report
        self._metrics = metrics
        self._look_up = look_up or system_look_up
        self._names: dict[Target, _Name] = {}

    def ask(self, target: Target, then: Callable[[Answer], None]) -> Question:
        """Calls `then` with the addresses of a target: soon or later, never from here.

        It waits for a name server no longer than `limits.FORWARD_RESOLVE_PATIENCE` where an older
        answer is there, and without a bound where none is: whoever asks has a deadline.
        """
        name = self._names.get(target)
        if name is None:
            name = self._names[target] = _Name(target, self._loop, self)
        return name.ask(then)

    def doubt(self, target: Target, since: float) -> bool:
        """What was answered before `since` did not work.

        Returns:
            False where asking again brings nothing new: the target is an address.
        """
        name = self._names.get(target)
        return name is not None and name.doubt(since)

    def keep(self, targets: Sequence[Target]) -> None:
        """Forgets all other names."""
        for target in set(self._names) - set(targets):
            if not self._names[target].questions:
                del self._names[target]

    def start(self, target: Target, done: Callable[[Answer | OSError], None]) -> None:
        """Looks up in a thread of its own; a daemon, since it may never end."""

        def run() -> None:
            result: Answer | OSError
            try:
                result = _usable(self._look_up(target.host, target.port))
            except OSError as error:
                result = error
            self._loop.call_from_thread(functools.partial(done, result))

        try:
            threading.Thread(target=run, name=f"look-up {target.host}", daemon=True).start()
        except RuntimeError as error:  # no more threads
            failure = OSError(errno.EAGAIN, str(error))
            self._loop.call_from_thread(functools.partial(done, failure))

    def failed(self, target: Target, reason: str | None) -> None:
        """Counts a failure and, where `reason` is given, tells of it."""
        self._metrics.counter(
            "kmstool_forward_name_failures_total",
            "Look-ups of a target's name that failed.",
            target=str(target),
        ).value += 1
        if reason is not None:
            self.tell(reason)

    def tell(self, line: str) -> None:
        """Reports something worth knowing."""
        self._report(line)


class _Name:
    """What is known of one target's name."""

    def __init__(self, target: Target, loop: Loop, resolver: Resolver) -> None:
        self._target = target
        self._loop = loop
        self._resolver = resolver
        self.questions: set[Question] = set()
        self._numeric = _numeric(target)
        self._good: Answer = self._numeric
        self._fresh_until = -1.0  # of `_good`
        self._good_at = -1.0
        self._retry_at = -1.0  # not before, after a failure
        self._failing = False
        self._asked_at: float | None = None  # of the look-up under way

    def ask(self, then: Callable[[Answer], None]) -> Question:
        question = Question(self, then)
        self.questions.add(question)
        now = self._loop.now
        if self._numeric or now < self._fresh_until:
            self._soon(question, now)
            return question
        if self._asked_at is None and now >= self._retry_at:
            self._asked_at = now
            self._resolver.start(self._target, self._answered)
        if self._asked_at is None:
            self._soon(question, now)  # it has just failed
        elif self._good:
            self._soon(question, self._asked_at + limits.FORWARD_RESOLVE_PATIENCE)
        return question

    def doubt(self, since: float) -> bool:
        if self._good_at <= since:
            self._fresh_until = -1.0
        return not self._numeric

    def _soon(self, question: Question, when: float) -> None:
        question.timer = self._loop.call_at(when, lambda: question.answer(self._good))

    def _answered(self, result: Answer | OSError) -> None:
        self._asked_at = None
        now = self._loop.now
        if isinstance(result, OSError) or not result:
            self._retry_at = now + limits.FORWARD_RESOLVE_RETRY
            self._failed(result.strerror if isinstance(result, OSError) else None)
        else:
            if self._good and set(result) != set(self._good):
                self._resolver.tell(f"{self._target.host} is now at {_listed(result)}")
            if self._failing:
                self._failing = False
                self._resolver.tell(f"the name {self._target.host} resolves again")
            self._good = result
            self._good_at = now
            self._fresh_until = now + limits.FORWARD_RESOLVE_SECONDS
        for question in list(self.questions):
            question.answer(self._good)

    def _failed(self, reason: str | None) -> None:
        line = None
        if not self._failing:
            kept = f"its last addresses are used on: {_listed(self._good)}" if self._good else ""
            line = (
                f"the name {self._target.host} does not resolve ({reason or 'it has no address'});"
                f" {kept or 'its connections are refused until it does'}"
            )
        self._failing = True
        self._resolver.failed(self._target, line)


def system_look_up(host: str, port: int) -> Sequence[SocketAddress]:
    """The system's way (files, DNS), in the system's order (RFC 6724)."""
    infos = socket.getaddrinfo(
        host.encode("ascii"), port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    # mypy: IPv6 addresses are pairs of bytes where Python was built without IPv6.
    return [(family, cast("tuple[str | int, ...]", address)) for family, _, _, _, address in infos]


def _usable(found: Sequence[SocketAddress]) -> Answer:
    """Those that are tried, in their order. Raises OSError where a liar has answered."""
    allowed = [one for one in dict.fromkeys(found) if not is_metadata_service(str(one[1][0]))]
    if found and not allowed:
        raise OSError(errno.EACCES, METADATA_WORDS)
    return interleave(allowed)[: limits.FORWARD_ADDRESSES_MAX]


def _numeric(target: Target) -> Answer:
    try:
        version = ipaddress.ip_address(target.host).version
    except ValueError:
        return ()
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return ((family, (target.host, target.port)),)


def _listed(addresses: Answer) -> str:
    return ", ".join(str(address[0]) for _family, address in addresses)
