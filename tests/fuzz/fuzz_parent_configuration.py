"""Fuzzes `kmstool-parent.toml` and vsock-proxy's allow list, which it may name.

The input is the file, and after a line of dashes what every file holds that it names.
"""

from kmstool.errors import InputError
from kmstool.parent.allowlist import parse_allowlist
from kmstool.parent.configuration import describe, parse_configuration, read_configuration
from kmstool.parent.mistakes import MistakesError

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SEEDS: list[bytes] = [
    f"""allowed_cids = [16]
allowlist = "a"
metrics = "tcp://127.0.0.1:9100"
[limits]
connections = 100
idle_seconds = 1.5
[[forward]]
listen = "vsock://:8000"
to = "[::1]:443"
[credentials]
listen = "vsock://:8002"
assume_role = "arn:aws:iam::111122223333:role/enclave"
only_kms = ["{KEY}"]
[relay]
listen = "vsock://:8001"
allow_keys = ["{KEY}"]
endpoint_url = "https://kms.eu-west-1.amazonaws.com"
---
allowlist:
- {{address: "::1", port: 443}}
- address: kms.eu-west-1.amazonaws.com
  port: 443
""".encode(),
    b"""[credentials]
listen = "unix:c"
session_policy = "p"
assume_role = "arn:aws:iam::111122223333:role/enclave"
---
{"Statement": [{"Effect": "Allow"}]}""",
]


def target(data: bytes) -> None:
    text, _, named = data.partition(b"\n---\n")
    reading = read_configuration(text, read_file=lambda _name: named)
    for mistake in reading.mistakes:
        assert str(mistake)
    for line in describe(reading.configuration):
        assert line
    try:
        configuration = parse_configuration(text, read_file=lambda _name: named)
    except MistakesError as error:
        assert error.mistakes == reading.mistakes  # noqa: PT017 - the error is what is fuzzed
    else:
        assert not reading.mistakes
        assert configuration == reading.configuration
        assert configuration.routes or configuration.credentials or configuration.relay
    try:
        permitted = parse_allowlist(named)
    except InputError:
        return
    for allowed in permitted:
        assert 1 <= allowed.port <= 65_535
        assert allowed.host.isascii()
