"""The one table from errors to exit codes. docs/reference/exit-codes.md is compared with it.

The library knows no exit codes: an exception says what failed, and only this file says what a
shell script sees of it.
"""

from enum import IntEnum

from kmstool import errors


class ExitCode(IntEnum):
    """What `$?` holds after kmstool; each member's `meaning` is the sentence of the reference."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "ExitCode":
        """An integer that carries its meaning, so that table and text cannot drift apart."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done; for a dry run: KMS would have done it"
    BUG = 1, "a bug of kmstool"
    SETTING = 2, "an option, argument or environment variable is wrong"
    INPUT = 3, "data that was read is wrong"
    NSM = 4, "the Nitro Security Module is missing or answered with an error"
    CREDENTIALS = 5, "no credentials were found, or they are not usable"
    TRANSPORT = 6, "KMS could not be reached: connection, TLS, HTTP or the deadline"
    KMS = 7, "KMS answered with an error"
    UNTRUSTED = 8, "an answer or file came whose content may not be trusted"
    CAVEAT = 9, "a caveat was refused under --strict"
    CHECK = 10, "a check was made, and it failed"
    LOCAL_FILE = 11, "a local file or pipe could not be read or written"
    INTERRUPTED = 130, "interrupted (SIGINT)"
    TERMINATED = 143, "terminated (SIGTERM, SIGHUP)"


# By class; a subclass that is not listed takes the code of its nearest listed base.
BY_ERROR: dict[type[errors.KmstoolError], ExitCode] = {
    errors.SettingError: ExitCode.SETTING,
    errors.InputError: ExitCode.INPUT,
    errors.PolicyError: ExitCode.INPUT,
    errors.NsmError: ExitCode.NSM,
    errors.CredentialsError: ExitCode.CREDENTIALS,
    errors.TransportError: ExitCode.TRANSPORT,
    errors.KmsError: ExitCode.KMS,
    errors.UntrustedAnswerError: ExitCode.UNTRUSTED,
    errors.DocumentError: ExitCode.UNTRUSTED,
    errors.CaveatRefused: ExitCode.CAVEAT,
    errors.CheckFailedError: ExitCode.CHECK,
    errors.LocalFileError: ExitCode.LOCAL_FILE,
}


def exit_code_of(error: errors.KmstoolError) -> ExitCode:
    """The exit code for an error that kmstool raised on purpose."""
    for ancestor in type(error).__mro__:
        if ancestor in BY_ERROR:
            return BY_ERROR[ancestor]
    return ExitCode.BUG
