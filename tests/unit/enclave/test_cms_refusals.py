"""The negative vectors of cms.py: each starts from a valid message and changes one thing.

A row: what is wrong, where, how it is made, and what the message must say. The messages are made by
tests/support, which shares no code with the reader. "(C tool)" marks what AWS' C tool accepts.
"""

from collections.abc import Callable

import pytest
from support import cms_messages as at
from support.ber_tree import Node, make_indefinite, make_pieces
from support.cms_messages import algorithm_sha256, empty_label, message

from kmstool.enclave.cms import parse_enveloped_data
from kmstool.errors import CmsError
from kmstool.limits import CMS_DEPTH_MAX, CMS_PLAINTEXT_MAX, CMS_STRING_PIECES_MAX

Change = Callable[[Node], object]
Row = tuple[str, tuple[int, ...], Change, str]


# --- changes ------------------------------------------------------------------------------------
def tag(identifier: int) -> Change:
    return lambda node: setattr(node, "identifier", identifier)


def value(octets: str) -> Change:
    return lambda node: setattr(node, "value", bytes.fromhex(octets))


def pieces(*octets: bytes | Node) -> Change:
    return lambda node: make_pieces(node, *octets)


def drop(index: int) -> Change:
    return lambda node: node.children.pop(index)


def insert(index: int, child: Node) -> Change:
    return lambda node: node.children.insert(index, child)


def append(child: Node) -> Change:
    return lambda node: node.children.append(child)


def replace(new: Node) -> Change:
    def change(node: Node) -> None:
        node.identifier, node.value = new.identifier, new.value

    return change


def twice(node: Node) -> None:
    node.children.append(node.children[0])


def swap(node: Node) -> None:
    node.children.reverse()


def length(octets: str, tail: str = "") -> Change:
    def change(node: Node) -> None:
        node.length, node.tail = bytes.fromhex(octets), bytes.fromhex(tail)

    return change


def tail(octets: bytes) -> Change:
    return lambda node: setattr(node, "tail", node.tail + octets)


def wrap(levels: int) -> Change:
    """Splits an OCTET STRING into one piece, `levels` deep."""

    def change(node: Node) -> None:
        inner = Node(0x04, node.value)
        for _ in range(levels - 1):
            inner = Node(0x24, [inner])
        make_pieces(node, inner)

    return change


NULL = Node(0x05, b"")
SHA1 = at.sequence(at.oid("2b0e03021a"), NULL)
SHA384 = at.sequence(at.oid("608648016503040202"), NULL)
RSA_ENCRYPTION = "2a864886f70d010101"

REFUSED: list[Row] = [
    # ContentInfo
    ("ContentInfo is a SET", at.ROOT, tag(0x31), "ContentInfo has tag 0x11 instead of 0x10"),
    ("ContentInfo is primitive", at.ROOT, replace(Node(0x10, b"")), "ContentInfo is primitive"),
    ("ContentInfo is empty", at.ROOT, replace(Node(0x30, [])), "ContentInfo has 0 elements"),
    ("third element in ContentInfo", at.ROOT, append(NULL), "ContentInfo has 3 elements"),
    ("no content", at.ROOT, drop(1), "ContentInfo has 1 elements"),
    ("signedData", at.CONTENT_TYPE, value("2a864886f70d010702"), "contentType is the object ident"),
    (
        "id-data outside",
        at.CONTENT_TYPE,
        value(at.DATA_OID),
        "contentType is the object identifier",
    ),
    ("content type cut", at.CONTENT_TYPE, value("2a864886f70d0107"), "contentType is the object"),
    (
        "empty content type",
        at.CONTENT_TYPE,
        value(""),
        "contentType is the object identifier  inst",
    ),
    ("content type is no OID", at.CONTENT_TYPE, tag(0x0D), "contentType has tag 0x0d"),
    ("constructed OID", at.CONTENT_TYPE, pieces(b"\x2a"), "contentType is constructed"),
    ("content [1]", at.CONTENT, tag(0xA1), "ContentInfo.content has tag 0x81 instead of 0x80"),
    ("content in application class", at.CONTENT, tag(0x60), "ContentInfo.content has tag 0x40"),
    ("two contents", at.CONTENT, twice, "ContentInfo.content has 2 elements instead of 1"),
    ("content primitive", at.CONTENT, replace(Node(0x80, b"\x30\0")), "content is primitive"),
    # EnvelopedData
    ("EnvelopedData is a SET", at.ENVELOPED, tag(0x31), "EnvelopedData has tag 0x11"),
    ("version 0", at.VERSION, value("00"), "EnvelopedData.version is 0x00 instead of 0x02"),
    ("version 3", at.VERSION, value("03"), "EnvelopedData.version is 0x03 instead of 0x02"),
    ("version with a leading zero", at.VERSION, value("0002"), "EnvelopedData.version is 0x0002"),
    ("empty version", at.VERSION, value(""), "EnvelopedData.version is 0x instead"),
    ("version is ENUMERATED", at.VERSION, tag(0x0A), "EnvelopedData.version has tag 0x0a"),
    ("version constructed", at.VERSION, pieces(b"\2"), "EnvelopedData.version is constructed"),
    ("version missing", at.ENVELOPED, drop(0), "EnvelopedData has 2 elements instead of 3"),
    ("originatorInfo", at.ENVELOPED, insert(1, Node(0xA0, [])), "EnvelopedData has 4 elements"),
    (
        "unprotectedAttrs",
        at.ENVELOPED,
        append(Node(0xA1, [at.sequence(at.oid("2a03"), Node(0x31, [NULL]))])),
        "EnvelopedData has 4 elements instead of 3",
    ),
    ("trailing NULL in EnvelopedData", at.ENVELOPED, append(NULL), "EnvelopedData has 4 elements"),
    ("recipients in a SEQUENCE", at.RECIPIENTS, tag(0x30), "RecipientInfos has tag 0x10"),
    ("no recipient", at.RECIPIENTS, drop(0), "RecipientInfos has 0 elements instead of 1"),
    ("second recipient (C tool)", at.RECIPIENTS, twice, "RecipientInfos has 2 elements"),
    ("trailing NULL in recipients", at.RECIPIENTS, append(NULL), "RecipientInfos has 2 elements"),
    # KeyTransRecipientInfo
    ("key agreement recipient [1]", at.RECIPIENT, tag(0xA1), "RecipientInfo has tag 0x81"),
    ("key encryption key recipient [2]", at.RECIPIENT, tag(0xA2), "RecipientInfo has tag 0x82"),
    ("password recipient [3]", at.RECIPIENT, tag(0xA3), "RecipientInfo has tag 0x83"),
    ("other recipient [4]", at.RECIPIENT, tag(0xA4), "RecipientInfo has tag 0x84"),
    ("recipient version 0", at.RECIPIENT_VERSION, value("00"), "RecipientInfo.version is 0x00"),
    ("recipient version 4", at.RECIPIENT_VERSION, value("04"), "RecipientInfo.version is 0x04"),
    ("fifth element in recipient", at.RECIPIENT, append(NULL), "RecipientInfo has 5 elements"),
    ("encrypted key missing", at.RECIPIENT, drop(3), "RecipientInfo has 3 elements"),
    ("issuer and serial number", at.RID, replace(at.sequence(NULL)), "rid has tag 0x10 instead"),
    ("rid as OCTET STRING", at.RID, tag(0x04), "rid has tag 0x04 instead of 0x80"),
    ("rid [1]", at.RID, tag(0x81), "rid has tag 0x81 instead of 0x80"),
    ("SHA-1 key identifier", at.RID, value("aa" * 20), "rid has 20 bytes instead of 32"),
    ("empty key identifier", at.RID, value(""), "rid has 0 bytes instead of 32"),
    ("long key identifier", at.RID, pieces(bytes(32), b"\0"), "rid has 33 bytes instead of 32"),
    ("piece of rid with its tag", at.RID, pieces(Node(0x80, bytes(32))), "piece of KeyTransRecipi"),
    ("encryptedKey is a BIT STRING", at.ENCRYPTED_KEY, tag(0x03), "encryptedKey has tag 0x03"),
    ("piece is no string", at.ENCRYPTED_KEY, pieces(NULL), "encryptedKey has tag 0x05"),
    # keyEncryptionAlgorithm
    (
        "rsaEncryption (C tool)",
        at.KEY_ALGORITHM,
        replace(at.sequence(at.oid(RSA_ENCRYPTION), NULL)),
        "keyEncryptionAlgorithm is the object identifier 2a864886f70d010101 instead of",
    ),
    (
        "rsaEncryption with OAEP's parameters",
        (*at.KEY_ALGORITHM, 0),
        value(RSA_ENCRYPTION),
        "keyEncryptionAlgorithm is the object identifier",
    ),
    ("OAEP without parameters", at.KEY_ALGORITHM, drop(1), "keyEncryptionAlgorithm has 1 elem"),
    ("OAEP with more", at.KEY_ALGORITHM, append(NULL), "keyEncryptionAlgorithm has 3 elements"),
    ("OAEP with NULL", at.OAEP, replace(NULL), "RSAES-OAEP-params has tag 0x05"),
    ("OAEP defaults: SHA-1", at.OAEP, replace(at.sequence()), "RSAES-OAEP-params has 0 elements"),
    ("default hash: SHA-1", at.OAEP, drop(0), "RSAES-OAEP-params has 1 elements"),
    ("default mask: SHA-1", at.OAEP, drop(1), "RSAES-OAEP-params has 1 elements"),
    ("hash and mask swapped", at.OAEP, swap, "hashAlgorithm [0] has tag 0x81"),
    ("mask twice", at.OAEP, lambda n: n.children.__setitem__(0, n.at(1)), "[0] has tag 0x81"),
    ("hash twice", at.OAEP, lambda n: n.children.__setitem__(1, n.at(0)), "[1] has tag 0x80"),
    ("hash SHA-1", at.HASH, replace(SHA1), "hashAlgorithm is the object identifier 2b0e03021a"),
    ("hash SHA-384", at.HASH, replace(SHA384), "hashAlgorithm is the object identifier 6086480165"),
    ("two hashes", (*at.OAEP, 0), twice, "hashAlgorithm [0] has 2 elements"),
    ("hash without OID", at.HASH, replace(at.sequence()), "hashAlgorithm has 0 elements"),
    ("hash with INTEGER", (*at.HASH, 1), tag(0x02), "parameter of hashAlgorithm has tag 0x02"),
    (
        "hash with full NULL",
        (*at.HASH, 1),
        value("00"),
        "parameter of hashAlgorithm is a NULL with",
    ),
    ("hash with constructed NULL", (*at.HASH, 1), pieces(), "hashAlgorithm is constructed"),
    ("hash with two NULLs", at.HASH, append(NULL), "hashAlgorithm has 3 elements"),
    ("mask is not MGF1", (*at.MASK, 0), value(at.SHA256_OID), "maskGenAlgorithm is the object ide"),
    ("MGF1 without a hash", at.MASK, drop(1), "maskGenAlgorithm has 1 elements"),
    (
        "MGF1 with two hashes",
        at.MASK,
        append(algorithm_sha256()),
        "maskGenAlgorithm has 3 elements",
    ),
    (
        "MGF1 with SHA-1",
        at.MASK_HASH,
        replace(SHA1),
        "hash of maskGenAlgorithm is the object ident",
    ),
    ("MGF1's hash with INTEGER", (*at.MASK_HASH, 1), tag(0x02), "hash of maskGenAlgorithm has tag"),
    ("two masks", (*at.OAEP, 1), twice, "maskGenAlgorithm [1] has 2 elements"),
    (
        "a label",
        at.OAEP,
        append(Node(0xA2, [at.sequence(at.oid(at.P_SPECIFIED_OID), Node(0x04, b"x"))])),
        "the label of pSourceAlgorithm is not empty",
    ),
    (
        "a label in pieces",
        at.OAEP,
        append(
            Node(0xA2, [at.sequence(at.oid(at.P_SPECIFIED_OID), Node(0x24, [Node(4, b"x")]))]),
        ),
        "the label of pSourceAlgorithm is not empty",
    ),
    (
        "label source is not pSpecified",
        at.OAEP,
        append(Node(0xA2, [at.sequence(at.oid(at.MGF1_OID), Node(0x04, b""))])),
        "pSourceAlgorithm is the object identifier",
    ),
    (
        "label source without a label",
        at.OAEP,
        append(Node(0xA2, [at.sequence(at.oid(at.P_SPECIFIED_OID))])),
        "pSourceAlgorithm has 1 elements",
    ),
    (
        "label twice",
        at.OAEP,
        append(Node(0xA2, [at.sequence(at.oid(at.P_SPECIFIED_OID), Node(4, b""), NULL)])),
        "pSourceAlgorithm has 3 elements",
    ),
    (
        "label NULL",
        at.OAEP,
        append(Node(0xA2, [at.sequence(at.oid(at.P_SPECIFIED_OID), NULL)])),
        "the label of pSourceAlgorithm has tag 0x05",
    ),
    ("two label sources", at.OAEP, append(Node(0xA2, [NULL, NULL])), "[2] has 2 elements"),
    ("parameter [3]", at.OAEP, append(Node(0xA3, [NULL])), "pSourceAlgorithm [2] has tag 0x83"),
    (
        "four parameters",
        at.OAEP,
        lambda n: n.children.extend([empty_label(), Node(0xA3, [])]),
        "RSAES-OAEP-params has 4 elements instead of 2 or 3",
    ),
    # EncryptedContentInfo
    ("content info is a SET", at.CONTENT_INFO, tag(0x31), "EncryptedContentInfo has tag 0x11"),
    (
        "content of signedData",
        at.INNER_TYPE,
        value("2a864886f70d010702"),
        "Info.contentType is the",
    ),
    ("content elsewhere", at.CONTENT_INFO, drop(2), "EncryptedContentInfo has 2 elements"),
    ("trailing in content info", at.CONTENT_INFO, append(NULL), "EncryptedContentInfo has 4 elem"),
    (
        "AES-128-CBC",
        (*at.CONTENT_ALGORITHM, 0),
        value("608648016503040102"),
        "contentEncryptionAlg",
    ),
    (
        "AES-256-GCM",
        (*at.CONTENT_ALGORITHM, 0),
        value("60864801650304012e"),
        "contentEncryptionAlg",
    ),
    (
        "3DES",
        (*at.CONTENT_ALGORITHM, 0),
        value("2a864886f70d0307"),
        "contentEncryptionAlgorithm is",
    ),
    ("no IV", at.CONTENT_ALGORITHM, drop(1), "contentEncryptionAlgorithm has 1 elements"),
    ("two IVs", at.CONTENT_ALGORITHM, append(Node(4, bytes(16))), "Algorithm has 3 elements"),
    ("NULL for an IV", at.IV, replace(NULL), "the IV has tag 0x05 instead of 0x04"),
    ("IV of 3 bytes (C tool)", at.IV, value("aabbcc"), "the IV has 3 bytes instead of 16"),
    ("IV of 15 bytes", at.IV, value("aa" * 15), "the IV has 15 bytes instead of 16"),
    ("IV of 17 bytes", at.IV, value("aa" * 17), "the IV has 17 bytes instead of 16"),
    ("empty IV", at.IV, value(""), "the IV has 0 bytes instead of 16"),
    ("IV of 3 bytes in pieces", at.IV, pieces(b"\0", b"\0\0"), "the IV has 3 bytes instead of 16"),
    ("content [1]", at.CIPHERTEXT, tag(0x81), "encryptedContent has tag 0x81 instead of 0x80"),
    ("content universal", at.CIPHERTEXT, tag(0x04), "encryptedContent has tag 0x04"),
    ("empty content", at.CIPHERTEXT, value(""), "encryptedContent has 0 bytes, not a positive"),
    ("content without pieces", at.CIPHERTEXT, pieces(), "encryptedContent has 0 bytes, not a pos"),
    (
        "half a block",
        at.CIPHERTEXT,
        value("aa" * 8),
        "encryptedContent has 8 bytes, not a positive",
    ),
    ("a block and a byte", at.CIPHERTEXT, value("aa" * 17), "encryptedContent has 17 bytes, not a"),
    ("[0] in [0]", at.CIPHERTEXT, pieces(Node(0x80, bytes(16))), "a piece of encryptedContent has"),
    (
        "UTF8String in [0]",
        at.CIPHERTEXT,
        pieces(Node(12, bytes(16))),
        "a piece of encryptedContent",
    ),
    (
        "too long",
        at.CIPHERTEXT,
        value("aa" * (CMS_PLAINTEXT_MAX + 32)),
        f"encryptedContent has {CMS_PLAINTEXT_MAX + 32} bytes, more than {CMS_PLAINTEXT_MAX + 16}",
    ),
    # The same things at the level of BER
    (
        "too many pieces",
        at.CIPHERTEXT,
        pieces(*[b""] * CMS_STRING_PIECES_MAX, bytes(16)),
        f"encryptedContent has {CMS_STRING_PIECES_MAX + 1} pieces",
    ),
    ("too deep", at.CIPHERTEXT, wrap(CMS_DEPTH_MAX - 4), f"nested deeper than {CMS_DEPTH_MAX}"),
    ("trailing byte (C tool)", at.ROOT, tail(b"\0"), "more bytes follow"),
    ("trailing end-of-contents", at.ROOT, tail(b"\0\0"), "more bytes follow"),
    (
        "end-of-contents inside",
        at.RECIPIENT,
        append(Node(0, b"")),
        "an end-of-contents stands where",
    ),
    ("long length of the IV", at.IV, length("8110"), "takes more octets than it needs"),
    ("zero in a length", at.ENCRYPTED_KEY, length("83000100"), "takes more octets than it needs"),
    (
        "short of one byte",
        at.CIPHERTEXT,
        length("31"),
        "a value is cut off, 48 octets of it are there",
    ),
    (
        "indefinite IV, primitive",
        at.IV,
        length("80", "0000"),
        "primitive encoding has an indefinite",
    ),
    ("reserved length", at.CIPHERTEXT, length("ff"), "the length 0xff is reserved"),
    ("indefinite and not ended", at.CONTENT, length("80"), "end-of-contents is missing"),
    ("high tag number", at.VERSION, tag(0x1F), "the tag number is above 30"),
]


@pytest.mark.parametrize(
    ("path", "change", "fragment"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_refuses(path: tuple[int, ...], change: Change, fragment: str) -> None:
    tree = message()
    change(tree.at(*path))
    with pytest.raises(CmsError) as caught:
        parse_enveloped_data(tree.encode())
    assert fragment in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_each_negative_vector_is_refused_in_indefinite_form_too() -> None:
    for name, path, change, _fragment in REFUSED:
        tree = message()
        for node in tree.walk():
            if node.identifier & 0x20:
                make_indefinite(node)
        change(tree.at(*path))
        try:
            parse_enveloped_data(tree.encode())
        except CmsError:
            continue
        pytest.fail(f"accepted: {name}")
