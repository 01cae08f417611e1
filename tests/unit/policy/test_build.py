"""What a locked policy lets whom do, asked of the evaluator, and what is taken for one."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.births import (
    ACCOUNT,
    ADMINISTRATOR,
    IMAGE,
    KEY_ARN,
    SUCCESSOR,
    image_statement,
    locked_policy,
)

from kmstool.errors import PolicyError, SettingError
from kmstool.limits import POLICY_IMAGES_MAX, POLICY_MAX
from kmstool.policy.build import KEY_KINDS, Image, LockedPolicy, read_locked_policy
from kmstool.policy.evaluate import Request, attestation_keys, evaluate, parse_policy

ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
STRANGER = "arn:aws:iam::444455556666:role/enclave"
SPECS = {
    "ECC_NIST_P256": ["DeriveSharedSecret"],
    "SYMMETRIC_DEFAULT": ["Decrypt", "GenerateDataKey", "GenerateDataKeyPair"],
    "RSA_3072": ["Decrypt"],
}
LOOK = ["DescribeKey", "GetKeyPolicy", "GetPublicKey", "ListGrants"]
ADMINISTER = ["DisableKey", "ScheduleKeyDeletion"]
# FACTS' list, and whatever else would change who may do what, or the key under it.
WAYS_AROUND = [
    "ReEncryptFrom", "ReEncryptTo", "CreateGrant", "ReplicateKey", "UpdatePrimaryRegion",
    "PutKeyPolicy", "ImportKeyMaterial", "Decapsulate",
]  # fmt: skip
NOBODYS = [
    *WAYS_AROUND, "Encapsulate", "EnableKey", "CancelKeyDeletion", "RevokeGrant", "RetireGrant",
    "TagResource", "CreateAlias", "UpdateAlias", "EnableKeyRotation", "RotateKeyOnDemand",
    "DeleteImportedKeyMaterial", "GetParametersForImport", "Sign", "Encrypt",
    "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPairWithoutPlaintext", "GenerateMac",
    "UpdateKeyDescription", "SynchronizeMultiRegionKey", "ConnectCustomKeyStore",
]  # fmt: skip


def locked(key_spec: str = "ECC_NIST_P256", *images: dict[int, bytes]) -> LockedPolicy:
    return LockedPolicy(
        account=ACCOUNT,
        key_spec=key_spec,
        images=tuple(map(Image, images or (IMAGE,))),
        administrator=ADMINISTRATOR,
    )


def allowed(
    policy: LockedPolicy,
    action: str,
    principal: str = ROLE,
    pcrs: dict[int, bytes] | None = None,
    iam: tuple[str, ...] = ("kms:*",),
) -> bool:
    """By default with IAM policies that allow everything: the key policy alone has to hold."""
    context = {} if pcrs is None else attestation_keys(pcrs)
    request = Request(
        action=f"kms:{action}", principal=principal, resource=KEY_ARN, context=context
    )
    return evaluate(parse_policy(policy.text), request, identity_allows=iam).allowed


@pytest.mark.parametrize("spec", SPECS)
def test_the_image_may_use_it_and_nothing_more(spec: str) -> None:
    policy = locked(spec)
    everything = {name for names in SPECS.values() for name in names} | {*NOBODYS, *ADMINISTER}
    for action in everything:
        assert allowed(policy, action, pcrs=IMAGE) is (action in SPECS[spec]), action
    # A role needs no IAM policy of its own.
    assert all(allowed(policy, action, pcrs=IMAGE, iam=()) for action in SPECS[spec])


@pytest.mark.parametrize(
    "pcrs",
    [
        None,
        dict.fromkeys(range(3), bytes(48)),
        SUCCESSOR,
        IMAGE | {0: b"\x09" * 48},
        IMAGE | {1: b"\x09" * 48},
        IMAGE | {2: b"\x09" * 48},
        {0: IMAGE[0], 1: IMAGE[1]},
    ],
    ids=["not attested", "debug", "another", "PCR0", "PCR1", "PCR2", "PCR2 missing"],
)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("principal", [ROLE, ROOT, ADMINISTRATOR])
def test_no_other_image_may(spec: str, pcrs: dict[int, bytes] | None, principal: str) -> None:
    for action in SPECS[spec]:
        assert not allowed(locked(spec), action, principal, pcrs)


@pytest.mark.parametrize("action", [*NOBODYS, "*"])
@pytest.mark.parametrize("principal", [ROLE, ROOT, ADMINISTRATOR, STRANGER])
@pytest.mark.parametrize("pcrs", [None, IMAGE])
def test_the_ways_around_are_nobody_s(
    action: str, principal: str, pcrs: dict[int, bytes] | None
) -> None:
    for spec in SPECS:
        if action == "*":  # and no pattern stands in the policy that could cover more than it says
            assert "*" not in json.dumps(actions_of(locked(spec)))
        else:
            assert not allowed(locked(spec), action, principal, pcrs), spec


def actions_of(policy: LockedPolicy) -> list[list[str]]:
    return [one["Action"] for one in json.loads(policy.text)["Statement"]]


def test_the_account_may_look_and_others_may_not() -> None:
    policy = locked()
    for action in LOOK:
        for principal in (ROLE, ROOT, ADMINISTRATOR):
            assert allowed(policy, action, principal, iam=())
        assert not allowed(policy, action, STRANGER)
    for action in ["DeriveSharedSecret", *ADMINISTER]:
        assert not allowed(policy, action, STRANGER, IMAGE)


@pytest.mark.parametrize("action", ADMINISTER)
def test_the_administrator_may_switch_it_off(action: str) -> None:
    policy = locked()
    assert allowed(policy, action, ADMINISTRATOR, iam=())
    for principal in (ROLE, ROOT):
        assert not allowed(policy, action, principal)
    alone = LockedPolicy(account=ACCOUNT, key_spec="RSA_2048", images=(Image(IMAGE),))
    assert not allowed(alone, action, ADMINISTRATOR)


def test_two_images_open_each_with_all_of_its_own_pcrs() -> None:
    policy = locked("SYMMETRIC_DEFAULT", IMAGE, SUCCESSOR)
    assert allowed(policy, "Decrypt", pcrs=IMAGE)
    assert allowed(policy, "Decrypt", pcrs=SUCCESSOR)
    assert not allowed(policy, "Decrypt", pcrs=IMAGE | {1: SUCCESSOR[1]})


def test_more_pcrs_are_needed_too() -> None:
    policy = locked("RSA_2048", IMAGE | {3: b"\x03" * 48, 8: b"\x08" * 48})
    assert allowed(policy, "Decrypt", pcrs=IMAGE | {3: b"\x03" * 48, 8: b"\x08" * 48})
    assert not allowed(policy, "Decrypt", pcrs=IMAGE | {3: b"\x03" * 48, 8: bytes(48)})
    assert not allowed(policy, "Decrypt", pcrs=IMAGE | {3: b"\x03" * 48})


def test_usages() -> None:
    assert {spec: kind.usage for spec, kind in KEY_KINDS.items()} == {
        "ECC_NIST_P256": "KEY_AGREEMENT",
        "ECC_NIST_P384": "KEY_AGREEMENT",
        "ECC_NIST_P521": "KEY_AGREEMENT",
        "SYMMETRIC_DEFAULT": "ENCRYPT_DECRYPT",
        "RSA_2048": "ENCRYPT_DECRYPT",
        "RSA_3072": "ENCRYPT_DECRYPT",
        "RSA_4096": "ENCRYPT_DECRYPT",
    }


def test_one_set_of_images_has_one_text() -> None:
    assert locked("RSA_2048", IMAGE, SUCCESSOR) == locked("RSA_2048", SUCCESSOR, IMAGE)
    text = locked("RSA_2048", SUCCESSOR, IMAGE).text
    wanted = locked_policy(IMAGE, SUCCESSOR, key_spec="RSA_2048", administrator=ADMINISTRATOR)
    assert text == json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    assert len(locked().sha384) == 48
    assert locked().sha384 != locked("RSA_2048").sha384


@pytest.mark.parametrize(
    ("pcrs", "message"),
    [
        ({0: b"\x01" * 48, 1: b"\x01" * 48}, "the image has no PCR2"),
        ({}, "the image has no PCR0"),
        (IMAGE | {0: bytes(48)}, "PCR0 is zero"),
        (IMAGE | {8: bytes(48)}, "PCR8 is zero"),
        (IMAGE | {1: b"\x01" * 47}, "PCR1 has 47 bytes"),
        (IMAGE | {32: b"\x01" * 48}, "there is no PCR32"),
        (IMAGE | {-1: b"\x01" * 48}, "there is no PCR-1"),
    ],
)
def test_what_is_no_image(pcrs: dict[int, bytes], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Image(pcrs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"account": "11112222333"}, "is not an account id"),
        ({"account": "*"}, "is not an account id"),
        ({"key_spec": "HMAC_256"}, "cannot be locked"),
        ({"key_spec": "ECC_SECG_P256K1"}, "cannot be locked"),
        ({"images": ()}, "0 images were named"),
        ({"images": (Image(IMAGE), Image(IMAGE))}, "named twice"),
        ({"administrator": ROOT}, "is not the ARN of a role or user"),
        ({"administrator": "*"}, "is not the ARN of a role or user"),
        ({"administrator": ADMINISTRATOR + "*"}, "is not the ARN of a role or user"),
        ({"administrator": STRANGER}, "is not of the account 111122223333"),
    ],
)
def test_what_cannot_be_locked(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "account": ACCOUNT,
        "key_spec": "RSA_2048",
        "images": (Image(IMAGE),),
    }
    with pytest.raises(SettingError, match=message):
        LockedPolicy(**values | change)


def images(count: int, registers: int = 3) -> tuple[Image, ...]:
    return tuple(
        Image({index: bytes([number + 1]) * 48 for index in range(registers)})
        for number in range(count)
    )


def test_bounds_of_a_policy() -> None:
    most = LockedPolicy(account=ACCOUNT, key_spec="RSA_2048", images=images(POLICY_IMAGES_MAX))
    assert len(most.text) < POLICY_MAX
    with pytest.raises(SettingError, match="17 images were named"):
        LockedPolicy(account=ACCOUNT, key_spec="RSA_2048", images=images(17))
    with pytest.raises(SettingError, match="KMS takes 32768"):
        LockedPolicy(account=ACCOUNT, key_spec="RSA_2048", images=images(16, registers=32))


# --- Reading back ------------------------------------------------------------------------------

Bend = Callable[[dict[str, Any]], object]


def bent(bend: Bend) -> str:
    policy = locked_policy(
        IMAGE, SUCCESSOR, key_spec="SYMMETRIC_DEFAULT", administrator=ADMINISTRATOR
    )
    bend(policy)
    return json.dumps(policy, indent=2)


def statement(policy: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = policy["Statement"][index]
    return found


def pcr_values(policy: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statement(policy)["Condition"]["StringEqualsIgnoreCase"]
    return found


SAME: dict[str, Bend] = {
    "as it is": lambda p: None,
    "lists for single values": lambda p: statement(p).update(
        Principal={"AWS": ["*"]}, Resource=["*"]
    ),
    "a star for everybody": lambda p: statement(p).update(Principal="*"),
    "other order of actions": lambda p: statement(p)["Action"].reverse(),
    "other order of statements": lambda p: p["Statement"].reverse(),
    "another sid": lambda p: statement(p, 3).update(Sid="other"),
    "no sids": lambda p: [one.pop("Sid") for one in p["Statement"]],
    "an id": lambda p: p.update(Id="key-1"),
    "values in lists": lambda p: pcr_values(p).update(
        {name: [value] for name, value in pcr_values(p).items()}
    ),
    "values in capitals": lambda p: pcr_values(p).update(
        {name: value.upper() for name, value in pcr_values(p).items()}
    ),
    "condition keys in lower case": lambda p: statement(p)["Condition"].update(
        StringEqualsIgnoreCase={name.lower(): value for name, value in pcr_values(p).items()}
    ),
}


@pytest.mark.parametrize("bend", SAME.values(), ids=SAME.keys())
def test_a_policy_in_another_form_is_the_same(bend: Bend) -> None:
    found = read_locked_policy(bent(bend), key_spec="SYMMETRIC_DEFAULT")
    assert found == locked("SYMMETRIC_DEFAULT", IMAGE, SUCCESSOR)


def add(**more: Any) -> Bend:
    return lambda p: p["Statement"].append(
        {"Effect": "Allow", "Principal": {"AWS": ADMINISTRATOR}, "Resource": "*", **more}
    )


OTHER: dict[str, Bend] = {
    "PutKeyPolicy for somebody": add(Action="kms:PutKeyPolicy"),
    "a wildcard": add(Action="kms:*"),
    "root's delegation": add(Action="kms:*", Principal={"AWS": ROOT}),
    "even a Deny": add(Action="kms:*", Effect="Deny"),
    "an action more for the image": lambda p: statement(p)["Action"].append("kms:CreateGrant"),
    "a pattern for the image": lambda p: statement(p).update(Action=["kms:Decrypt*"]),
    "an action less": lambda p: statement(p)["Action"].pop(),
    "an action more for looking": lambda p: statement(p, 2)["Action"].append("kms:EnableKey"),
    "an action more for the administrator": lambda p: statement(p, 3)["Action"].append(
        "kms:EnableKey"
    ),
    "a value more of a PCR": lambda p: pcr_values(p).update(
        {"kms:RecipientAttestation:PCR0": ["01" * 48, "aa" * 48]}
    ),
    "a PCR less": lambda p: pcr_values(p).pop("kms:RecipientAttestation:PCR2"),
    "PCR0 alone": lambda p: statement(p)["Condition"].update(
        StringEqualsIgnoreCase={"kms:RecipientAttestation:ImageSha384": "01" * 48}
    ),
    "a PCR of NitroTPM": lambda p: pcr_values(p).update(
        {"kms:RecipientAttestation:NitroTPMPCR4": "01" * 48}
    ),
    "zeros": lambda p: pcr_values(p).update({"kms:RecipientAttestation:PCR0": "00" * 48}),
    "another operator": lambda p: statement(p)["Condition"].update(
        StringLike=statement(p)["Condition"].pop("StringEqualsIgnoreCase")
    ),
    "only where it exists": lambda p: statement(p)["Condition"].update(
        StringEqualsIgnoreCaseIfExists=statement(p)["Condition"].pop("StringEqualsIgnoreCase")
    ),
    "a set operator": lambda p: statement(p)["Condition"].update(
        {
            "ForAllValues:StringEqualsIgnoreCase": statement(p)["Condition"].pop(
                "StringEqualsIgnoreCase"
            )
        }
    ),
    "no condition": lambda p: statement(p).pop("Condition"),
    "no account": lambda p: statement(p)["Condition"].pop("StringEquals"),
    "two accounts": lambda p: statement(p)["Condition"].update(
        StringEquals={"kms:CallerAccount": [ACCOUNT, "444455556666"]}
    ),
    "another account in one place": lambda p: statement(p, 2)["Condition"].update(
        StringEquals={"kms:CallerAccount": "444455556666"}
    ),
    "a role in the place of everybody": lambda p: statement(p).update(Principal={"AWS": ROLE}),
    "everybody but one": lambda p: statement(p).update(
        NotAction=statement(p).pop("Action"), Effect="Allow"
    ),
    "all but these keys": lambda p: statement(p).update(NotResource=statement(p).pop("Resource")),
    "another resource": lambda p: statement(p).update(Resource="arn:aws:kms:*:*:key/*"),
    "two administrators": add(
        Action=["kms:DescribeKey", "kms:DisableKey", "kms:GetKeyPolicy", "kms:ListGrants",
                "kms:ScheduleKeyDeletion"],
        Principal={"AWS": ROLE},
    ),
    "an administrator of no one": lambda p: statement(p, 3).update(
        Principal={"AWS": "AROAEXAMPLEROLEIDXXXX"}
    ),
    "everybody an administrator": lambda p: statement(p, 3).update(Principal={"AWS": "*"}),
    "no looking": lambda p: p["Statement"].pop(2),
    "no image": lambda p: p.update(Statement=p["Statement"][2:]),
    "an image twice": lambda p: p["Statement"].append(image_statement(IMAGE, 9, "SYMMETRIC")),
    "the older language": lambda p: p.update(Version="2008-10-17"),
    "no effect": lambda p: statement(p).update(Effect="Deny"),
    "whichever account calls": lambda p: statement(p)["Condition"].update(
        StringEquals={"kms:CallerAccount": "${aws:PrincipalAccount}"}
    ),
    "a value with a default": lambda p: pcr_values(p).update(
        {"kms:RecipientAttestation:PCR0": "${aws:PrincipalTag/pcr, '" + "01" * 48 + "'}"}
    ),
    "a star that is no wildcard": lambda p: statement(p).update(Resource="${*}"),
    # Python makes a k of the Kelvin sign; to KMS it is the key of nothing.
    "a PCR's name that only looks so": lambda p: pcr_values(p).update(
        {"\u212ams:RecipientAttestation:PCR0": pcr_values(p).pop("kms:RecipientAttestation:PCR0")}
    ),
    "an account's name that only looks so": lambda p: statement(p, 2)["Condition"].update(
        StringEquals={"\u212ams:CallerAccount": ACCOUNT}
    ),
}  # fmt: skip


@pytest.mark.parametrize("bend", OTHER.values(), ids=OTHER.keys())
def test_a_policy_that_says_anything_else_is_refused(bend: Bend) -> None:
    with pytest.raises(PolicyError):
        read_locked_policy(bent(bend), key_spec="SYMMETRIC_DEFAULT")


def test_a_policy_for_another_kind_of_key_is_refused() -> None:
    text = locked("SYMMETRIC_DEFAULT").text
    with pytest.raises(PolicyError, match="not locked to images"):
        read_locked_policy(text, key_spec="ECC_NIST_P256")
    with pytest.raises(SettingError, match="cannot be locked"):
        read_locked_policy(text, key_spec="HMAC_256")
    with pytest.raises(PolicyError, match="not JSON"):
        read_locked_policy("{", key_spec="ECC_NIST_P256")
