"""The errors that the emulated KMS answers with: KMS' codes, and the HTTP status of each.

A `Refusal` is an answer to a client, not a fault of this program, so it is no `KmstoolError`.
Source of the codes: botocore's KMS service model; of the signature errors: AWS' "Common errors";
of the statuses: KMS API reference (400 for every client's fault, DryRunOperationException too).
"""

_SERVER_FAULTS = ("DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException")


class Refusal(Exception):  # noqa: N818 - it is the answer that a client gets, not a fault of ours
    """An error answer of KMS.

    Attributes:
        code: KMS' name of the error, such as `AccessDeniedException`.
        message: what the client reads; never a secret.
        status: the HTTP status.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = 500 if code in _SERVER_FAULTS else 400


def invalid(message: str) -> Refusal:
    """The `ValidationException` with this message."""
    return Refusal("ValidationException", message)
