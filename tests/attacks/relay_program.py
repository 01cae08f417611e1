"""The same job over the relay with kmstool: the key goes into an AEAD, and nowhere else.

relay_program.py MESSAGE CIPHERTEXT   nonce and AES-GCM message, KMS ciphertext, both in base64;
                                      prints what the message says
relay_program.py --serve NAME         as the plain client's --serve
"""

import base64
import os
import sys
from pathlib import Path

from kmstool.arn import parse_key_arn
from kmstool.cli.exit_codes import exit_code_of
from kmstool.errors import KmstoolError
from kmstool.session import SessionOptions, open_relayed

KEY = parse_key_arn(os.environ["TRIAL_KEY"])


def open_message(message: bytes, ciphertext: str) -> bytes:
    with open_relayed(
        SessionOptions(via=("relay",), timeout=3), key=KEY, environ=os.environ
    ) as kms:
        blob = base64.b64decode(ciphertext)
        context = {"app": "trial"}
        key = kms.decrypt(blob, key=KEY, key_length=32, encryption_context=context)
        return key.open_aes_gcm(message[:12], message[12:], b"")


def main(arguments: list[str]) -> int:
    if arguments[0] == "--serve":
        message = Path(arguments[1]).read_bytes()
        for line in sys.stdin:
            try:
                open_message(message, line)
                print("done", flush=True)
            except KmstoolError as error:
                print(f"failed: {error!r}", flush=True)
        return 0
    try:
        sys.stdout.buffer.write(open_message(base64.b64decode(arguments[0]), arguments[1]))
    except KmstoolError as error:
        print(f"kmstool: error: {error}", file=sys.stderr)
        return int(exit_code_of(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
