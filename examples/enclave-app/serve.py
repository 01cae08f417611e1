"""An application for an enclave: sells at prices that nobody outside could change, with a MAC.

A client sends the name of an article and a newline, and gets `NAME PRICE MAC`: whoever shares the
secret checks the MAC, and knows that somebody who has it quoted that price, at some time. The
parent can play an old answer again; a real protocol has a nonce of the client's under the MAC. An
unknown name gives `?`.

    serve.py ADDRESS SECRET PRICES      ADDRESS: vsock://any:PORT, or unix:PATH to try it out
"""

import hmac
import json
import socket
import sys
from pathlib import Path

MOST = 256  # bytes of a question
PATIENCE = 10.0  # seconds for a client to ask: the parent can open connections and say nothing


def main(arguments: list[str]) -> None:
    """Serves one client after the other, for ever."""
    address, secret_file, prices_file = arguments
    secret = Path(secret_file).read_bytes()
    prices: dict[str, int] = json.loads(Path(prices_file).read_text())
    with listener(address) as listening:
        sys.stderr.write("ready\n")
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(PATIENCE)
                try:
                    connection.sendall(answer(question(connection), secret, prices))
                except OSError:
                    continue  # the client has gone, or was too slow: the next one


def listener(address: str) -> socket.socket:
    """A listening socket; on a vsock, whatever CID the enclave was given."""
    if address.startswith("unix:"):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(address.removeprefix("unix:"))
    else:
        port = int(address.removeprefix("vsock://any:"))
        listening = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        listening.bind((socket.VMADDR_CID_ANY, port))
    listening.listen()
    return listening


def question(connection: socket.socket) -> str:
    """One line, bounded; what is no name of an article is as good as none."""
    data = b""
    while not data.endswith(b"\n") and len(data) < MOST:
        piece = connection.recv(MOST - len(data))
        if not piece:
            break
        data += piece
    return data.decode("ascii", "replace").strip()


def answer(name: str, secret: bytes, prices: dict[str, int]) -> bytes:
    """The price with its MAC."""
    if name not in prices:
        return b"?\n"
    quoted = f"{name} {prices[name]}"
    return f"{quoted} {hmac.digest(secret, quoted.encode(), 'sha256').hex()}\n".encode()


if __name__ == "__main__":
    main(sys.argv[1:])
