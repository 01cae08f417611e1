"""Fuzzes the reader of CloudTrail events, and the request that an event makes."""

import json

from support.events import DENIED, EVENT, RECIPIENT

from kmstool.errors import InputError, SettingError
from kmstool.limits import NSM_PCR_LENGTH
from kmstool.policy.cloudtrail import parse_events
from kmstool.policy.explain_event import event_line

ROLE = "arn:aws:iam::111122223333:role/enclave"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"


def target(data: bytes) -> None:
    try:
        events = parse_events(data)
    except InputError as error:
        check_text(str(error))
        return
    assert events
    for event in events:
        assert event_line(event).isprintable()
        assert all(len(value) == NSM_PCR_LENGTH for value in (event.pcrs or {}).values())
        try:
            request = event.request(principal=ROLE, key_arn=KEY)
        except SettingError as error:
            check_text(str(error))
            continue
        # A key is known, or unknown with its reason, never both.
        for name in event.unknown:
            assert name not in event.context
        if event.pcrs is None:
            assert not request.attested or "nitrotpm" in str(request.context)


def check_text(text: str) -> None:
    assert text.isprintable()


SEEDS: list[bytes] = [
    json.dumps(EVENT).encode(),
    json.dumps({"Records": [EVENT | DENIED, EVENT | {"eventName": "Encrypt"}]}).encode(),
    json.dumps({"Events": [{"CloudTrailEvent": json.dumps(EVENT)}]}).encode(),
    json.dumps(EVENT | {"requestParameters": None, "vpcEndpointId": "vpce-1"}).encode(),
    json.dumps(
        EVENT
        | {
            "userIdentity": {"type": "IAMUser", "arn": ROLE.replace("role", "user")},
            "additionalEventData": {
                "recipient": {
                    "attestationDocumentNitroTPMPCR4": RECIPIENT["attestationDocumentEnclavePCR4"]
                }
            },
        }
    ).encode(),
]
