"""One signed request to KMS and its answer: connection kept, credentials fresh, retries bounded.

Knows nothing of attestation or of what an answer means; `direct.py` and the administration of keys
stand on it. Every attempt asks its caller for the body anew, so a retry never carries an old
attestation document. The deadline covers the whole of it: connects, attempts and pauses.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from kmstool import limits
from kmstool.enclave.credentials import Credentials
from kmstool.enclave.http import HttpAnswer, HttpConnection
from kmstool.enclave.sigv4 import sign
from kmstool.endpoint import Deadline, pause_before_retry
from kmstool.errors import KmsError, TransportError
from kmstool.protocol import target_header
from kmstool.refusals import parse_error

Carried = TypeVar("Carried")

# What KMS calls credentials that cannot work any more, whatever they said of their expiry.
_STALE_CREDENTIALS = frozenset(
    {"ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId"}
)
_CREDENTIALS_MARGIN = 60.0  # seconds before their expiry at which credentials are fetched again
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Exchange:
    """A way to KMS for one process. Not for several threads at once: it owns one connection.

    Attributes:
        host, region: as they were given.

    Args:
        dial: opens a connection whose peer is authenticated as `host`, within a deadline.
        host: the name that the connection's certificate was checked against.
        region: for the signature.
        load_credentials: called when credentials are first needed, before they expire, and after
            KMS refused them as stale.
        timeout: seconds for one whole call.
        trace: called with one line for each step; never with a secret.
    """

    def __init__(
        self,
        *,
        dial: Callable[[Deadline], HttpConnection],
        host: str,
        region: str,
        load_credentials: Callable[[Deadline], Credentials],
        timeout: float = limits.DEADLINE,
        trace: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self.region = region
        self._dial = dial
        self._load_credentials = load_credentials
        self._timeout = timeout
        self._trace = trace
        self._clock = clock
        self._sleep = sleep
        self._credentials: Credentials | None = None
        self._connection: HttpConnection | None = None

    def call(
        self,
        operation: StrEnum,
        prepare: Callable[[], tuple[bytes, Carried]],
        *,
        once: bool = False,
    ) -> tuple[HttpAnswer, Carried]:
        """Sends what `prepare` makes and returns KMS' answer of status 200.

        Args:
            operation: a member whose text is the API's name of it.
            prepare: makes the JSON body of one attempt, and whatever belongs to that attempt alone;
                of the attempt that succeeded, that comes back beside the answer.
            once: try again only as long as nothing was sent: for what KMS would do twice.

        Raises:
            KmsError: KMS refused, after the retries that AWS documents as useful.
            TransportError: KMS could not be reached within the deadline.
            CredentialsError: no usable credentials. Whatever `prepare` raises.
        """
        deadline = Deadline(self._timeout)
        attempt = 0
        sent = False

        def prepare_and_note() -> tuple[bytes, Carried]:
            nonlocal sent
            sent = True
            return prepare()

        while True:
            attempt += 1
            try:
                return self._attempt(operation, prepare_and_note, deadline)
            except (TransportError, KmsError) as error:
                self.close()
                if once and sent:
                    raise
                pause = pause_before_retry(attempt, error, deadline)
                self._trace(
                    f"{operation}: attempt {attempt} of {limits.RETRY_ATTEMPTS} failed: {error};"
                    f" trying again in {pause:.2f} s"
                )
                self._sleep(pause)

    def close(self) -> None:
        """Closes the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(
        self,
        operation: StrEnum,
        prepare: Callable[[], tuple[bytes, Carried]],
        deadline: Deadline,
    ) -> tuple[HttpAnswer, Carried]:
        credentials = self._fresh_credentials(deadline)
        if self._connection is None or not self._connection.reusable:
            self.close()
            self._connection = self._dial(deadline)
        body, carried = prepare()
        headers = sign(
            host=self.host,
            region=self.region,
            target=target_header(operation),
            body=body,
            credentials=credentials,
            now=datetime.fromtimestamp(self._clock(), UTC),
        )
        self._trace(f"{operation}: sending {len(body)} bytes to {self.host}")
        answer = self._connection.post(headers, body, deadline)
        self._trace(
            f"{operation}: status {answer.status}, {len(answer.body)} bytes,"
            f" request id {answer.headers.get('x-amzn-requestid', 'none')!a}"
        )
        if answer.status != 200:
            error = parse_error(
                operation,
                answer.status,
                answer.headers,
                answer.body,
                secret=credentials.session_token,
            )
            if error.code in _STALE_CREDENTIALS:
                self._credentials = None
            raise error
        return answer, carried

    def _fresh_credentials(self, deadline: Deadline) -> Credentials:
        held = self._credentials
        if held is None or (
            held.expiration is not None
            and held.expiration.timestamp() - self._clock() < _CREDENTIALS_MARGIN
        ):
            held = self._credentials = self._load_credentials(deadline)
        return held


def parse_http_date(text: str) -> float | None:
    """Seconds since 1970 of an IMF-fixdate (RFC 9110, section 5.6.7), or None for anything else.

    A Date that cannot be read only costs a warning about the clock, so it is not an error; and
    `email.utils`, which could read it, would cost every cold start 10 ms.
    """
    try:
        _day, rest = text.split(", ")
        day, month, year, clock, zone = rest.split(" ")
        hour, minute, second = clock.split(":")
        if zone != "GMT":
            return None
        return datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second),
            tzinfo=UTC,
        ).timestamp()  # fmt: skip
    except (ValueError, OverflowError):  # the second: of a year or day beyond a C int
        return None
