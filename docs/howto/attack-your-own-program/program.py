"""An enclave program: decrypts what the parent gives it on stdin. It has a bug."""

import base64
import sys

from kmstool.arn import ANY_KEY
from kmstool.session import SessionOptions, open_direct

with open_direct(SessionOptions(timeout=3), key=ANY_KEY) as kms:
    ciphertext = base64.b64decode(sys.stdin.read())
    opened = kms.decrypt(ciphertext, key=ANY_KEY, encryption_context={"app": "shop"})
print("the password is", opened.plaintext.decode())
