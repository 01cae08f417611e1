"""`kmstool parent relay`; `kmstool/parent/relay.py` does the work."""

from typing import NoReturn

import click

from kmstool.arn import parse_key_arn
from kmstool.cli.common import common_options
from kmstool.cli.parent_serving import (
    allow_cid_option,
    listen_option,
    log_format_option,
    reporter,
    serve_until_signal,
)


@click.command()
@listen_option
@click.option(
    "--allow-key",
    "allowed_keys",
    metavar="ARN",
    multiple=True,
    required=True,
    help="A key that may be used (repeatable).",
)
@allow_cid_option
@click.option(
    "--endpoint-url",
    metavar="URL",
    help="Of KMS  [default: AWS_ENDPOINT_URL_KMS, or that of the key's region]",
)
@log_format_option
@common_options
def relay(
    *,
    listen: str,
    allowed_keys: tuple[str, ...],
    allowed_cids: tuple[int, ...],
    endpoint_url: str | None,
    log_format: str,
) -> NoReturn:
    """Call KMS for enclaves, which alone can open the answers.

    Takes Decrypt and DeriveSharedSecret with a recipient, for the keys that are named here, with
    the credentials that an AWS SDK would find. Writes a line for each request to stderr, and ends
    on SIGTERM or Ctrl-C.

    \b
    Example:
      kmstool parent relay --listen vsock://:8001 --allow-key "$ARN"
    """
    from kmstool.enclave.process import harden  # noqa: PLC0415
    from kmstool.endpoint import parse_address  # noqa: PLC0415
    from kmstool.parent.relay import serve  # noqa: PLC0415

    harden()  # before anything secret is read
    address = parse_address(listen, listening=True)
    keys = [parse_key_arn(text) for text in allowed_keys]
    report = reporter(log_format)
    serve_until_signal(
        lambda: serve(
            address, keys, endpoint_url=endpoint_url, allowed_cids=allowed_cids, report=report
        ),
        ready=[f"listening on {address}"],
        report=report,
    )
