"""Makes the RSA key of a recipient in a thread, beside whatever else a process has to do first.

Generation takes 35 ms at the median, with a long tail, and releases the interpreter's lock. A
program that knows it will need a key calls `make_key_early` before its own imports; this module
draws in little for that reason. A key that was made early goes to the first `Recipient` alone.
"""

import threading

from cryptography.hazmat.primitives.asymmetric import rsa

from kmstool.limits import RECIPIENT_RSA_BITS


class KeyInTheMaking:
    """An RSA key being generated in a thread of its own."""

    def __init__(self) -> None:
        self._key: rsa.RSAPrivateKey | None = None
        self._error: Exception | None = None
        # No daemon: one that outlives the interpreter is killed inside Rust code, which aborts.
        self._thread = threading.Thread(target=self._generate, name="recipient-key")
        self._thread.start()

    def result(self) -> rsa.RSAPrivateKey:
        """Waits for the key. Raises what the generation raised."""
        self._thread.join()
        if self._key is None:
            raise self._error or RuntimeError("the key generation ended without a key")
        return self._key

    def _generate(self) -> None:
        try:
            self._key = rsa.generate_private_key(65537, RECIPIENT_RSA_BITS)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error


_early: list[KeyInTheMaking] = []


def make_key_early() -> None:
    """Starts the key that the next `next_key` will return."""
    _early.append(KeyInTheMaking())


def next_key() -> KeyInTheMaking:
    """A key that nobody else has or will have: one made early, or else a new one."""
    try:
        return _early.pop()  # atomic, so no two recipients share a key
    except IndexError:
        return KeyInTheMaking()
