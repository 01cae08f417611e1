"""The errors that the emulated KMS answers with: KMS' codes, and the HTTP status of each.

A `Refusal` is an answer to a client, not a fault of this program, so it is no `KmstoolError`.
Source of the codes: botocore's KMS service model; of the signature errors: AWS' "Common errors".
"""

_STATUS = {
    "DependencyTimeoutException": 503,
    "DryRunOperationException": 412,
    "KMSInternalException": 500,
    "KeyUnavailableException": 500,
}


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
        self.status = _STATUS.get(code, 400)


def invalid(message: str) -> Refusal:
    """The `ValidationException` with this message."""
    return Refusal("ValidationException", message)
