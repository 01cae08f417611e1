"""Birth certificates: what is believed, and one refusal for each thing that may be wrong."""

import base64
import hashlib
import json
from datetime import UTC, timedelta
from typing import Any

import pytest
from support.births import (
    ACCOUNT,
    ADMINISTRATOR,
    CHAIN,
    IMAGE,
    KEY_ARN,
    SUCCESSOR,
    TAG,
    birth_certificate,
    canonical,
    certificate_file,
    locked_policy,
    spki,
    statement_members,
    verified_birth,
)
from support.documents import NOW, document, make_chain

from kmstool import limits
from kmstool.birth import VerifiedBirth, verify_birth_certificate
from kmstool.caveats import CUSTOM_ROOTS, SIMULATED_NSM
from kmstool.errors import DocumentError, SettingError
from kmstool.policy.build import KEY_KINDS
from kmstool.roots import nitro_root_der

P384 = spki("ECC_NIST_P384")
MORE = IMAGE | {3: b"\xc3" * 48, 8: b"\xc8" * 48}
TEXT = canonical(statement_members())


def verify(data: bytes, **expected: Any) -> VerifiedBirth:
    values: dict[str, Any] = {"pcrs": IMAGE, "account": ACCOUNT, "root_der": CHAIN.root.der}
    return verify_birth_certificate(data, **values | expected)


def refused(data: bytes, step: str, message: str | None = None, **expected: Any) -> DocumentError:
    with pytest.raises(DocumentError, match=message) as error:
        verify(data, **expected)
    assert error.value.step == step, error.value
    assert str(error.value).isprintable()
    return error.value


@pytest.mark.parametrize("spec", KEY_KINDS)
def test_what_is_verified_comes_back(spec: str) -> None:
    public_key = spki(spec)
    born = verified_birth(public_key=public_key, key_spec=spec, administrator=ADMINISTRATOR)
    policy = canonical(locked_policy(IMAGE, key_spec=spec, administrator=ADMINISTRATOR))
    assert (str(born.key), born.account) == (KEY_ARN, ACCOUNT)
    assert (born.key_spec, born.key_usage) == (spec, KEY_KINDS[spec].usage)
    assert born.public_key == public_key
    assert (born.pcrs, born.images) == (IMAGE, (IMAGE,))
    assert born.administrator == ADMINISTRATOR
    assert born.policy == policy
    assert born.policy_sha384 == hashlib.sha384(policy.encode()).digest()
    assert born.made_at == NOW
    assert born.made_at.tzinfo is UTC
    assert born.module_id == "i-00000000000000000-enc0000000000000000"
    assert born.caveats == ()


def test_it_is_verified_as_of_its_own_time_and_does_not_age() -> None:
    old = NOW - timedelta(days=4000)
    times = {"not_before": old - timedelta(hours=1), "not_after": old + timedelta(hours=1)}
    chain = make_chain(root=times, ca1=times, ca2=times, leaf=times)
    user_data = TAG + hashlib.sha384(TEXT.encode()).digest()
    for at, good in ((old, True), (old + timedelta(hours=2), False)):
        signed = document(
            chain, user_data=user_data, pcrs=IMAGE, timestamp=int(at.timestamp() * 1000)
        )
        data = certificate_file(TEXT, signed)
        if good:
            assert verify(data, root_der=chain.root.der).made_at == old
        else:
            refused(data, "chain", root_der=chain.root.der)


def test_caveats_of_the_channel_travel_along() -> None:
    codes = [CUSTOM_ROOTS.code, SIMULATED_NSM.code]
    assert verify(birth_certificate(caveats=codes)).caveats == (CUSTOM_ROOTS, SIMULATED_NSM)


def test_nobody_else_makes_a_verified_birth() -> None:
    born = verified_birth()
    fields = {
        name: getattr(born, name) for name in VerifiedBirth.__dataclass_fields__ if name != "proof"
    }
    with pytest.raises(TypeError, match="only verify_birth_certificate"):
        VerifiedBirth(**fields, proof=object())
    with pytest.raises(TypeError):
        VerifiedBirth(**fields)
    assert "proof" not in repr(born)


# --- What the verifier has to say --------------------------------------------------------------


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_image_has_to_be_named_whole(missing: int) -> None:
    pcrs = {index: value for index, value in IMAGE.items() if index != missing}
    with pytest.raises(SettingError, match=f"no PCR{missing}"):
        verify(birth_certificate(), pcrs=pcrs)


def test_zeros_are_no_image() -> None:
    debug = dict.fromkeys(range(3), bytes(48))
    with pytest.raises(SettingError, match="PCR0 is zero"):
        verify(birth_certificate(pcrs=debug), pcrs=debug)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_another_image(index: int) -> None:
    refused(
        birth_certificate(),
        "expectations",
        f"PCR{index} is",
        pcrs=IMAGE | {index: SUCCESSOR[index]},
    )


def test_an_attacker_s_image_makes_genuine_certificates() -> None:
    theirs = birth_certificate(pcrs=SUCCESSOR, images=(SUCCESSOR,))
    assert verify(theirs, pcrs=SUCCESSOR).pcrs == SUCCESSOR
    refused(theirs, "expectations", "PCR0 is")


@pytest.mark.parametrize("account", ["444455556666", "", ACCOUNT + "0"])
def test_another_account(account: str) -> None:
    refused(
        birth_certificate(),
        "expectations",
        f"the key is of account {ACCOUNT}, not {account}",
        account=account,
    )


def test_more_registers_have_to_be_locked_to() -> None:
    data = birth_certificate(pcrs=MORE, images=(MORE,))
    for pcrs in (IMAGE, IMAGE | {8: MORE[8]}, MORE):
        assert verify(data, pcrs=pcrs).pcrs == MORE
    refused(data, "expectations", "PCR8 is", pcrs=MORE | {8: b"\x01" * 48})
    loose = birth_certificate(pcrs=MORE)
    assert verify(loose).pcrs == IMAGE
    refused(loose, "expectations", "not locked to PCR3", pcrs=MORE)


def test_locked_to_other_values_than_were_attested() -> None:
    other = MORE | {8: b"\x01" * 48}
    refused(birth_certificate(pcrs=MORE, images=(other,)), "expectations", "also opens for")
    refused(birth_certificate(images=(MORE,)), "expectations", "also opens for")


def test_other_images_have_to_be_named_and_to_be_there() -> None:
    both = birth_certificate(images=(IMAGE, SUCCESSOR))
    assert verify(both, also_images=[SUCCESSOR]).images == (IMAGE, SUCCESSOR)
    refused(both, "expectations", "also opens for an image whose PCR0 is b1b1")
    refused(birth_certificate(), "expectations", "does not open for", also_images=[SUCCESSOR])
    refused(
        birth_certificate(images=(SUCCESSOR,)),
        "expectations",
        "not locked to the image that made it",
        also_images=[SUCCESSOR],
    )
    third = dict.fromkeys(range(3), b"\xd0" * 48)
    three = birth_certificate(images=(IMAGE, SUCCESSOR, third))
    refused(three, "expectations", "PCR0 is d0d0", also_images=[SUCCESSOR])
    # The same image with a register more is another statement, and has to be named as well.
    twice = birth_certificate(pcrs=MORE, images=(IMAGE, MORE))
    refused(twice, "expectations", "also opens for", pcrs=MORE)
    assert verify(twice, pcrs=MORE, also_images=[IMAGE]).pcrs == MORE
    refused(twice, "expectations", pcrs=MORE, also_images=[MORE])
    with pytest.raises(SettingError):
        verify(both, also_images=[{0: SUCCESSOR[0]}])


# --- The document ------------------------------------------------------------------------------


def test_another_root() -> None:
    other = make_chain()
    refused(birth_certificate(chain=other), "chain")
    refused(birth_certificate(), "chain", root_der=nitro_root_der())
    with pytest.raises(DocumentError) as error:  # AWS' root is the default
        verify_birth_certificate(birth_certificate(), pcrs=IMAGE, account=ACCOUNT)
    assert error.value.step == "chain"


def test_the_default_root_is_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmstool.birth.nitro_root_der", lambda: CHAIN.root.der)
    assert verify_birth_certificate(birth_certificate(), pcrs=IMAGE, account=ACCOUNT)


def test_a_forged_chain_whose_root_stands_in_cabundle() -> None:
    other = make_chain()
    user_data = TAG + hashlib.sha384(TEXT.encode()).digest()
    signed = document(
        other, user_data=user_data, pcrs=IMAGE, cabundle=[CHAIN.root.der, *other.cabundle]
    )
    refused(certificate_file(TEXT, signed), "chain")


def test_a_changed_document() -> None:
    signed = bytearray(
        document(CHAIN, user_data=TAG + hashlib.sha384(TEXT.encode()).digest(), pcrs=IMAGE)
    )
    signed[-1] ^= 1
    refused(certificate_file(TEXT, bytes(signed)), "signature")
    refused(certificate_file(TEXT, bytes(signed) + b"\0"), "cbor")
    refused(certificate_file(TEXT, b"\x84"), "cbor")


DIGEST = hashlib.sha384(TEXT.encode()).digest()


@pytest.mark.parametrize(
    ("user_data", "message"),
    [
        (None, "does not begin with the tag"),
        (DIGEST, "does not begin with the tag"),
        (b"kmstool-birth-2" + DIGEST, "does not begin with the tag"),
        (TAG.upper() + DIGEST, "does not begin with the tag"),
        (b" " + TAG + DIGEST, "does not begin with the tag"),
        (TAG, "hash of another statement"),
        (TAG + DIGEST[:-1], "hash of another statement"),
        (TAG + DIGEST + b"\0", "hash of another statement"),
        (TAG + hashlib.sha384(TEXT.encode() + b"\n").digest(), "hash of another statement"),
        (TAG + hashlib.sha256(TEXT.encode()).digest(), "hash of another statement"),
    ],
    ids=[str(number) for number in range(10)],  # the hash is another in each worker of xdist
)
def test_user_data(user_data: bytes | None, message: str) -> None:
    signed = document(CHAIN, user_data=user_data, pcrs=IMAGE)
    refused(certificate_file(TEXT, signed), "expectations", message)


def test_statement_and_document_of_two_certificates() -> None:
    one, other = (json.loads(birth_certificate()) for _ in range(2))
    assert one["statement"] != other["statement"]  # each has its own public key
    refused(
        certificate_file(one["statement"], base64.b64decode(other["document"])),
        "expectations",
        "hash of another statement",
    )


# --- The statement -----------------------------------------------------------------------------

OTHER_ARN = KEY_ARN.replace(ACCOUNT, "444455556666")
FOREIGN = {"key_arn": OTHER_ARN, "account": "444455556666"}
POLICY = locked_policy(IMAGE)


def policy_with(action: str, **change: Any) -> str:
    more = {
        "Sid": "More",
        "Effect": "Allow",
        "Principal": {"AWS": ADMINISTRATOR},
        "Action": [action],
        "Resource": "*",
    }
    return canonical({**POLICY, "Statement": [*POLICY["Statement"], more | change]})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "the account": ({"account": "444455556666"}, "its account is not the one that follows"),
    "the key's account": ({"key_arn": OTHER_ARN}, "for callers of account 111122223333"),
    "both accounts": (FOREIGN, "for callers of account 111122223333"),
    "the region": ({"region": "eu-west-2"}, "its region is not the one that follows"),
    "the key's region": (
        {"key_arn": KEY_ARN.replace("eu-west-1", "eu-west-2")},
        "is not one of KMS in eu-west-2",
    ),
    "an alias": ({"key_arn": KEY_ARN.replace("key/", "alias/")}, "alias"),
    "a key id": ({"key_arn": KEY_ARN.rpartition("/")[2]}, "not a key ARN"),
    "no key": ({"key_arn": ...}, "key ARN is empty"),
    "a number for the key": ({"key_arn": 7}, "key ARN is empty"),
    "a multi-region key": (
        {"key_arn": KEY_ARN.rpartition("/")[0] + "/mrk-" + "0" * 32},
        "multi-region key",
    ),
    "MultiRegion": ({"multi_region": True}, "its multi_region is not the one that follows"),
    "MultiRegion as a number": ({"multi_region": 0}, "its multi_region is missing, or of another"),
    "the origin": ({"origin": "EXTERNAL"}, "its origin is not the one that follows"),
    "the usage": ({"key_usage": "SIGN_VERIFY"}, "its key_usage is not the one that follows"),
    "the spec": ({"key_spec": "ECC_NIST_P256"}, "public key is not one of the spec"),
    "the spec and its usage": (
        {"key_spec": "RSA_2048", "key_usage": "ENCRYPT_DECRYPT"},
        "not locked to images",
    ),
    "an unknown spec": ({"key_spec": "HMAC_256"}, "cannot be locked to an image"),
    "no public key": ({"public_key": None}, "it has no public key"),
    "a public key of another curve": (
        {"public_key": base64.b64encode(spki("ECC_NIST_P256") or b"").decode()},
        "public key is not one of the spec ECC_NIST_P384",
    ),
    "a public key of RSA": (
        {"public_key": base64.b64encode(spki("RSA_2048") or b"").decode()},
        "public key is not one of the spec ECC_NIST_P384",
    ),
    "a public key of nothing": ({"public_key": "AAAA"}, "not the DER of a SubjectPublicKeyInfo"),
    "a public key with more behind": (
        {"public_key": base64.b64encode((P384 or b"") + b"\0").decode()},
        "public key",
    ),
    "a point off the curve": (
        {"public_key": base64.b64encode((P384 or b"")[:-1] + b"\0").decode()},
        "public key",
    ),
    "a compressed point": (
        {
            "public_key": base64.b64encode(
                bytes.fromhex("3046301006072a8648ce3d020106052b81040022033200")
                + bytes([2 + (P384 or b"")[-1] % 2])
                + (P384 or b"")[24:72]
            ).decode()
        },
        "not in the one form that DER has",
    ),
    "a public key too long": ({"public_key": "AAAA" * 4000}, "has 12000 bytes, over 8192"),
    "a public key in other base64": (
        {"public_key": base64.b64encode(P384 or b"").decode() + "\n"},
        "public_key is not base64",
    ),
    "a public key of another type": ({"public_key": ["AAAA"]}, "public_key is not base64"),
    "the host": ({"kms_host": "kms.example.com"}, "is not one of KMS in eu-west-1"),
    "no host": ({"kms_host": ...}, "is not one of KMS in eu-west-1"),
    "the format": ({"format": "kmstool-birth-2"}, "not of the format kmstool-birth-1"),
    "no format": ({"format": ...}, "not of the format kmstool-birth-1"),
    "an unknown caveat": ({"caveats": ["nothing-to-see"]}, "caveat that this kmstool does not"),
    "a caveat that is none": ({"caveats": [7]}, "caveat that this kmstool does not"),
    "a caveat twice": ({"caveats": ["custom-roots", "custom-roots"]}, "names a caveat twice"),
    "caveats out of order": (
        {"caveats": ["simulated-nsm", "custom-roots"]},
        "its caveats is not the one that follows",
    ),
    "no caveats": ({"caveats": ...}, "its caveats are not a list"),
    "a member more": ({"owner": "me"}, "it has a member 'owner'"),
    "PutKeyPolicy": ({"policy": policy_with("kms:PutKeyPolicy")}, "not locked to images"),
    "everything for root": (
        {"policy": policy_with("kms:*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"})},
        "not locked to images",
    ),
    "CreateGrant": ({"policy": policy_with("kms:CreateGrant")}, "not locked to images"),
    "a policy of another account": (
        {"policy": canonical(POLICY).replace(ACCOUNT, "444455556666")},
        "for callers of account 444455556666",
    ),
    "a policy in another form": (
        {"policy": json.dumps(POLICY, indent=1).replace("\n", " ")},
        "its policy is not the one that follows",
    ),
    "a policy locked to zeros": (
        {"policy": canonical(POLICY).replace("a1" * 48, "00" * 48)},
        "PCR0 is zero",
    ),
    "a policy locked to PCR0 alone": (
        {
            "policy": canonical(
                {
                    **POLICY,
                    "Statement": [
                        {
                            **POLICY["Statement"][0],
                            "Condition": {
                                "StringEquals": {"kms:CallerAccount": ACCOUNT},
                                "StringEqualsIgnoreCase": {
                                    "kms:RecipientAttestation:PCR0": "a1" * 48
                                },
                            },
                        },
                        POLICY["Statement"][1],
                    ],
                }
            )
        },
        "no PCR1",
    ),
    "no policy": ({"policy": ""}, "not JSON"),
    "the policy's hash": ({"policy_sha384": "00" * 48}, "its policy_sha384 is not the one"),
    "no hash of the policy": ({"policy_sha384": ...}, "its policy_sha384 is missing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_thing_that_may_be_wrong_in_a_statement(name: str) -> None:
    change, message = WRONG[name]
    refused(birth_certificate(bent_statement(change)), "statement", message)


def bent_statement(change: dict[str, Any]) -> str:
    members = statement_members(public_key=P384) | change
    if "policy" in change:
        members["policy_sha384"] = hashlib.sha384(change["policy"].encode()).hexdigest()
    return canonical({name: value for name, value in members.items() if value is not ...})


def test_a_symmetric_key_has_no_public_key() -> None:
    key = base64.b64encode(P384 or b"").decode()
    members = statement_members(key_spec="SYMMETRIC_DEFAULT") | {"public_key": key}
    refused(birth_certificate(canonical(members)), "statement", "has no public key")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            canonical(statement_members(key_spec="RSA_2048", public_key=spki("RSA_3072"))),
            "public key is not one of the spec RSA_2048",
        ),
        (json.dumps(json.loads(TEXT)), "not written canonically"),
        (TEXT[:-1] + " }", "not written canonically"),
        (TEXT.replace('"eu-west-1"', '"eu\\u002dwest-1"'), "not written canonically"),
        (TEXT + " ", "not written canonically"),
        (TEXT[:-1] + ',"region":"eu-west-1"}', "names a member twice"),
        ("[]", "is not a JSON object"),
        ("{}", "not of the format"),
        ("{", "is not JSON"),
        (TEXT + "x", "is not JSON"),
        ("[" * 60_000, "is not JSON"),
        ('{"a":NaN}', "is not JSON"),
    ],
)
def test_a_statement_has_one_form(text: str, message: str) -> None:
    refused(birth_certificate(text), "statement", message)


# --- The file ----------------------------------------------------------------------------------

GOOD = birth_certificate()
PARTS: dict[str, Any] = json.loads(GOOD)


def lines(**change: Any) -> bytes:
    members = {name: value for name, value in (PARTS | change).items() if value is not ...}
    return canonical(members).encode() + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"\xff",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD + b"x",
        b" " + GOOD,
        GOOD[:-1] + b"\r\n",
        GOOD + GOOD,
        json.dumps(PARTS).encode() + b"\n",
        json.dumps(PARTS, indent=1).encode(),
        GOOD.replace(b'"format"', b'"\\u0066ormat"'),
        GOOD[:-2] + b',"format":"kmstool-birth-certificate-1"}\n',
        lines(format="kmstool-birth-certificate-2"),
        lines(format=...),
        lines(statement=...),
        lines(document=...),
        lines(more=1),
        lines(statement=7),
        lines(statement=""),
        lines(statement=TEXT + "\n"),
        lines(statement=TEXT + "é"),
        lines(statement="x" * (limits.BIRTH_STATEMENT_MAX + 1)),
        lines(document=""),
        lines(document=7),
        lines(document=PARTS["document"] + "\n"),
        lines(document="AAA"),
        lines(document="AAB="),
        lines(document=PARTS["document"][:-4] + "===="),
        lines(document=base64.b64encode(bytes(limits.DOCUMENT_MAX + 1)).decode()),
        GOOD + b" " * limits.BIRTH_CERTIFICATE_MAX,
        base64.b64encode(GOOD),
        b"[" * 100_000,
    ],
    ids=range(34),
)
def test_a_file_has_one_form(data: bytes) -> None:
    error = refused(data, "certificate")
    assert "create-key" in str(error.hint)


def test_a_file_of_another_format_or_too_long_is_told_so() -> None:
    other = lines(format="kmstool-birth-certificate-2")
    refused(other, "certificate", "not of the format kmstool-birth-certificate-1")
    refused(GOOD + b" " * limits.BIRTH_CERTIFICATE_MAX, "certificate", "more than 524288")


def test_the_largest_file_is_read_as_far_as_its_parts_allow() -> None:
    big = certificate_file("x" * limits.BIRTH_STATEMENT_MAX, bytes(limits.DOCUMENT_MAX))
    assert len(big) < limits.BIRTH_CERTIFICATE_MAX
    refused(big, "cbor")
