"""What a verifier has to know beforehand, the image and the account, as options of commands.

`image_options` passes `pcrs`, index to 48 bytes. `birth_options` adds the account and other images,
and passes `expected`, a `BirthExpectations`.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from kmstool.errors import SettingError
from kmstool.limits import NSM_PCR_COUNT_MAX, NSM_PCR_LENGTH

F = TypeVar("F", bound=Callable[..., Any])

_ONE = re.compile(rf"(0|[1-9][0-9]?)=([0-9A-Fa-f]{{{2 * NSM_PCR_LENGTH}}})")


class PcrType(click.ParamType[tuple[int, bytes]]):
    """One register, `N=HEX`."""

    name = "pcr"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """As it stands in `--help`."""
        return "N=HEX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, bytes]:
        """Reads index and 96 hexadecimal digits."""
        if isinstance(value, tuple):
            return value
        match = _ONE.fullmatch(str(value))
        if match is None or int(match[1]) >= NSM_PCR_COUNT_MAX:
            self.fail(
                f"{value!r} is not of the form N=HEX, with N up to {NSM_PCR_COUNT_MAX - 1} and"
                f" {2 * NSM_PCR_LENGTH} hexadecimal digits",
                param,
                ctx,
            )
        return int(match[1]), bytes.fromhex(match[2])


class ImageType(click.ParamType[dict[int, bytes]]):
    """A whole image, `0=HEX,1=HEX,2=HEX`, or a file as for `--pcr-from`."""

    name = "image"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """As it stands in `--help`."""
        return "0=HEX,1=HEX,2=HEX|FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[int, bytes]:
        """Reads registers with commas between them, or PCR0, PCR1 and PCR2 from a file."""
        if isinstance(value, dict):
            return value
        if value and "=" not in str(value):
            from kmstool.cli.measured import IMAGE_PCRS, read_measured  # noqa: PLC0415 - heavy

            image = read_measured(str(value)).image
            return {index: image[index] for index in IMAGE_PCRS if index in image}
        pairs = [PCR.convert(part, param, ctx) for part in str(value).split(",")]
        if len(dict(pairs)) != len(pairs):
            self.fail(f"{value!r} names a PCR twice", param, ctx)
        return dict(pairs)


PCR = PcrType()
IMAGE = ImageType()


class BirthExpectations(NamedTuple):
    """What `verify_birth_certificate` has to be told."""

    pcrs: Mapping[int, bytes]
    account: str | None
    also_images: tuple[Mapping[int, bytes], ...]


def image_options(command: F) -> F:
    """`--pcr`, `--pcr-from` and a release key for it; passes `pcrs`."""

    @functools.wraps(command)
    def with_image(*arguments: Any, **values: Any) -> Any:
        names = ("pcr", "pcr_from", "release_key", "release_signature")
        pcrs = _expected_pcrs(*(values.pop(name) for name in names))
        return command(*arguments, pcrs=pcrs, **values)

    wrapped: Any = with_image
    for option in (
        click.option(
            "--release-signature",
            metavar="FILE",
            help="The signature of the file in --pcr-from by --release-key, 64 bytes.",
        ),
        click.option(
            "--release-key",
            metavar="FILE",
            help="Take --pcr-from only with a signature of this Ed25519 public key, PEM or DER.",
        ),
        click.option(
            "--pcr-from",
            metavar="FILE",
            help="Expect this image (EIF), or the one that nitro-cli build-enclave printed JSON of,"
            " or that of an attestation document.",
        ),
        click.option(
            "--pcr", type=PCR, multiple=True, help="Expect this value of a PCR (repeatable)."
        ),
    ):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


def birth_options(command: F) -> F:
    """What a birth certificate is held against; passes `expected`."""

    @functools.wraps(command)
    def with_birth(*arguments: Any, pcrs: Mapping[int, bytes], **values: Any) -> Any:
        expected = BirthExpectations(pcrs, values.pop("account"), values.pop("also_image"))
        return command(*arguments, expected=expected, **values)

    wrapped: Any = image_options(with_birth)
    wrapped = click.option(
        "--also-image",
        type=IMAGE,
        multiple=True,
        help="Another image that the key of the birth certificate may open for (repeatable).",
    )(wrapped)
    result: F = click.option(
        "--account", metavar="ID", help="The account that has to own the key, 12 digits."
    )(wrapped)
    return result


def _expected_pcrs(
    given: tuple[tuple[int, bytes], ...],
    source: str | None,
    release_key: str | None,
    release_signature: str | None,
) -> dict[int, bytes]:
    if (release_key is None) != (release_signature is None) or (release_key and not source):
        raise click.UsageError(
            "--pcr-from, --release-key and --release-signature belong together",
            click.get_current_context(),
        )
    pcrs: dict[int, bytes] = {}
    if source is not None:
        from kmstool.cli.measured import read_measured  # noqa: PLC0415 - only where it is asked for

        pcrs |= read_measured(source, release_key, release_signature).image
    for index, value in given:
        if pcrs.setdefault(index, value) != value:
            raise SettingError(
                f"two values are expected of PCR{index}", hint="a register has one: leave one out"
            )
    return pcrs
