"""A key from a shared secret: HKDF with SHA-256 (RFC 5869).

The x-coordinate that DeriveSharedSecret gives is not uniformly random and must not be a key itself.
"""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kmstool import limits
from kmstool.errors import SettingError


def derive_key(
    shared_secret: bytes, *, length: int = 32, salt: bytes = b"", info: bytes = b""
) -> bytes:
    """HKDF-SHA-256 of `shared_secret`.

    Args:
        length: of the key, 1 to 8,160 bytes.
        salt: any number of bytes; empty means 32 zero bytes, as the RFC says.
        info: binds the key to its purpose; two purposes need two infos.

    Raises:
        SettingError: the length is out of the RFC's bounds.

    Source: RFC 5869, sections 2.2 and 2.3.
    """
    if not 1 <= length <= limits.HKDF_LENGTH_MAX:
        raise SettingError(
            f"a key of {length} bytes cannot be derived",
            hint=f"HKDF-SHA-256 gives 1 to {limits.HKDF_LENGTH_MAX} bytes",
        )
    return HKDF(algorithm=SHA256(), length=length, salt=salt or None, info=info).derive(
        shared_secret
    )
