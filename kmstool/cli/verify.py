"""`kmstool verify`: is a document or a birth certificate genuine, and the expected one?

The library checks (`attestation/verify.py`, `birth.py`); here a failed check becomes exit 10, and
what was verified is printed.
"""

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from kmstool.attestation.document import parse_document
from kmstool.attestation.verify import STEPS, Expectations, is_debug, own_time, verify_document
from kmstool.birth import VerifiedBirth, verify_birth_certificate
from kmstool.caveats import DEBUG_ENCLAVE, NOTHING_EXPECTED, PCR0_ALONE, Caveat
from kmstool.cli import console
from kmstool.cli.common import Common, Seconds, common_options
from kmstool.cli.expectations import BirthExpectations, birth_options
from kmstool.cli.input import decode_input, read_bytes
from kmstool.cli.options import BYTES, input_options, nitro_root_option
from kmstool.cli.output import Output, deliver, encode_json
from kmstool.cli.public_key import read_public_key
from kmstool.cli.report import for_the_eye, in_hex
from kmstool.cli.results import as_json as caveats_as_json
from kmstool.errors import CheckFailedError, DocumentError, InputError
from kmstool.session import attestation_root

F = TypeVar("F", bound=Callable[..., Any])

_IMAGE_PCRS = (0, 1, 2)


class TimeType(click.ParamType[str | datetime]):
    """`now`, `own`, or a time with its zone (RFC 3339)."""

    name = "time"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """As it stands in `--help`."""
        return "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | datetime:
        """Reads one of the three."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        if text in ("now", "own"):
            return text
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = None
        if time is None or time.tzinfo is None:
            self.fail(f"{value!r} is neither now, own nor like 2026-05-01T12:00:00Z", param, ctx)
        return time.astimezone(UTC)


def _as_checks(command: F) -> F:
    """Whatever the library refuses, reading the expectations included, is a check that failed."""

    @functools.wraps(command)
    def with_checks(*arguments: Any, **values: Any) -> Any:
        try:
            return command(*arguments, **values)
        except DocumentError as error:
            raise CheckFailedError(f"{error} ({_step(error.step)})", hint=error.hint) from None

    result: F = with_checks  # type: ignore[assignment]  # wraps keeps the signature
    return result


def _step(name: str) -> str:
    number = f"{STEPS.index(name) + 1}, " if name in STEPS else ""
    return f"step {number}{name}"


@click.command()
@input_options("the document")
@click.option(
    "--birth-certificate",
    metavar="FILE",
    help="Verify this birth certificate, in place of a document. Needs PCR0, PCR1, PCR2 and"
    " --account.",
)
@_as_checks
@birth_options
@click.option("--nonce", type=BYTES, help="Expect this nonce.")
@click.option("--user-data", type=BYTES, help="Expect this user_data.")
@click.option(
    "--public-key",
    "public_key_file",
    metavar="FILE",
    help="Expect this public key, PEM or DER.",
)
@click.option(
    "--max-age",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Refuse a document older than this.",
)
@click.option(
    "--as-of",
    type=TimeType(),
    help="Verify as of this time: now, own (the document's own, for a stored one) or like"
    " 2026-05-01T12:00:00Z  [default: now; a birth certificate's own]",
)
@click.option(
    "--allow-debug",
    is_flag=True,
    help="Take a document of an enclave in debug mode, whose PCR0, PCR1 and PCR2 are zero.",
)
@nitro_root_option
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@common_options
@click.pass_obj
def verify(
    common: Common,
    /,
    *,
    source: str,
    encoding: str,
    birth_certificate: str | None,
    expected: BirthExpectations,
    nitro_root: str | None,
    as_json: bool,
    **document_options: Any,
) -> None:
    """Verify an attestation document or a birth certificate.

    Reads a document (base64) from INPUT or stdin. Exit 0 says that it is genuine and all that was
    expected; exit 10, that a check failed. Anyone can run an enclave: without a PCR to expect, a
    genuine document says nothing of what runs in it.

    \b
    BYTES are written as hex:00FF, base64:AP8=, utf8:TEXT or file:PATH.
    Examples:
      kmstool verify --pcr-from image.json --nonce hex:9f86d081884c7d659a2feaa0c55ad015 doc.b64
      kmstool verify --birth-certificate key.cert --pcr-from image.json --account 111122223333
    """
    root_der, caveats = attestation_root(root_file=nitro_root)
    common.tolerance().check(caveats)
    if birth_certificate is None:
        _only_for("--birth-certificate", {"--account": expected.account})
        _only_for("--birth-certificate", {"--also-image": expected.also_images or None})
        report, more = _document(
            common, source, encoding, expected.pcrs, root_der, **document_options
        )
    else:
        _refuse_document_options(source, encoding, document_options)
        report, more = _birth(birth_certificate, expected, root_der)
    caveats = tuple(dict.fromkeys(caveats + more))
    common.tolerance().check(caveats)
    console.warn(caveats)
    if as_json:
        text = encode_json(report | {"caveats": caveats_as_json(caveats)})
    else:
        text = for_the_eye(report)
    deliver([Output(text, None)])


def _document(
    common: Common,
    source: str,
    encoding: str,
    pcrs: Mapping[int, bytes],
    root_der: bytes,
    *,
    nonce: bytes | None,
    user_data: bytes | None,
    public_key_file: str | None,
    max_age: float | None,
    as_of: str | datetime | None,
    allow_debug: bool,
) -> tuple[dict[str, Any], tuple[Caveat, ...]]:
    if as_of == "own" and max_age is not None:
        raise _usage("--max-age means nothing as of the document's own time")
    expectations = Expectations(
        pcrs=pcrs,
        nonce=nonce,
        user_data=user_data,
        public_key=None if public_key_file is None else read_public_key(public_key_file),
        max_age=max_age,
        allow_debug=allow_debug,
    )
    data = _read_document(source, encoding)
    if isinstance(as_of, datetime):
        at = as_of
    else:
        at = own_time(parse_document(data)) if as_of == "own" else datetime.now(UTC)
    verified = verify_document(
        data,
        root_der=root_der,
        at=at,
        expectations=expectations,
        trace=lambda number, text: common.trace(f"({number}) {STEPS[number - 1]}: {text()}"),
    )
    document = verified.document
    caveats = _of_expected(pcrs)
    if is_debug(document):
        caveats += (DEBUG_ENCLAVE,)
    return {
        "type": "attestation-document",
        "verified": True,
        "as_of": at.isoformat(),
        "compared": ", ".join(expectations.names()) or None,
        "module_id": document.module_id,
        "time": own_time(document).isoformat(timespec="milliseconds"),
        "pcrs": _pcrs(document.pcrs),
        "public_key": in_hex(document.public_key),
        "user_data": in_hex(document.user_data),
        "nonce": in_hex(document.nonce),
    }, caveats


def _read_document(source: str, encoding: str) -> bytes:
    data = read_bytes(source, what="the document")
    if data.startswith(b'{"document":'):  # as one begins, in its one form
        raise InputError(
            "this is a birth certificate, not a document", hint="name it with --birth-certificate"
        )
    if data.lstrip().startswith(b"{"):  # which no document does, in base64 or not
        raise InputError(
            "this is JSON, not a document",
            hint="a document is what the security module gave, or base64 of it",
        )
    return decode_input(data, encoding=encoding, what="the document")


def _of_expected(pcrs: Mapping[int, bytes]) -> tuple[Caveat, ...]:
    """What a document that has these registers may still be."""
    if not pcrs:
        return (NOTHING_EXPECTED,)
    return (PCR0_ALONE,) if pcrs.keys().isdisjoint({1, 2}) and 0 in pcrs else ()


def _birth(
    path: str, expected: BirthExpectations, root_der: bytes
) -> tuple[dict[str, Any], tuple[Caveat, ...]]:
    if expected.account is None:
        raise _usage(
            "a birth certificate needs --account: an attacker's own account holds keys with"
            " certificates just as genuine"
        )
    if any(index not in expected.pcrs for index in _IMAGE_PCRS):
        raise _usage(
            "a birth certificate needs PCR0, PCR1 and PCR2, by --pcr or --pcr-from: an attacker's"
            " own image makes certificates just as genuine"
        )
    born = verify_birth_certificate(
        read_bytes(path, what="the birth certificate"),
        pcrs=expected.pcrs,
        account=expected.account,
        also_images=expected.also_images,
        root_der=root_der,
    )
    return _describe_birth(born), born.caveats


def _describe_birth(born: VerifiedBirth) -> dict[str, Any]:
    return {
        "type": "birth-certificate",
        "verified": True,
        "as_of": born.made_at.isoformat(timespec="milliseconds"),
        "key_arn": str(born.key),
        "account": born.account,
        "key_spec": born.key_spec,
        "key_usage": born.key_usage,
        "public_key": in_hex(born.public_key),
        "opens_for": [_pcrs(image) for image in born.images],
        "administrator": born.administrator,
        "policy_sha384": born.policy_sha384.hex(),
        "module_id": born.module_id,
    }


def _pcrs(pcrs: Mapping[int, bytes]) -> dict[str, str]:
    return {str(index): value.hex() for index, value in sorted(pcrs.items())}


def _refuse_document_options(source: str, encoding: str, options: Mapping[str, Any]) -> None:
    if source != "-":
        raise _usage("there is a document and a birth certificate: one command verifies one")
    names = {"public_key_file": "--public-key"}
    given = {
        names.get(name, "--" + name.replace("_", "-")): value for name, value in options.items()
    }
    _only_for("a document", given | {"--input": None if encoding == "base64" else encoding})


def _only_for(what: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            raise _usage(f"{name} is for {what} alone")


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())
