"""Operations that use keys on data, with `Recipient` where KMS has it.

Every one of them goes the same way: find the key, ask its policy, look at its state and usage, do
the work, stop there for a dry run, answer. With a `Recipient` the secret leaves only inside the CMS
of `Call.attested`, and the plain member is not in the answer at all.
"""

import secrets

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from kmstool.emulator.call import (
    Call,
    check_symmetric,
    check_usable,
    check_usage,
)
from kmstool.emulator.ciphertext import (
    invalid_ciphertext,
    open_blob,
    parse_blob_key_id,
    seal_blob,
)
from kmstool.emulator.keys import KEY_AGREEMENT, SYMMETRIC, Key, make_data_key_pair
from kmstool.emulator.refusal import Refusal, invalid
from kmstool.emulator.validation import Parameters

_IGNORE_CIPHERTEXT = "IGNORE_CIPHERTEXT"
_OAEP = {
    "RSAES_OAEP_SHA_1": hashes.SHA1,  # one of KMS' algorithms; OAEP needs no collision resistance
    "RSAES_OAEP_SHA_256": hashes.SHA256,
}


def encrypt(call: Call) -> Parameters:
    """Encrypt."""
    parameters = call.parameters
    algorithm = parameters.get("EncryptionAlgorithm", SYMMETRIC)
    key = call.find_key(parameters["KeyId"])
    context = call.context_of(key, "EncryptionContext")
    call.authorise(key, context=context, extra={"kms:EncryptionAlgorithm": algorithm})
    _check_cipher(key, call.operation, algorithm)
    blob = _encrypt(key, parameters["Plaintext"], context, algorithm)
    call.check_dry_run()
    return {"CiphertextBlob": blob, "KeyId": key.arn, "EncryptionAlgorithm": algorithm}


def decrypt(call: Call) -> Parameters:
    """Decrypt."""
    parameters = call.parameters
    algorithm = parameters.get("EncryptionAlgorithm", SYMMETRIC)
    key = _source_key(call, "KeyId", algorithm)
    context = call.context_of(key, "EncryptionContext")
    call.authorise(key, context=context, extra={"kms:EncryptionAlgorithm": algorithm})
    _check_cipher(key, call.operation, algorithm)
    if _ignores_ciphertext(call):
        call.check_dry_run()
    plaintext = _decrypt(key, parameters["CiphertextBlob"], context, algorithm)
    call.check_dry_run()
    answer = {"KeyId": key.arn, "EncryptionAlgorithm": algorithm}
    if key.material_id is not None and call.attested is None:
        answer["KeyMaterialId"] = key.material_id
    return answer | _secret(call, "Plaintext", plaintext)


def re_encrypt(call: Call) -> Parameters:
    """ReEncrypt: asks both keys' policies, for `kms:ReEncryptFrom` and `kms:ReEncryptTo`."""
    parameters = call.parameters
    source_algorithm = parameters.get("SourceEncryptionAlgorithm", SYMMETRIC)
    algorithm = parameters.get("DestinationEncryptionAlgorithm", SYMMETRIC)
    source = _source_key(call, "SourceKeyId", source_algorithm)
    destination = call.find_key(parameters["DestinationKeyId"])
    source_context = call.context_of(source, "SourceEncryptionContext")
    context = call.context_of(destination, "DestinationEncryptionContext")
    same = {"kms:ReEncryptOnSameKey": str(source.key_id == destination.key_id).lower()}
    call.authorise(
        source,
        action="kms:ReEncryptFrom",
        named="SourceKeyId",
        context=source_context,
        extra=same | {"kms:EncryptionAlgorithm": source_algorithm},
    )
    call.authorise(
        destination,
        action="kms:ReEncryptTo",
        named="DestinationKeyId",
        context=context,
        extra=same | {"kms:EncryptionAlgorithm": algorithm},
    )
    _check_cipher(source, call.operation, source_algorithm)
    _check_cipher(destination, call.operation, algorithm)
    if _ignores_ciphertext(call):
        call.check_dry_run()
    plaintext = _decrypt(source, parameters["CiphertextBlob"], source_context, source_algorithm)
    blob = _encrypt(destination, plaintext, context, algorithm)
    call.check_dry_run()
    answer = {
        "CiphertextBlob": blob,
        "SourceKeyId": source.arn,
        "KeyId": destination.arn,
        "SourceEncryptionAlgorithm": source_algorithm,
        "DestinationEncryptionAlgorithm": algorithm,
    }
    if source.material_id is not None:
        answer["SourceKeyMaterialId"] = source.material_id
    if destination.material_id is not None:
        answer["DestinationKeyMaterialId"] = destination.material_id
    return answer


def generate_data_key(call: Call) -> Parameters:
    """GenerateDataKey."""
    plaintext, answer = _data_key(call)
    return answer | _secret(call, "Plaintext", plaintext)


def generate_data_key_without_plaintext(call: Call) -> Parameters:
    """GenerateDataKeyWithoutPlaintext."""
    return _data_key(call)[1]


def generate_data_key_pair(call: Call) -> Parameters:
    """GenerateDataKeyPair."""
    private_key, answer = _data_key_pair(call)
    return answer | _secret(call, "PrivateKeyPlaintext", private_key)


def generate_data_key_pair_without_plaintext(call: Call) -> Parameters:
    """GenerateDataKeyPairWithoutPlaintext."""
    return _data_key_pair(call)[1]


def generate_random(call: Call) -> Parameters:
    """GenerateRandom: no key is involved, so the identity policies alone decide."""
    call.authorise_identity("*")
    if "CustomKeyStoreId" in call.parameters:
        raise Refusal("CustomKeyStoreNotFoundException", "The emulator has no custom key stores")
    count = call.parameters.get("NumberOfBytes")
    if count is None:
        raise invalid("NumberOfBytes is required")
    return _secret(call, "Plaintext", secrets.token_bytes(count))


def derive_shared_secret(call: Call) -> Parameters:
    """DeriveSharedSecret: the x-coordinate of an ECDH exchange with the caller's public key."""
    parameters = call.parameters
    key = call.find_key(parameters["KeyId"])
    call.authorise(key, extra={"kms:KeyAgreementAlgorithm": parameters["KeyAgreementAlgorithm"]})
    check_usable(key)
    check_usage(key, call.operation, KEY_AGREEMENT)
    private_key = key.private_key()
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - its usage says so
    peer = _load_peer(parameters["PublicKey"], private_key.curve)
    shared = private_key.exchange(ec.ECDH(), peer)
    call.check_dry_run()
    return {
        "KeyId": key.arn,
        "KeyAgreementAlgorithm": parameters["KeyAgreementAlgorithm"],
        "KeyOrigin": "AWS_KMS",
    } | _secret(call, "SharedSecret", shared)


def _secret(call: Call, member: str, secret: bytes) -> Parameters:
    if call.attested is None:
        return {member: secret}
    return {"CiphertextForRecipient": call.attested.seal(secret)}


def _data_key(call: Call) -> tuple[bytes, Parameters]:
    parameters = call.parameters
    key = call.find_key(parameters["KeyId"])
    context = call.context_of(key, "EncryptionContext")
    call.authorise(key, context=context, extra={"kms:EncryptionAlgorithm": SYMMETRIC})
    check_usable(key)
    check_symmetric(key, call.operation)
    spec, count = parameters.get("KeySpec"), parameters.get("NumberOfBytes")
    if (spec is None) == (count is None):
        raise invalid("Please specify either number of bytes or key spec.")
    plaintext = secrets.token_bytes(count or {"AES_128": 16, "AES_256": 32}[str(spec)])
    call.check_dry_run()
    return plaintext, {
        "CiphertextBlob": _encrypt(key, plaintext, context, SYMMETRIC),
        "KeyId": key.arn,
        "KeyMaterialId": key.material_id,
    }


def _data_key_pair(call: Call) -> tuple[bytes, Parameters]:
    parameters = call.parameters
    spec = parameters["KeyPairSpec"]
    key = call.find_key(parameters["KeyId"])
    context = call.context_of(key, "EncryptionContext")
    call.authorise(
        key,
        context=context,
        extra={"kms:DataKeyPairSpec": spec, "kms:EncryptionAlgorithm": SYMMETRIC},
    )
    check_usable(key)
    check_symmetric(key, call.operation)
    call.check_dry_run()
    private_key, public_key = make_data_key_pair(spec)
    return private_key, {
        "PrivateKeyCiphertextBlob": _encrypt(key, private_key, context, SYMMETRIC),
        "PublicKey": public_key,
        "KeyId": key.arn,
        "KeyPairSpec": spec,
        "KeyMaterialId": key.material_id,
    }


def _ignores_ciphertext(call: Call) -> bool:
    ignores = _IGNORE_CIPHERTEXT in call.parameters.get("DryRunModifiers", [])
    if ignores and not call.parameters.get("DryRun"):
        raise invalid("DryRunModifiers apply only when DryRun is true.")
    return ignores


def _source_key(call: Call, member: str, algorithm: str) -> Key:
    """The key to decrypt with: the one that the request names, and the blob's own has to be it."""
    named = call.parameters.get(member)
    blob: bytes | None = call.parameters.get("CiphertextBlob")
    if blob is None and not _ignores_ciphertext(call):
        raise invalid(
            "1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy"
            " constraint: Member must not be null"
        )
    key = call.find_key(named) if named is not None else None
    if algorithm != SYMMETRIC or _ignores_ciphertext(call):
        if key is None:
            raise invalid(f"{member} is required in this request")
        return key
    blob_key_id = parse_blob_key_id(blob or b"")
    if key is not None:
        if blob_key_id is not None and blob_key_id != key.key_id and key.is_symmetric:
            raise Refusal(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this"
                " operation.",
            )
        return key
    blob_key = call.store.key(blob_key_id, call.now) if blob_key_id is not None else None
    if blob_key is None:
        raise invalid_ciphertext()
    return call.find_key(blob_key.arn)


def _check_cipher(key: Key, operation: str, algorithm: str) -> None:
    check_usable(key)
    check_usage(key, operation)
    if algorithm not in key.encryption_algorithms:
        raise Refusal(
            "InvalidKeyUsageException",
            f"EncryptionAlgorithm {algorithm} cannot be used with key spec {key.spec}.",
        )


def _encrypt(key: Key, plaintext: bytes, context: dict[str, str], algorithm: str) -> bytes:
    if algorithm == SYMMETRIC:
        return seal_blob(key.secret_key(), key.key_id, plaintext, context)
    scheme = _OAEP[algorithm]()
    private_key = _rsa(key)
    longest = private_key.key_size // 8 - 2 * scheme.digest_size - 2
    if len(plaintext) > longest:
        raise invalid(
            f"Algorithm {algorithm} and key spec {key.spec} cannot encrypt data larger than"
            f" {longest} bytes."
        )
    return private_key.public_key().encrypt(plaintext, _oaep(algorithm))


def _decrypt(key: Key, blob: bytes, context: dict[str, str], algorithm: str) -> bytes:
    if algorithm == SYMMETRIC:
        return open_blob(key.secret_key(), blob, context)
    try:
        return _rsa(key).decrypt(blob, _oaep(algorithm))
    except ValueError:
        raise invalid_ciphertext() from None


def _rsa(key: Key) -> rsa.RSAPrivateKey:
    private_key = key.private_key()
    assert isinstance(private_key, rsa.RSAPrivateKey)  # noqa: S101 - `_check_cipher` made sure
    return private_key


def _oaep(algorithm: str) -> padding.OAEP:
    scheme = _OAEP[algorithm]
    return padding.OAEP(mgf=padding.MGF1(scheme()), algorithm=scheme(), label=None)


def _load_peer(der: bytes, curve: ec.EllipticCurve) -> ec.EllipticCurvePublicKey:
    try:
        peer = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid("PublicKey is not the DER of a valid public key.") from None
    if not isinstance(peer, ec.EllipticCurvePublicKey) or peer.curve.name != curve.name:
        raise invalid(f"PublicKey must be on the curve of the KMS key, {curve.name}.")
    return peer
