"""Makes a KMS key inside an enclave, locked to its image, and writes its birth certificate.

The law of this file, in order:
(1) The image is what the security module says: PCR0, PCR1, PCR2 and more on wish, each of them
    locked and not zero. Anything else is refused before KMS hears of it.
(2) The key is asked for once. From then on every error names it: it exists, and nothing is hidden.
(3) KMS' word is taken for nothing that can be read back: metadata, live policy, grants, public key.
(4) The certificate holds what was read back, and only then is it signed.

Never: a secret. `birth.py` verifies what is made here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kmstool import limits
from kmstool.administration import KeyMetadata
from kmstool.arn import KeyArn
from kmstool.attestation.document import parse_document
from kmstool.birth_statement import (
    ORIGIN,
    Statement,
    build_certificate,
    is_kms_host,
    statement_digest,
    user_data_of,
)
from kmstool.caveats import Caveat
from kmstool.enclave.admin import KmsAdmin
from kmstool.enclave.nsm import Nsm
from kmstool.errors import (
    DocumentError,
    KmsError,
    KmstoolError,
    PolicyError,
    SettingError,
    UntrustedAnswerError,
)
from kmstool.policy.build import IMAGE_PCRS, KEY_KINDS, Image, LockedPolicy, read_locked_policy

Value = TypeVar("Value")

# KMS may answer so for a key of a moment ago, until all of it knows ("eventual consistency").
_NOT_YET: Final = ("NotFoundException", "AccessDeniedException")
_READ_BACK_PAUSE: Final = 0.2  # seconds; doubles


@dataclass(frozen=True, slots=True)
class Born:
    """A new key and its certificate.

    Attributes:
        statement: what the certificate says of it.
        certificate: the file, up to `BIRTH_CERTIFICATE_MAX` bytes.
    """

    statement: Statement
    certificate: bytes = field(repr=False)

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What was known against trusting the channel; the certificate holds it too."""
        return self.statement.caveats


def make_key(
    nsm: Nsm,
    admin: KmsAdmin,
    *,
    account: str,
    key_spec: str,
    lock_pcrs: Sequence[int] = (),
    also_images: Sequence[Mapping[int, bytes]] = (),
    administrator: str | None = None,
    caveats: tuple[Caveat, ...] = (),
    created: Callable[[KeyArn], None] = lambda _key: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Born:
    """Makes a KMS key that opens for this image alone, and a certificate that says so.

    Args:
        account: 12 digits, the account that has to own the key: the credentials come from the
            parent, and may be of another.
        key_spec: one of `policy.build.KEY_KINDS`.
        lock_pcrs: registers of this enclave to lock the key to, beside PCR0, PCR1 and PCR2.
        also_images: other images that it shall open for, such as a successor known today.
        administrator: the ARN of who may disable it and schedule its deletion. Without one nobody
            can, for ever.
        caveats: of the channel to KMS; they go into the certificate.
        created: called with the key's ARN as soon as KMS has made it.

    Raises:
        SettingError: before anything is sent: an argument, or an enclave that a key cannot be
            locked to (debug mode, an open register).
        KmstoolError: after KMS made the key, any error names it and says what to do with it.
    """
    # (1) What this enclave is; a register that can still change says nothing.
    image = Image({i: locked_register(nsm, i) for i in sorted({*IMAGE_PCRS, *lock_pcrs})})
    policy = LockedPolicy(
        account=account,
        key_spec=key_spec,
        images=(image, *map(Image, also_images)),
        administrator=administrator,
    )
    if not is_kms_host(admin.host, admin.region):
        raise SettingError(
            f"the host {admin.host} is not one of KMS in {admin.region}",
            hint="anybody can have a name under Amazon's roots: a key is made at KMS' own names and"
            " at those of VPC endpoints for KMS",
        )
    # (2) The key, and from here on never an error without its name.
    metadata = admin.create_key(
        key_spec=key_spec, key_usage=KEY_KINDS[key_spec].usage, policy=policy.text
    )
    created(metadata.key)
    try:
        statement = _read_back(admin, metadata, policy, caveats, sleep)
        document = _certify(nsm, image, statement)
    except KmstoolError as error:
        say_that_it_exists(error, metadata.key, administrator)
        raise
    return Born(statement, build_certificate(statement.text, document))


def locked_register(nsm: Nsm, index: int) -> bytes:
    """The 48 bytes of a register that names something and can no longer change.

    Raises:
        SettingError: it is open, or zero. NsmError: the security module does not tell.
    """
    pcr = nsm.describe_pcr(index)
    if not pcr.lock:
        raise SettingError(
            f"PCR{index} of this enclave is not locked",
            hint="whoever runs in the enclave could still extend it; lock it first, with LockPCR",
        )
    if not any(pcr.data):
        raise SettingError(
            f"PCR{index} of this enclave is zero",
            hint="it runs in debug mode, in which a key cannot be kept: start it without"
            " --debug-mode"
            if index in IMAGE_PCRS
            else "nothing was measured into it, so it names nothing",
        )
    return pcr.data


def _read_back(
    admin: KmsAdmin,
    metadata: KeyMetadata,
    policy: LockedPolicy,
    caveats: tuple[Caveat, ...],
    sleep: Callable[[float], None],
) -> Statement:
    """What KMS says of the key by now, which has to be all that was asked for and nothing more."""
    key = metadata.key
    _check_metadata(metadata, policy, admin.region)
    _check_metadata(_patiently(lambda: admin.describe_key(key), sleep), policy, admin.region)
    live = _patiently(lambda: admin.get_key_policy(key), sleep)
    try:
        found = read_locked_policy(live, key_spec=policy.key_spec)
    except PolicyError as error:
        raise UntrustedAnswerError(
            f"the live key policy is not the one asked for: {error}"
        ) from None
    if found != policy:
        raise UntrustedAnswerError("the live key policy is locked, but not to what was asked for")
    if grants := _patiently(lambda: admin.list_grants(key), sleep):
        raise UntrustedAnswerError(f"the key has {len(grants)} grants, the first is {grants[0]}")
    public_key = None
    if policy.key_spec != "SYMMETRIC_DEFAULT":
        answer = _patiently(lambda: admin.get_public_key(key), sleep)
        _equal("KeySpec of the public key", answer.key_spec, policy.key_spec)
        _equal("KeyUsage of the public key", answer.key_usage, KEY_KINDS[policy.key_spec].usage)
        public_key = answer.public_key
    return Statement(
        key=key, public_key=public_key, policy=policy, kms_host=admin.host, caveats=caveats
    )


def _check_metadata(metadata: KeyMetadata, policy: LockedPolicy, region: str) -> None:
    _equal("account", metadata.key.account_id, policy.account)
    _equal("region", metadata.key.region, region)
    _equal("KeySpec", metadata.key_spec, policy.key_spec)
    _equal("KeyUsage", metadata.key_usage, KEY_KINDS[policy.key_spec].usage)
    _equal("Origin", metadata.origin, ORIGIN)
    _equal("MultiRegion", str(metadata.multi_region).lower(), "false")
    _equal("KeyManager", metadata.key_manager, "CUSTOMER")
    _equal("KeyState", metadata.key_state, "Enabled")


def _equal(name: str, got: str, asked: str) -> None:
    if got != asked:
        raise UntrustedAnswerError(f"the new key's {name} is {got}, not {asked}")


def _patiently(ask: Callable[[], Value], sleep: Callable[[float], None]) -> Value:
    pause = _READ_BACK_PAUSE
    for _ in range(limits.READ_BACK_ATTEMPTS - 1):
        try:
            return ask()
        except KmsError as error:
            if error.code not in _NOT_YET:
                raise
        sleep(pause)
        pause *= 2
    return ask()


def _certify(nsm: Nsm, image: Image, statement: Statement) -> bytes:
    document = nsm.attest_birth(statement_digest(statement.text))
    # Whoever verifies it will look at these; a document that would fail must not be handed out.
    parsed = parse_document(document)
    if parsed.user_data != user_data_of(statement.text) or any(
        parsed.pcrs.get(index) != value for index, value in image.pcrs.items()
    ):
        raise DocumentError(
            "the security module signed a document of other content than it was asked for",
            step="expectations",
        )
    return document


def say_that_it_exists(error: KmstoolError, key: KeyArn, administrator: str | None) -> None:
    """Adds to an error that a key stays behind, and what to do with it.

    For whoever loses a certificate, too: none can be made for a key that exists already.
    """
    advice = advice_on_what_stays(key, administrator)
    error.args = (f"{error}; the key {key} exists now, without a birth certificate",)
    error.hint = f"{error.hint}; {advice}" if error.hint else advice


def advice_on_what_stays(key: KeyArn, administrator: str | None) -> str:
    """What to do with a key that has no certificate."""
    if administrator is None:
        return (
            "do not use the key; nobody may delete it, since no administrator was named: it stays"
            " and costs what a key costs, unless AWS' support helps"
        )
    return (
        f"do not use the key; as {administrator}: aws kms schedule-key-deletion"
        f" --region {key.region} --key-id {key.key_id}"
    )
