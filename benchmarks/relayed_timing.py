"""How far a relayed answer that does not open takes the same time, whatever the reason.

For each reason 2,000 answers, no two alike, in rounds of random order: in a round every reason has
the same recipient key. Timed is what a parent can watch: from the answer's CMS to the one exception
after the AEAD. `AUC` is the chance that an answer of that reason takes longer than one with good
padding and a wrong key (ties count half): 0.5 is no difference, 1 always. It is Mann and Whitney's
U, so under no difference it is normal with a known deviation; `z` counts those. `same again` is the
wrong key a second time and shows what z does by chance.

For comparison the same answers go through an unwrap that raises, as over TLS: that is the oracle.
There is no goal here: Python promises nothing about time.
"""

import gc
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from report import Row, figure, main

from kmstool.arn import parse_key_arn
from kmstool.caveats import RELAYED_ANSWER
from kmstool.emulator.cms_writer import Shape, write_enveloped_data
from kmstool.enclave import cms
from kmstool.enclave.relayed import UnauthenticatedKey
from kmstool.errors import CmsError, NotOpenedError

ROUNDS = 2000
RECIPIENTS = 8
ARN = parse_key_arn("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
NONCE = bytes(12)
SEALED = AESGCM(os.urandom(32)).encrypt(NONCE, bytes(1024), b"")  # under a key that nobody has
WRONG_KEY = "good padding, wrong key"


class Answers:
    """Makes answers to one recipient key, each failing for one reason."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self._public = self.key.public_key()
        self._spki = self._public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def _answer(self, plaintext_length: int = 32) -> bytes:
        plaintext = os.urandom(plaintext_length)
        return write_enveloped_data(plaintext, self._spki, shape=Shape.KMS_EXPLICIT)

    def wrong_key(self) -> bytes:
        return self._answer()

    def oaep(self) -> bytes:
        answer = self._answer()
        found = cms.parse_enveloped_data(answer).encrypted_key
        return answer.replace(found, b"\0" + os.urandom(255))

    def content_key_length(self) -> bytes:
        answer = self._answer()
        found = cms.parse_enveloped_data(answer).encrypted_key
        oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
        return answer.replace(found, self._public.encrypt(os.urandom(24), oaep))

    def cbc_padding(self) -> bytes:
        answer = self._answer()
        found = cms.parse_enveloped_data(answer).ciphertext
        return answer.replace(found, found[:-1] + bytes([found[-1] ^ 1]))

    def plaintext_length(self) -> bytes:
        return self._answer(40)


REASONS: dict[str, Callable[[Answers], bytes]] = {
    WRONG_KEY: Answers.wrong_key,
    "same again": Answers.wrong_key,
    "OAEP": Answers.oaep,
    "content key length": Answers.content_key_length,
    "CBC padding": Answers.cbc_padding,
    "plaintext length": Answers.plaintext_length,
}


def relayed(answer: bytes, key: rsa.RSAPrivateKey) -> None:
    try:
        secret = cms.unwrap_unauthenticated(answer, key, 32)
        opened = UnauthenticatedKey(secret, key_id=ARN, caveats=(RELAYED_ANSWER,))
        opened.open_aes_gcm(NONCE, SEALED, b"")
    except NotOpenedError:
        return
    raise AssertionError("it opened")


def raising(answer: bytes, key: rsa.RSAPrivateKey) -> None:
    try:
        AESGCM(cms.unwrap(answer, key)).decrypt(NONCE, SEALED, b"")
    except (CmsError, InvalidTag, ValueError):
        return
    raise AssertionError("it opened")


def measure(unwrap: Callable[[bytes, rsa.RSAPrivateKey], None]) -> dict[str, list[float]]:
    """Microseconds for each reason, in rounds of random order."""
    makers = [Answers() for _ in range(RECIPIENTS)]
    times: dict[str, list[float]] = {reason: [] for reason in REASONS}
    for number in range(ROUNDS + 50):
        maker = makers[number % RECIPIENTS]
        answers = [(reason, make(maker)) for reason, make in REASONS.items()]
        random.shuffle(answers)
        for reason, answer in answers:
            start = time.perf_counter_ns()
            unwrap(answer, maker.key)
            took = time.perf_counter_ns() - start
            if number >= 50:  # the first ones warm caches
                times[reason].append(took / 1000)
    return times


def area(longer: list[float], shorter: list[float]) -> tuple[float, float]:
    """AUC and z of `longer` against `shorter`, by the sum of ranks; ties share theirs."""
    ranked = sorted([(value, 1) for value in longer] + [(value, 0) for value in shorter])
    ranks, start = 0.0, 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        ranks += (start + 1 + end) / 2 * sum(which for _, which in ranked[start:end])
        start = end
    n, m = len(longer), len(shorter)
    u = ranks - n * (n + 1) / 2
    return u / (n * m), (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


def rows() -> list[Row]:
    gc.disable()
    random.seed()
    found = []
    for name, unwrap in (("", relayed), ("raising: ", raising)):
        times = measure(unwrap)
        for reason, values in times.items():
            tenths = statistics.quantiles(values, n=10)
            found += [
                figure(f"{name}{reason}: median", statistics.median(values), "us"),
                figure(f"{name}{reason}: 10 %", tenths[0], "us"),
                figure(f"{name}{reason}: 90 %", tenths[-1], "us"),
            ]
            if reason != WRONG_KEY:
                auc, z = area(values, times[WRONG_KEY])
                found += [
                    figure(f"{name}{reason}: AUC", auc, "of 1"),
                    figure(f"{name}{reason}: z", z, "deviations"),
                ]
    return found


if __name__ == "__main__":
    sys.exit(main("Relayed answers that do not open: time by reason, 2,000 of each", rows))
