"""Fuzzes the client's reading of NSM answers: every kind of request gets the same bytes."""

from kmstool import limits
from kmstool.emulator.cbor_writer import encode
from kmstool.enclave import nsm_answers
from kmstool.errors import NsmError


def target(data: bytes) -> None:
    accepted = 0
    for parse in (
        nsm_answers.parse_describe_nsm,
        nsm_answers.parse_get_random,
        nsm_answers.parse_attestation,
        nsm_answers.parse_describe_pcr,
        nsm_answers.parse_extend_pcr,
        nsm_answers.parse_lock_pcr,
        nsm_answers.parse_lock_pcrs,
    ):
        try:
            result = parse(data)
        except NsmError as error:
            check_refusal(error)
            continue
        accepted += 1
        if isinstance(result, bytes):
            assert 1 <= len(result) <= limits.NSM_RESPONSE_MAX
    assert accepted <= 1  # an answer is of one kind


def check_refusal(error: NsmError) -> None:
    assert str(error).isprintable()


_PCR = bytes(48)
SEEDS: list[bytes] = [
    encode(
        {
            "DescribeNSM": {
                "version_major": 1,
                "version_minor": 0,
                "version_patch": 0,
                "module_id": "i-0-enc0",
                "max_pcrs": 32,
                "locked_pcrs": [0, 1],
                "digest": "SHA384",
            }
        }
    ),
    encode({"GetRandom": {"random": bytes(256)}}),
    encode({"Attestation": {"document": bytes(300)}}),
    encode({"DescribePCR": {"lock": False, "data": _PCR}}),
    encode({"ExtendPCR": {"data": _PCR}}),
    encode("LockPCR"),
    encode("LockPCRs"),
    encode({"Error": "InvalidIndex"}),
]
