"""A root of attestation that a user named, in the place of that of AWS Nitro Enclaves.

For documents of a hypervisor of one's own, such as the VM of scripts/enclave-vm. Whoever asks for
it brings the caveat `custom-nitro-root`; nothing here is read unless it was typed.
"""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kmstool import limits
from kmstool.errors import SettingError


def read_root(path: str) -> bytes:
    """DER of the one certificate in a file, PEM or DER; whether it can be a root shows later.

    Raises:
        SettingError: it cannot be read, or is no certificate.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limits.NITRO_ROOT_FILE_MAX + 1)
    except OSError as error:
        raise SettingError(
            f"the root of attestation in {path} could not be read: {error.strerror}",
            hint="check the path, and who may read it",
        ) from None
    pem = data.lstrip().startswith(b"-----BEGIN")
    load = x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate
    try:
        if len(data) <= limits.NITRO_ROOT_FILE_MAX:
            return load(data).public_bytes(Encoding.DER)
    except ValueError:
        pass
    raise SettingError(
        f"{path} is not the certificate of a root of attestation",
        hint="give one certificate, PEM or DER",
    )
