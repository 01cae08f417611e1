"""Fuzzes the CMS reader: what it accepts is the one message with these fields, in some form."""

from support.ber_tree import Node, make_indefinite, make_pieces
from support.cms_messages import OAEP, OCTET_STRINGS, empty_label, message

from kmstool.emulator.cms_writer import Shape, build_enveloped_data
from kmstool.enclave.cms import EnvelopedData, parse_enveloped_data
from kmstool.errors import CmsError


def target(data: bytes) -> None:
    try:
        envelope = parse_enveloped_data(data)
    except CmsError as refusal:
        check(refusal)
        return
    assert len(envelope.recipient_key_identifier) == 32
    assert len(envelope.iv) == 16
    assert envelope.ciphertext
    assert len(envelope.ciphertext) % 16 == 0
    for shape in Shape:
        assert parse_enveloped_data(written(envelope, shape)) == envelope


def check(refusal: CmsError) -> None:
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 300


def written(envelope: EnvelopedData, shape: Shape) -> bytes:
    return build_enveloped_data(
        recipient_key_identifier=envelope.recipient_key_identifier,
        encrypted_key=envelope.encrypted_key,
        iv=envelope.iv,
        ciphertext=envelope.ciphertext,
        shape=shape,
    )


def _in_pieces() -> Node:
    tree = message()
    tree.at(*OAEP).children.append(empty_label())
    for path in OCTET_STRINGS:
        node = tree.at(*path)
        assert isinstance(node.value, bytes)
        make_pieces(node, node.value[:3], node.value[3:])
    for node in tree.walk():
        if node.identifier & 0x20:
            make_indefinite(node)
    return tree


_VALID = parse_enveloped_data(message().encode())
SEEDS: list[bytes] = [*(written(_VALID, shape) for shape in Shape), _in_pieces().encode()]
