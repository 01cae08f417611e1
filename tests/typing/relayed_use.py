"""The relayed setup as it is meant: this file must type-check without a word."""

from kmstool.arn import KeyArn
from kmstool.enclave.relayed import RelayedKms, UnauthenticatedKey
from kmstool.session import SessionOptions, open_relayed


def open_invoice(kms: RelayedKms, arn: KeyArn, encrypted_key: bytes, invoice: bytes) -> bytes:
    key: UnauthenticatedKey = kms.decrypt(encrypted_key, key=arn, key_length=32)
    return key.open_aes_gcm(invoice[:12], invoice[12:], b"invoice")


def open_message(kms: RelayedKms, arn: KeyArn, public_key: bytes, message: bytes) -> bytes:
    secret = kms.derive_shared_secret(public_key, key=arn, secret_length=48)
    key = secret.derive(length=32, info=b"message")
    return key.open_chacha20_poly1305(message[:12], message[12:], b"")


def bare(arn: KeyArn, encrypted_key: bytes) -> bytes:
    with open_relayed(SessionOptions(via=("relay",)), key=arn) as kms:
        key = kms.decrypt(encrypted_key, key=arn, key_length=16)
        return key.reveal_bytes_the_parent_may_have_chosen()
