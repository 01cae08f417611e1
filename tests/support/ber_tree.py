"""A third hand at BER, for tests: a tree that can be bent anywhere and then encoded.

It shares nothing with `kmstool.enclave.ber` (the reader) or asn1crypto (the writer), and checks
nothing: a test says exactly which octets it wants.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Node:
    """One element. `length` and `tail` override what a shortest definite encoding would write."""

    identifier: int
    value: bytes | list[Node]
    length: bytes | None = None
    tail: bytes = b""

    def encode(self) -> bytes:
        body = (
            self.value
            if isinstance(self.value, bytes)
            else b"".join(n.encode() for n in self.value)
        )
        length = shortest_length(len(body)) if self.length is None else self.length
        return bytes([self.identifier]) + length + body + self.tail

    @property
    def children(self) -> list[Node]:
        assert isinstance(self.value, list)
        return self.value

    def at(self, *path: int) -> Node:
        node = self
        for index in path:
            node = node.children[index]
        return node

    def walk(self) -> list[Node]:
        below = [] if isinstance(self.value, bytes) else self.value
        return [self, *(node for child in below for node in child.walk())]


def shortest_length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def make_indefinite(node: Node) -> None:
    node.length, node.tail = b"\x80", b"\x00\x00"


def make_pieces(node: Node, *pieces: bytes | Node) -> None:
    """Turns an OCTET STRING into its constructed form, with these pieces."""
    node.identifier |= 0x20
    node.value = [Node(0x04, piece) if isinstance(piece, bytes) else piece for piece in pieces]
