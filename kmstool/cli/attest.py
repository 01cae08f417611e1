"""`kmstool attest`: a document from this enclave's security module, carrying what the caller gives.

No connection is made and nothing is verified: whoever receives the document does that.
"""

from dataclasses import dataclass

import click

from kmstool.caveats import DEBUG_ENCLAVE, Caveat
from kmstool.cli.common import Common, common_options
from kmstool.cli.options import BYTES
from kmstool.cli.public_key import read_public_key
from kmstool.cli.results import Destination, output_options
from kmstool.enclave.nsm import Nsm
from kmstool.session import open_nsm

_IMAGE_PCRS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class _Attested:
    document: bytes
    caveats: tuple[Caveat, ...]


@click.command()
@click.option(
    "--public-key",
    "public_key_file",
    metavar="FILE",
    help="A public key for the document, PEM or DER (SubjectPublicKeyInfo); - is stdin.",
)
@click.option("--nonce", type=BYTES, help="Up to 512 bytes; from whoever will verify.")
@click.option("--user-data", type=BYTES, help="Up to 512 bytes of your own.")
@output_options()
@common_options
@click.pass_obj
def attest(
    common: Common,
    *,
    public_key_file: str | None,
    nonce: bytes | None,
    user_data: bytes | None,
    destination: Destination,
) -> None:
    """Get an attestation document.

    Writes the document (COSE_Sign1) as it is. A nonce that the verifier chose is what makes it
    fresh for them.

    \b
    BYTES are written as hex:00FF, base64:AP8=, utf8:TEXT or file:PATH.
    Example:
      kmstool attest --nonce hex:9f86d081884c7d659a2feaa0c55ad015 --format base64
    """
    tolerance = common.tolerance()
    public_key = None if public_key_file is None else read_public_key(public_key_file)
    nsm, caveats = open_nsm()
    with nsm:
        tolerance.check(caveats)
        if _is_debug(nsm):
            caveats += (DEBUG_ENCLAVE,)
            tolerance.check(caveats)
        document = nsm.attestation(public_key=public_key, nonce=nonce, user_data=user_data)
    destination.write(
        _Attested(document, caveats),
        fields=lambda done: {"AttestationDocument": done.document},
        secret="AttestationDocument",  # noqa: S106 - the name of a field, and no secret here
    )


def _is_debug(nsm: Nsm) -> bool:
    return not any(any(nsm.describe_pcr(index).data) for index in _IMAGE_PCRS)
