"""Keeps one valid set of credentials at hand: fetched ahead of their end, on a thread of its own.

No request waits for a source as long as something valid is there. A source that fails is asked
again and again, and what it gave last is handed out until it really expires, never beyond. Due
times are held by two clocks: expiry is a matter of the wall clock, which may jump, and a pause
between attempts one of the monotonic clock.
"""

import threading
import time
from collections.abc import Callable

from kmstool import limits
from kmstool.errors import CredentialsError
from kmstool.parent.issued import Issued, LongTermKeysError

_LOOK_AGAIN = 30.0  # seconds between two looks at the wall clock
_REPEAT_REPORT = 60.0  # seconds until the same failure is reported again


class Keeper:
    """Asks `fetch` from its thread from `start` until `stop`.

    Args:
        fetch: gives a set of credentials or raises `CredentialsError`; may take its time.
        report: gets a line at each change and failure; never a secret. Called from the thread.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        fetch: Callable[[], Issued],
        *,
        report: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch = fetch
        self._report = report
        self._clock = clock
        self._changed = threading.Condition()
        self._issued: Issued | None = None
        self._lifetime: float | None = None  # of `_issued`, when it was new
        self._failure: CredentialsError | None = None
        self._failures = 0  # in a row
        self._attempts = 0
        self._attempted = 0.0  # monotonic; when the last one ended
        self._wanted = False
        self._stopping = False
        self._reported = ("", 0.0)
        self._thread = threading.Thread(target=self._run, name="credentials", daemon=True)

    def start(self, wait: float = limits.CREDENTIALS_START_SECONDS) -> None:
        """Starts, and waits for the first attempt's end, but not longer than `wait` seconds.

        Raises:
            LongTermKeysError: that is what the source has. Other failures are tried again.
        """
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._attempts > 0, wait)
            if isinstance(self._failure, LongTermKeysError):
                raise self._failure

    def stop(self) -> None:
        """Ends the thread; one that a source holds up is left behind, and ends with it."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def renew(self) -> None:
        """Has the source asked soon, however long what is at hand still lasts."""
        with self._changed:
            self._wanted = True
            self._changed.notify_all()

    def current(self, wait: float = limits.CREDENTIALS_WAIT_SECONDS) -> Issued:
        """Credentials that are valid now; where there are none, those of the next attempt.

        Args:
            wait: seconds, at most, for an attempt to end.

        Raises:
            CredentialsError: there are none, and why.
        """
        with self._changed:
            if (issued := self._valid()) is not None:
                return issued
            attempts = self._attempts
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._attempts > attempts or self._stopping or self._valid() is not None,
                wait,
            )
            if (issued := self._valid()) is not None:
                return issued
            reason = str(self._failure or "their source has not answered yet")
            if self._issued is not None:
                reason = (
                    f"those at hand ended at {self._issued.until}, and no others came: {reason}"
                )
            raise CredentialsError(reason)

    def _valid(self) -> Issued | None:
        if self._issued is None:
            return None
        left = self._issued.left(self._clock())
        return self._issued if left is None or left > limits.CREDENTIALS_LEFT_MIN else None

    def _run(self) -> None:
        while not self._stopping:
            pause = self._attempt()
            due, due_monotonic = self._clock() + pause, time.monotonic() + pause
            with self._changed:
                while not self._stopping:
                    left = min(due - self._clock(), due_monotonic - time.monotonic())
                    if self._wanted:
                        rested = time.monotonic() - self._attempted
                        left = min(left, limits.CREDENTIALS_RETRY_BASE - rested)
                    if left <= 0:
                        break
                    self._changed.wait(min(left, _LOOK_AGAIN))

    def _attempt(self) -> float:
        """Asks once; returns the seconds until the next time."""
        failure: CredentialsError | None = None
        issued: Issued | None = None
        with self._changed:
            self._wanted = False
        try:
            issued = self._fetch()
            left = issued.left(self._clock())
            if left is not None and left <= limits.CREDENTIALS_LEFT_MIN:
                failure = CredentialsError(f"the source gave some that end at {issued.until}")
        except CredentialsError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - nothing ends this thread
            failure = CredentialsError(f"the source failed ({type(error).__name__})")
        if failure is None and issued is not None:
            return self._take(issued)
        return self._fail(failure or CredentialsError("the source gave nothing"))

    def _take(self, issued: Issued) -> float:
        left = issued.left(self._clock())
        with self._changed:
            known = self._issued
            new = known is None or known.access_key_id != issued.access_key_id
            if new or known is None or known.expiration != issued.expiration:
                self._lifetime = left
            recovered = self._failure is not None
            self._issued, self._failure, self._failures = issued, None, 0
            self._ended()
        if new or recovered:
            self._report(f"credentials from {issued.method}, valid until {issued.until}")
        if left is None:
            return limits.CREDENTIALS_REREAD_SECONDS
        margin = min(limits.CREDENTIALS_REFRESH_SECONDS, (self._lifetime or left) / 2)
        # Within the margin the source still gave the old ones: EC2 has new ones soon.
        soon = min(limits.CREDENTIALS_RETRY_CAP, left / 4)
        return max(left - margin, soon, limits.CREDENTIALS_RETRY_BASE)

    def _fail(self, failure: CredentialsError) -> float:
        with self._changed:
            self._failure = failure
            self._failures += 1
            failures = self._failures
            valid = self._valid()
            self._ended()
        rest = f"those at hand are valid until {valid.until}" if valid else "there are none"
        line = f"no new credentials: {failure}; {rest}, and it is tried again"
        hint = f" (hint: {failure.hint})" if failure.hint and failures == 1 else ""
        if not (
            isinstance(failure, LongTermKeysError) and self._attempts == 1
        ):  # `start` raises it
            self._report_once(line, hint)
        # Doubled from one second on; an exponent beyond the cap's would be for nothing.
        return min(
            limits.CREDENTIALS_RETRY_BASE * 2.0 ** min(failures - 1, 10), _cap(valid, self._clock())
        )

    def _ended(self) -> None:
        self._attempts += 1
        self._attempted = time.monotonic()
        self._changed.notify_all()

    def _report_once(self, line: str, hint: str) -> None:
        """A source that is asked every second says the same every second."""
        before, when = self._reported
        now = time.monotonic()
        if line != before or now - when >= _REPEAT_REPORT:
            self._reported = (line, now)
            self._report(line + hint)


def _cap(valid: Issued | None, now: float) -> float:
    """The longest pause after a failure: shorter where little is left of what is at hand."""
    left = valid.left(now) if valid is not None else None
    if left is None:
        return limits.CREDENTIALS_RETRY_CAP
    return max(limits.CREDENTIALS_RETRY_BASE, min(limits.CREDENTIALS_RETRY_CAP, left / 4))
