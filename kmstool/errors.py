"""The one family of exceptions: what failed, with which value, and a hint that says what to do.

No message, `repr` or attribute ever holds a secret. Messages go to terminals: `printable` and
`quoted` make text from outside fit for one. Exit codes are not known here: the CLI maps these
classes to them (`cli/exit_codes.py`).
"""


class KmstoolError(Exception):
    """Base of every error that kmstool raises on purpose; never raised directly.

    Attributes:
        hint: one sentence saying what to do, or None where there is nothing useful to say.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SettingError(KmstoolError):
    """An option, argument or environment variable is wrong: a region, an ARN, an address."""


class InputError(KmstoolError):
    """Data that was read is wrong: ciphertext that is not base64, empty, or too long."""


class NsmError(KmstoolError):
    """The Nitro Security Module is missing, answered with an error, or answered nonsense.

    Attributes:
        code: the ABI's name of the error (`InvalidArgument`, …), or None when it did not name one.
    """

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class CredentialsError(KmstoolError):
    """No credentials were found, or what was found is not usable."""


class TransportError(KmstoolError):
    """The way to KMS failed: connect, TLS, HTTP framing, or the deadline.

    Attributes:
        retryable: True where the same request may succeed on a new connection.
    """

    def __init__(self, message: str, *, hint: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class KmsError(KmstoolError):
    """KMS answered with an error of its own.

    Attributes:
        operation: the KMS API's name of the operation (`Decrypt`, …).
        status: the HTTP status.
        code: KMS' name of the error (`AccessDeniedException`, …).
        kms_message: what KMS said, cut to a printable line.
        request_id: KMS' id of the request, for AWS' support and CloudTrail, or None.
        retryable: True for the errors that AWS documents as passing.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str,
        status: int,
        code: str,
        kms_message: str = "",
        request_id: str | None = None,
        retryable: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.operation = operation
        self.status = status
        self.code = code
        self.kms_message = kms_message
        self.request_id = request_id
        self.retryable = retryable


class UntrustedAnswerError(KmstoolError):
    """An answer came whose content may not be used: wrong KeyId, a `Plaintext`, no CMS."""


class CmsError(UntrustedAnswerError):
    """The CMS in an answer is not the one EnvelopedData that KMS makes for our key (RFC 5652)."""


class NotOpenedError(UntrustedAnswerError):
    """What came over a relay, or a sealed file, does not open; which check failed is never said."""


# The one text of `NotOpenedError`. Who altered it is asking a question by that, and a reason would
# be the answer: docs/explanation/two-setups.md.
NOT_OPENED = "it could not be opened: the key is not the right one, or it was altered"


class SealedFileError(UntrustedAnswerError):
    """A sealed file's header is malformed, unknown and critical, or not what was expected."""


class CaveatRefused(KmstoolError):  # noqa: N818 - it is a decision of the caller's, not a fault
    """Under strict handling, a result carries a caveat that the caller did not allow."""


class DocumentError(KmstoolError):
    """An attestation document is malformed, not genuine, or not what was expected.

    Attributes:
        step: which step of AWS' "Verifying the root of trust" failed: `cbor`, `document`, `chain`,
            `signature` or `expectations`. Of a birth certificate also `certificate` (the file) and
            `statement`; of a release's measurements `release`.
    """

    def __init__(self, message: str, *, step: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step


class CheckFailedError(KmstoolError):
    """A command was asked to check something, and it is not so."""


class PolicyError(KmstoolError):
    """A key policy is not one that KMS would accept, or uses what this evaluator does not know."""


class LocalFileError(KmstoolError):
    """A local file or pipe could not be read or written."""


def printable(text: str) -> str:
    """`text` with `?` for every control, format (direction) and surrogate character."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def quoted(text: str) -> str:
    """`text` escaped and in quotes, not more than 100 characters of it."""
    return repr(text if len(text) <= 100 else text[:100] + "…")
