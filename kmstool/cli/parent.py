"""`kmstool parent`: what runs on the parent instance, outside the enclave.

`kmstool/parent/` does the work; it is imported when a command runs, since it brings botocore, and
no enclave image has it.
"""

import signal
from typing import Final

import click

from kmstool.arn import parse_key_arn
from kmstool.cli import console
from kmstool.cli.common import common_options
from kmstool.cli.exit_codes import ExitCode

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.group("parent")
@common_options
def group() -> None:
    """Serve an enclave from its parent instance.

    Nothing here is trusted by the enclave.
    """


@group.command()
@click.option(
    "--listen",
    "address",
    metavar="ADDRESS",
    required=True,
    help="vsock://:PORT for every enclave of this instance; vsock://CID:PORT, tcp://HOST:PORT or"
    " unix:PATH.",
)
@click.option(
    "--allow-key",
    "allowed_keys",
    metavar="ARN",
    multiple=True,
    required=True,
    help="A key that may be used (repeatable).",
)
@click.option(
    "--allow-cid",
    "allowed_cids",
    metavar="N",
    type=click.IntRange(0, 0xFFFF_FFFE),
    multiple=True,
    help="An enclave that may ask (repeatable); a limit, not authentication  [default: all]",
)
@click.option(
    "--endpoint-url",
    metavar="URL",
    help="Of KMS  [default: AWS_ENDPOINT_URL_KMS, or that of the key's region]",
)
@common_options
def relay(
    *,
    address: str,
    allowed_keys: tuple[str, ...],
    allowed_cids: tuple[int, ...],
    endpoint_url: str | None,
) -> None:
    """Call KMS for enclaves, which alone can open the answers.

    Takes Decrypt and DeriveSharedSecret with a recipient, for the keys that are named here, with
    the credentials that an AWS SDK would find. Writes a line for each request to stderr, and ends
    on SIGTERM or Ctrl-C.

    \b
    Example:
      kmstool parent relay --listen vsock://:8001 --allow-key "$ARN"
    """
    from kmstool.endpoint import parse_address  # noqa: PLC0415
    from kmstool.parent.relay import serve  # noqa: PLC0415

    listen = parse_address(address, listening=True)
    keys = [parse_key_arn(text) for text in allowed_keys]
    # Held back before the service's threads exist, so that they arrive here and nowhere else.
    # What the caller ignores (nohup) stays ignored; Linux would queue it all the same.
    ending = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        with serve(
            listen,
            keys,
            endpoint_url=endpoint_url,
            allowed_cids=allowed_cids,
            report=console.note,
        ):
            console.note(f"listening on {listen}")
            received = signal.sigwait(ending)
            console.note(f"ending on {signal.Signals(received).name}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    interrupted = received == signal.SIGINT
    code = ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED
    click.get_current_context().exit(code)
