"""Brings sealed files and KMS together: who holds the keys that files are sealed to.

`DirectHolder` asks over TLS that ends here, `RelayedHolder` over the parent's relay, and
`SessionHolder` makes whichever the options say, when a file asks for a key. Over a relay the secret
goes from the answer straight into an AEAD (HPKE's, or that of the wrapped file key), which is the
one use that an unauthenticated key has; so the caveat `relayed-answer` ends here. What remains of
it, that the parent can pass off a file of its own, is what `unknown-sealer` says of every file.

Never: gives a secret to anything but `kmstool.sealing`.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, Self, cast

from kmstool.caveats import RELAYED_ANSWER, Caveat, Tolerance
from kmstool.enclave.results import DryRun
from kmstool.errors import SettingError, UntrustedAnswerError
from kmstool.sealing.recipients import DataKeyRecipient, HpkeRecipient, public_key_recipient
from kmstool.session import SessionOptions, is_relayed, open_direct, open_relayed

if TYPE_CHECKING:
    from kmstool.arn import KeyArn
    from kmstool.birth import VerifiedBirth
    from kmstool.enclave.direct import DirectKms
    from kmstool.enclave.relayed import RelayedKms

DATA_KEY_SPEC: Final = "AES_256"


class DirectHolder:
    """Answers that are KMS' own."""

    def __init__(self, kms: "DirectKms") -> None:
        self._kms = kms
        self._caveats: tuple[Caveat, ...] = ()

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What KMS' answers so far carried."""
        return self._caveats

    def agree(self, key: "KeyArn", public_key_der: bytes, secret_length: int) -> bytes:
        """KMS DeriveSharedSecret."""
        done = self._kms.derive_shared_secret(public_key_der, key=key)
        assert not isinstance(done, DryRun)  # noqa: S101 - none was asked for
        self._caveats += done.caveats
        return _of_length(done.secret, secret_length)

    def unwrap(
        self,
        key: "KeyArn",
        ciphertext_blob: bytes,
        encryption_context: Mapping[str, str],
        key_length: int,
    ) -> bytes:
        """KMS Decrypt."""
        done = self._kms.decrypt(
            ciphertext_blob, key=key, encryption_context=dict(encryption_context) or None
        )
        assert not isinstance(done, DryRun)  # noqa: S101 - none was asked for
        self._caveats += done.caveats
        return _of_length(done.plaintext, key_length)


class RelayedHolder:
    """Answers that the parent may have chosen: good for opening what is authenticated."""

    def __init__(self, kms: "RelayedKms") -> None:
        self._kms = kms
        self._caveats: tuple[Caveat, ...] = ()

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What the answers so far carried, without `relayed-answer`: see the module."""
        return self._caveats

    def agree(self, key: "KeyArn", public_key_der: bytes, secret_length: int) -> bytes:
        """KMS DeriveSharedSecret, through the parent."""
        answer = self._kms.derive_shared_secret(
            public_key_der, key=key, secret_length=cast("Literal[32, 48, 66]", secret_length)
        )
        self._keep(answer.caveats)
        return answer.reveal_bytes_the_parent_may_have_chosen()

    def unwrap(
        self,
        key: "KeyArn",
        ciphertext_blob: bytes,
        encryption_context: Mapping[str, str],
        key_length: int,
    ) -> bytes:
        """KMS Decrypt, through the parent."""
        answer = self._kms.decrypt(
            ciphertext_blob,
            key=key,
            key_length=cast("Literal[16, 24, 32]", key_length),
            encryption_context=dict(encryption_context) or None,
        )
        self._keep(answer.caveats)
        return answer.reveal_bytes_the_parent_may_have_chosen()

    def _keep(self, caveats: tuple[Caveat, ...]) -> None:
        self._caveats += tuple(one for one in caveats if one != RELAYED_ANSWER)


class SessionHolder:
    """A holder by options and environment; connects when it is asked, once for each region."""

    def __init__(self, options: SessionOptions, *, environ: Mapping[str, str] = os.environ) -> None:
        self._relayed = is_relayed(options)
        self._options = _without_relayed_answer(options) if self._relayed else options
        self._environ = environ
        self._clients: dict[str, tuple[DirectKms | RelayedKms, DirectHolder | RelayedHolder]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for client, _ in self._clients.values():
            client.close()

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What the answers so far carried."""
        found = (one for _, holder in self._clients.values() for one in holder.caveats)
        return tuple(dict.fromkeys(found))

    def agree(self, key: "KeyArn", public_key_der: bytes, secret_length: int) -> bytes:
        """As `DirectHolder` or `RelayedHolder`."""
        return self._holder(key).agree(key, public_key_der, secret_length)

    def unwrap(
        self,
        key: "KeyArn",
        ciphertext_blob: bytes,
        encryption_context: Mapping[str, str],
        key_length: int,
    ) -> bytes:
        """As `DirectHolder` or `RelayedHolder`."""
        return self._holder(key).unwrap(key, ciphertext_blob, encryption_context, key_length)

    def _holder(self, key: "KeyArn") -> DirectHolder | RelayedHolder:
        if key.region not in self._clients:
            if self._relayed:
                relayed = open_relayed(self._options, key=key, environ=self._environ)
                self._clients[key.region] = relayed, RelayedHolder(relayed)
            else:
                direct = open_direct(self._options, key=key, environ=self._environ)
                self._clients[key.region] = direct, DirectHolder(direct)
        return self._clients[key.region][1]


def birth_recipient(birth: "VerifiedBirth", caveats: tuple[Caveat, ...] = ()) -> HpkeRecipient:
    """The recipient that a verified birth certificate vouches for.

    Args:
        caveats: what is known against the verification, beside the certificate's own caveats.

    Raises:
        SettingError: the key is not for key agreement.
    """
    if birth.public_key is None or birth.key_usage != "KEY_AGREEMENT":
        raise SettingError(
            f"the key {birth.key} is for {birth.key_usage}, and sealing needs KEY_AGREEMENT",
            hint="make one with the key spec ECC_NIST_P256",
        )
    return public_key_recipient(birth.key, birth.public_key, caveats=caveats + birth.caveats)


def data_key_recipient(
    kms: "DirectKms", key: "KeyArn", encryption_context: Mapping[str, str] | None = None
) -> DataKeyRecipient:
    """A new data key, over TLS that ends here: over a relay the parent would choose it."""
    done = kms.generate_data_key(
        key=key, key_spec=DATA_KEY_SPEC, encryption_context=dict(encryption_context or {}) or None
    )
    assert not isinstance(done, DryRun)  # noqa: S101 - none was asked for
    return DataKeyRecipient(
        key=key,
        data_key=done.plaintext,
        ciphertext_blob=done.ciphertext_blob,
        encryption_context=dict(encryption_context or {}),
        caveats=done.caveats,
    )


def _without_relayed_answer(options: SessionOptions) -> SessionOptions:
    tolerance = options.tolerance
    allowed = tolerance.allowed | {RELAYED_ANSWER.code}
    return replace(options, tolerance=Tolerance(strict=tolerance.strict, allowed=allowed))


def _of_length(secret: bytes, length: int) -> bytes:
    """What the file says of the key's curve or length is false; KMS' answer is authentic."""
    if len(secret) != length:
        raise UntrustedAnswerError(
            f"kms answered with {len(secret)} bytes, and the file's key needs {length}",
            hint="the file names another kind of key than the one with this ARN",
        )
    return secret
