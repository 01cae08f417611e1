"""What `kmstool inspect` shows of an enclave image: its PCRs, what they leave open, and the rest.

The PCRs are those of an enclave that runs this very file. Metadata and the like stand under
`unattested`: they can be changed without a PCR changing.
"""

from collections.abc import Callable
from typing import Any

from kmstool.attestation.eif import EifMeasurements, ambiguities
from kmstool.attestation.eif_signature import EifSignature


def describe_image(
    image: EifMeasurements, describe_certificate: Callable[[bytes], dict[str, Any]]
) -> dict[str, Any]:
    """Everything that is known of an image, as JSON takes it."""
    return {
        "type": "enclave-image",
        "verified": False,
        "bytes": image.size,
        "architecture": image.architecture,
        "pcrs": {str(index): value.hex() for index, value in sorted(image.pcrs.items())},
        "not_determined_by_pcrs": list(ambiguities(image)),
        "sections": [{"kind": part.kind, "bytes": part.size} for part in image.sections],
        "kernel_length_checked": image.kernel_length_checked,
        "command_line": image.command_line,
        "signature": _signature(image.signature, describe_certificate),
        "unattested": {
            "memory_bytes": image.memory,
            "cpus": image.cpus,
            "metadata": None if image.metadata is None else dict(image.metadata),
        },
    }


def _signature(
    signature: EifSignature | None, describe_certificate: Callable[[bytes], dict[str, Any]]
) -> dict[str, Any] | None:
    if signature is None:
        return None
    return {
        "algorithm": signature.algorithm,
        "over": "PCR0",
        "certificate": describe_certificate(signature.certificate),
        "means": "the signer had this certificate's private key, and PCR8 is its hash; nobody has"
        " checked who issued it, and its names and dates are the signer's own",
    }
