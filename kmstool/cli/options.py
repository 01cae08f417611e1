"""The options that several commands share, each defined once, and their types.

A decorator here takes its own parameters away from the command and hands it one object instead:
`session_options` passes `session`, `key_option` passes `key`, `request_options` passes `request`.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from kmstool import limits
from kmstool.arn import ANY_KEY, AnyKey, KeyArn, parse_key_arn
from kmstool.cli.common import Common, Seconds, common_options
from kmstool.cli.input import parse_base64, read_bytes
from kmstool.enclave.process import harden
from kmstool.errors import InputError
from kmstool.session import SessionOptions

F = TypeVar("F", bound=Callable[..., Any])

KEY_ID_VARIABLE = "KMSTOOL_KEY_ID"


_BYTES_FORMS: dict[str, Callable[[str], bytes]] = {
    "hex": bytes.fromhex,
    "base64": lambda text: parse_base64(text.encode("utf-8"), what="the value"),
    "utf8": lambda text: text.encode("utf-8"),
    "file": lambda path: read_bytes(path, what="the value"),
}


class BytesType(click.ParamType[bytes]):
    """Bytes on the command line, with their encoding spelled out: nothing is guessed."""

    name = "bytes"
    FORMS = "hex:00FF, base64:AP8=, utf8:TEXT or file:PATH"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """As it stands in `--help`."""
        return "BYTES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Reads one of the four forms; anything else is a usage error."""
        if isinstance(value, bytes):
            return value
        form, _, text = str(value).partition(":")
        read = _BYTES_FORMS.get(form)
        if read is None:
            self.fail(f"{value!r} does not say how it is encoded: write {self.FORMS}", param, ctx)
        try:
            return read(text)
        except (ValueError, InputError):
            # Of a file, any byte will do: there can only be too many.
            wrong = f"longer than {limits.INPUT_MAX} bytes" if form == "file" else f"not {form}"
            self.fail(f"{text!r} is {wrong}", param, ctx)


class PairType(click.ParamType[tuple[str, str]]):
    """One pair of an encryption context, `NAME=VALUE`."""

    name = "pair"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """As it stands in `--help`."""
        return "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Splits at the first `=`; the value may hold more of them."""
        if isinstance(value, tuple):
            return value
        name, equals, content = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        return name, content


BYTES = BytesType()


def session_options(command: F) -> F:
    """How KMS is reached and what is attested; passes `session`, a `SessionOptions`."""
    return _with_session(
        command,
        _CONNECTION_PARAMETERS + _DOCUMENT_PARAMETERS,
        _CONNECTION_OPTIONS + _DOCUMENT_OPTIONS,
    )


def connection_options(command: F) -> F:
    """How KMS is reached, where the caller has no say in what is attested; passes `session`."""
    return _with_session(command, _CONNECTION_PARAMETERS, _CONNECTION_OPTIONS)


def _with_session(
    command: F, parameters: tuple[str, ...], options: tuple[Callable[[Any], Any], ...]
) -> F:
    @functools.wraps(command)
    @click.pass_obj
    def with_session(common: Common, /, **values: Any) -> Any:
        harden()
        session = SessionOptions(
            **{name: values.pop(name) for name in parameters},
            tolerance=common.tolerance(),
            trace=common.trace,
        )
        return command(common, session=session, **values)

    wrapped: Any = common_options(with_session)
    for option in reversed(options):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


_CONNECTION_PARAMETERS = (
    "region",
    "via",
    "credentials",
    "host",
    "fips",
    "roots_file",
    "timeout",
)
_DOCUMENT_PARAMETERS = ("nonce", "user_data")
_CONNECTION_OPTIONS = (
    click.option("--region", help="Region of KMS  [variable: KMSTOOL_REGION; default: the key's]"),
    click.option(
        "--via",
        multiple=True,
        metavar="WAY[=ADDRESS]",
        help="How to reach KMS: direct or relay; repeatable, tried in order, never mixed. ADDRESS"
        " is vsock://CID:PORT, tcp://HOST:PORT or unix:PATH  [default: direct; its address:"
        " KMSTOOL_DIRECT or vsock://3:8000; of a relay: KMSTOOL_RELAY or vsock://3:8001]",
    ),
    click.option(
        "--credentials",
        metavar="SOURCE",
        help="env, file:PATH, fd:N or an address  [default: the AWS_* variables, then"
        " KMSTOOL_CREDENTIALS, then vsock://3:8002]",
    ),
    click.option("--host", metavar="NAME", help="Name in KMS' certificate, for a VPC endpoint."),
    click.option("--fips", is_flag=True, help="Use the region's FIPS endpoint."),
    click.option(
        "--roots",
        "roots_file",
        metavar="FILE",
        help="Trust these roots (PEM) in place of Amazon's; brings the caveat custom-roots.",
    ),
    click.option(
        "--timeout",
        type=Seconds(min=0, min_open=True, max=3600),
        metavar="SECONDS",
        default=30.0,
        show_default=True,
        help="For the whole operation, retries included.",
    ),
)
_DOCUMENT_OPTIONS = (
    click.option("--nonce", type=BYTES, help="Put into the attestation document, 16 to 512 bytes."),
    click.option(
        "--user-data", type=BYTES, help="Put into the attestation document, up to 512 bytes."
    ),
)


def key_option(*, any_key: bool = False) -> Callable[[F], F]:
    """`--key-id`, and `--any-key` where KMS can do without; passes `key`."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_key(*arguments: Any, **values: Any) -> Any:
            key = _key(values.pop("key_id"), any_key=values.pop("any_key", False))
            return command(*arguments, key=key, **values)

        wrapped: Any = with_key
        if any_key:
            wrapped = click.option(
                "--any-key",
                is_flag=True,
                help="Accept whatever key the ciphertext names; brings the caveat unpinned-key.",
            )(wrapped)
        result: F = click.option(
            "--key-id",
            metavar="ARN",
            help=f"The full ARN of the KMS key  [variable: {KEY_ID_VARIABLE}]",
        )(wrapped)
        return result

    return decorate


def _key(key_id: str | None, *, any_key: bool) -> KeyArn | AnyKey:
    if any_key:
        if key_id is not None:
            raise click.UsageError("--key-id and --any-key exclude each other", _context())
        return ANY_KEY
    # Read here and not by Click, so that --any-key, which has to be typed, wins over the variable.
    key_id = key_id if key_id is not None else os.environ.get(KEY_ID_VARIABLE)
    if not key_id:
        raise click.UsageError(
            f"no key was named: give --key-id ARN or {KEY_ID_VARIABLE}", _context()
        )
    return parse_key_arn(key_id)


def _context() -> click.Context:
    return click.get_current_context()


class RequestOptions(NamedTuple):
    """What goes into the request beside its data; the names are those of `DirectKms`' methods."""

    encryption_context: dict[str, str] | None = None
    grant_tokens: tuple[str, ...] = ()
    dry_run: bool = False


def request_options(*, context: bool = True) -> Callable[[F], F]:
    """`--encryption-context`, `--grant-token`, `--dry-run`; passes `request`."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_request(*arguments: Any, **values: Any) -> Any:
            request = RequestOptions(
                encryption_context=as_mapping(values.pop("encryption_context", ())),
                grant_tokens=values.pop("grant_token"),
                dry_run=values.pop("dry_run"),
            )
            return command(*arguments, request=request, **values)

        wrapped: Any = with_request
        wrapped = click.option(
            "--dry-run",
            is_flag=True,
            help="Ask KMS whether it would do this, and do nothing; exit 0 means yes.",
        )(wrapped)
        wrapped = click.option(
            "--grant-token", metavar="TOKEN", multiple=True, help="A grant token (repeatable)."
        )(wrapped)
        if context:
            wrapped = click.option(
                "--encryption-context",
                type=PairType(),
                multiple=True,
                help="What the ciphertext is bound to (repeatable).",
            )(wrapped)
        result: F = wrapped
        return result

    return decorate


def accept_option(command: F) -> F:
    """`--accept-unauthenticated`, which a bare secret from a relay needs."""
    result: F = click.option(
        "--accept-unauthenticated",
        is_flag=True,
        help="With --via relay: take a secret that the parent may have chosen or changed.",
    )(command)
    return result


def as_mapping(pairs: tuple[tuple[str, str], ...]) -> dict[str, str] | None:
    """The pairs of `--encryption-context`, or None where there are none; no name twice."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise click.UsageError("a name stands twice in --encryption-context", _context())
    return mapping or None


def nitro_root_option(command: F) -> F:
    """`--nitro-root`; passes `nitro_root`, a file's name or None."""
    return click.option(
        "--nitro-root",
        metavar="FILE",
        help="The root of attestation, PEM or DER, in place of that of AWS Nitro Enclaves; brings"
        " the caveat custom-nitro-root.",
    )(command)


INPUT_ENCODINGS = click.Choice(["base64", "raw"])


def input_options(what: str) -> Callable[[F], F]:
    """The argument INPUT and the option `--input`; passes `source` and `encoding`."""

    def decorate(command: F) -> F:
        wrapped = click.option(
            "--input",
            "encoding",
            type=INPUT_ENCODINGS,
            default="base64",
            show_default=True,
            help=f"How {what} is encoded in the file or on stdin.",
        )(command)
        return click.argument("source", metavar="[INPUT]", default="-")(wrapped)

    return decorate
