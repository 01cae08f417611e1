"""The plain client's service with kmstool's library: the key goes into an AEAD, and nowhere else.

relay_program.py --serve NAME   as the plain client's --serve
"""

import base64
import os
import sys
from pathlib import Path

from kmstool.arn import parse_key_arn
from kmstool.errors import KmstoolError
from kmstool.session import SessionOptions, open_relayed


def main(name: str) -> None:
    message = Path(name).read_bytes()
    arn = parse_key_arn(os.environ["TRIAL_KEY"])
    with open_relayed(SessionOptions(via=("relay",)), key=arn) as kms:
        for line in sys.stdin:
            try:
                blob, context = base64.b64decode(line), {"app": "trial"}
                key = kms.decrypt(blob, key=arn, key_length=32, encryption_context=context)
                key.open_aes_gcm(message[:12], message[12:], b"")
                print("done", flush=True)
            except KmstoolError as error:
                print(f"failed: {error!r}", flush=True)


if __name__ == "__main__":
    main(sys.argv[2])
