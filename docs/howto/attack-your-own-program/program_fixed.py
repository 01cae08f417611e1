"""The same program without the bug: it knows which key it means."""

import base64
import os
import sys

from kmstool.arn import parse_key_arn
from kmstool.session import SessionOptions, open_direct

KEY = parse_key_arn(os.environ["APP_KEY_ARN"])  # ENV in the Dockerfile: a part of the image
with open_direct(SessionOptions(timeout=3), key=KEY) as kms:
    ciphertext = base64.b64decode(sys.stdin.read())
    opened = kms.decrypt(ciphertext, key=KEY, encryption_context={"app": "shop"})
print("the password is", opened.plaintext.decode())
