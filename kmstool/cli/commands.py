"""The table of kmstool's commands. Reading it imports none of them.

No logic that a library user would miss is here or beside it: the commands read options and data,
call the library, and write the result.
"""

import click

from kmstool import __version__
from kmstool.cli.common import common_options
from kmstool.cli.lazy import Entry, LazyGroup

_OPERATIONS = "kmstool.cli.operations"
_GENERATE = "kmstool.cli.generate"
COMMANDS = (
    Entry("decrypt", _OPERATIONS, "decrypt", "Decrypt a ciphertext for this enclave alone."),
    Entry(
        "derive-shared-secret",
        _OPERATIONS,
        "derive_shared_secret",
        "Derive a key from an ECDH exchange with a KMS key.",
    ),
    Entry(
        "generate-data-key",
        _GENERATE,
        "generate_data_key",
        "Make a data key, and the same key encrypted.",
    ),
    Entry(
        "generate-data-key-pair",
        _GENERATE,
        "generate_data_key_pair",
        "Make a key pair, its private key also encrypted.",
    ),
    Entry("generate-random", _GENERATE, "generate_random", "Get random bytes from KMS."),
    Entry(
        "seal", "kmstool.cli.seal", "seal", "Seal a file that only the enclaves of a KMS key open."
    ),
    Entry("open", "kmstool.cli.open", "open_command", "Open a sealed file inside the enclave."),
    Entry(
        "create-key",
        "kmstool.cli.create_key",
        "create_key",
        "Make a KMS key that opens for this image alone.",
    ),
    Entry("attest", "kmstool.cli.attest", "attest", "Get an attestation document."),
    Entry(
        "verify",
        "kmstool.cli.verify",
        "verify",
        "Verify an attestation document or a birth certificate.",
    ),
    Entry(
        "inspect",
        "kmstool.cli.inspect",
        "inspect",
        "Show what a CMS, attestation document, sealed file or enclave image says, unverified.",
    ),
    Entry("policy", "kmstool.cli.policy", "group", "Write, check and explain key policies."),
    Entry("doctor", "kmstool.cli.doctor", "doctor", "Check each link of the chain to KMS."),
    Entry("parent", "kmstool.cli.parent", "group", "Serve an enclave from its parent instance."),
    Entry("emulator", "kmstool.cli.emulator", "group", "Run KMS and a security module for tests."),
)


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Results go to stdout, everything else to stderr. Exit codes: 0 done, 2 setting,"
    " 3 input, 4 security module, 5 credentials, 6 transport, 7 refused by KMS, 8 not trustworthy,"
    " 9 caveat, 10 failed check, 11 local file.",
)
@click.version_option(__version__, message="kmstool %(version)s")
@common_options
def cli() -> None:
    """Use AWS KMS keys that open for one Nitro Enclave alone."""
