"""The catalogue of trust warnings. A caveat is data: a stable code and a sentence.

A result carries its caveats; nothing here prints. `Tolerance` is the one place that decides whether
a caveat stops the work. docs/reference/caveats.md is compared with this file by a test.
"""

from dataclasses import dataclass

from kmstool.errors import CaveatRefused, SettingError


@dataclass(frozen=True, slots=True)
class Caveat:
    """A reason to trust a result less than its look suggests.

    Attributes:
        code: stable, lower case, with hyphens; scripts may match on it.
        sentence: what it means for this result, lower case, without a full stop.
    """

    code: str
    sentence: str


SIMULATED_NSM = Caveat(
    "simulated-nsm",
    "the attestation comes from the emulator's security module and proves nothing of any hardware",
)
DEBUG_ENCLAVE = Caveat(
    "debug-enclave",
    "PCR0, PCR1 and PCR2 are zero: the enclave runs in debug mode, its console is open to the"
    " parent, and a key policy that names an image will refuse it",
)
UNPINNED_KEY = Caveat(
    "unpinned-key",
    "no full key ARN was asked for, so whoever supplied the credentials chose the key",
)
CUSTOM_ROOTS = Caveat(
    "custom-roots",
    "the connection to KMS is checked against roots that were given, not against Amazon's",
)
CUSTOM_NITRO_ROOT = Caveat(
    "custom-nitro-root",
    "attestation documents are checked against a root that was given, not against that of AWS Nitro"
    " Enclaves: they prove what whoever holds that root's key says",
)
KMS_RANDOM = Caveat(
    "kms-random",
    "random bytes from KMS are only as good as the TLS session that carried them, which needed"
    " good randomness already: prefer the enclave's own",
)
CREDENTIALS_ON_COMMAND_LINE = Caveat(
    "credentials-on-command-line",
    "credentials on the command line are visible to every process of the enclave",
)
RAW_SHARED_SECRET = Caveat(
    "raw-shared-secret",
    "the x-coordinate of an ECDH exchange is not uniformly random: derive a key from it before use",
)
CLOCK_SKEW = Caveat(
    "clock-skew",
    "the enclave's clock differs by more than a minute from KMS' Date or the attestation"
    " document's timestamp",
)
RELAYED_ANSWER = Caveat(
    "relayed-answer",
    "the answer came through the parent, which may have chosen it or changed it, and learns about"
    " the true one from whatever the program does with it",
)
UNKNOWN_SEALER = Caveat(
    "unknown-sealer",
    "nothing says who sealed the file: anyone can seal to this key, and choose content, label and"
    " counter",
)
UNVERIFIED_RECIPIENT = Caveat(
    "unverified-recipient",
    "no verified birth certificate says that this public key belongs to this key ARN, or what the"
    " key's policy is: whoever supplied it may be the one who can open the file",
)
NOTHING_EXPECTED = Caveat(
    "nothing-expected",
    "no PCR was expected, so the document says only that some enclave made it: anyone can run one",
)
PCR0_ALONE = Caveat(
    "pcr0-alone",
    "of the image PCR0 alone is named, which hashes kernel, command line and ramdisks without their"
    " lengths: bytes may move between them, so another image can have the same PCR0",
)
NOT_LOCKED = Caveat(
    "not-locked",
    "the key is not locked: whoever the account's IAM policies give kms:PutKeyPolicy to can let"
    " anybody in",
)
MIXED_IMAGES = Caveat(
    "mixed-images",
    "a Deny for each PCR knows no images: an enclave with PCR0 of one image and PCR1 and PCR2 of"
    " another is not stopped by it, if an IAM policy lets it in",
)
OUTSIDERS_MAY_SEAL = Caveat(
    "outsiders-may-seal",
    "anybody of the account may encrypt under the key without an attestation, so what the enclave"
    " decrypts says nothing of who wrote it",
)
UNATTESTED_DATA_KEY = Caveat(
    "unattested-data-key",
    "the data key came to a machine that is no enclave: whoever rules over it, or over the"
    " credentials, endpoint and roots that it uses, may know that key and open the file",
)

CATALOGUE: dict[str, Caveat] = {
    caveat.code: caveat
    for caveat in (
        SIMULATED_NSM,
        DEBUG_ENCLAVE,
        UNPINNED_KEY,
        CUSTOM_ROOTS,
        CUSTOM_NITRO_ROOT,
        KMS_RANDOM,
        CREDENTIALS_ON_COMMAND_LINE,
        RAW_SHARED_SECRET,
        CLOCK_SKEW,
        RELAYED_ANSWER,
        UNKNOWN_SEALER,
        UNVERIFIED_RECIPIENT,
        NOTHING_EXPECTED,
        PCR0_ALONE,
        NOT_LOCKED,
        MIXED_IMAGES,
        OUTSIDERS_MAY_SEAL,
        UNATTESTED_DATA_KEY,
    )
}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a caller accepts: everything with its caveats, or under `strict` only the codes allowed.

    Raises:
        SettingError: `allowed` holds a code that is not in the catalogue.
    """

    strict: bool = False
    allowed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for code in sorted(self.allowed):
            if code not in CATALOGUE:
                raise SettingError(
                    f"no caveat has the code {code!r}",
                    hint="the codes are: " + ", ".join(sorted(CATALOGUE)),
                )

    def check(self, caveats: tuple[Caveat, ...]) -> None:
        """Raises `CaveatRefused`, which names all caveats that are not accepted."""
        refused = [one for one in dict.fromkeys(caveats) if one.code not in self.allowed]
        if self.strict and refused:
            said = "; ".join(f"[{caveat.code}] {caveat.sentence}" for caveat in refused)
            allow = " ".join(f"--allow-caveat {caveat.code}" for caveat in refused)
            raise CaveatRefused(
                f"refused under --strict: {said}",
                hint=f"if that is acceptable here, add {allow}",
            )
