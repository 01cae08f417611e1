"""A data key on a machine that is no enclave: KMS GenerateDataKey without attestation.

With what an AWS SDK finds there, by botocore: its whole chain of credentials, its endpoint, its
roots. None of that is the trusted room's, hence the caveat `unattested-data-key` on every data key
from here. The key's policy has to allow this role kms:GenerateDataKey without conditions on an
attestation; opening can still be for one image alone.

Never: inside an image, which has no botocore; a data key in a message, a `repr` or a log.
Source: KMS API Reference, GenerateDataKey.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from kmstool import limits
from kmstool.caveats import UNATTESTED_DATA_KEY
from kmstool.errors import (
    CredentialsError,
    KmsError,
    KmstoolError,
    SettingError,
    TransportError,
    UntrustedAnswerError,
    printable,
)
from kmstool.refusals import parse_error
from kmstool.sealing.format import KEY_LENGTH
from kmstool.sealing.recipients import DataKeyRecipient

if TYPE_CHECKING:
    from kmstool.arn import KeyArn

_ATTEMPTS: Final = 3
_NO_CREDENTIALS: Final = "log in (aws sso login), or set AWS_PROFILE or the AWS_* variables"
# What `refusals.HINTS` says of an enclave.
_HINTS: Final = {
    "AccessDeniedException": "the key's policy or an IAM policy has to allow this role"
    " kms:GenerateDataKey without a condition on kms:RecipientAttestation",
    "ExpiredTokenException": _NO_CREDENTIALS,
    "InvalidSignatureException": "check this machine's clock, and the secret access key",
}


def outside_data_key(
    key: "KeyArn",
    encryption_context: Mapping[str, str] | None = None,
    *,
    timeout: float = limits.DEADLINE,
) -> DataKeyRecipient:
    """A new data key under `key`, which this machine and whoever rules over it may know.

    Args:
        timeout: seconds for KMS to answer one of up to three attempts.

    Raises:
        CredentialsError: an SDK finds none. KmsError. TransportError: KMS cannot be reached.
        SettingError: an SDK's settings are wrong, or its endpoint is not https.
        UntrustedAnswerError: the answer is not of this key. ModuleNotFoundError: no botocore.
    """
    context = dict(encryption_context or {})
    answer = _generate(key, context, timeout)
    data_key, blob = answer.get("Plaintext"), answer.get("CiphertextBlob")
    if answer.get("KeyId") != str(key):
        raise UntrustedAnswerError(f"kms answered for another key than {key}")
    if not isinstance(data_key, bytes) or len(data_key) != KEY_LENGTH:
        raise UntrustedAnswerError(f"kms answered without a data key of {KEY_LENGTH} bytes")
    if not isinstance(blob, bytes) or not 1 <= len(blob) <= limits.CIPHERTEXT_MAX:
        raise UntrustedAnswerError("kms answered without a CiphertextBlob of a possible length")
    return DataKeyRecipient(
        key=key,
        data_key=data_key,
        ciphertext_blob=blob,
        encryption_context=context,
        caveats=(UNATTESTED_DATA_KEY,),
    )


def _generate(key: "KeyArn", context: dict[str, str], timeout: float) -> Mapping[str, Any]:
    # Not at the top: it takes 200 ms, and no other way to seal needs it.
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
        SSOError,
    )

    failure: KmstoolError
    try:
        with _unlogged():
            client = _client(key.region, timeout)
            answer: Mapping[str, Any] = client.generate_data_key(
                KeyId=str(key), KeySpec="AES_256", EncryptionContext=context
            )
            return answer
    except KmstoolError:
        raise
    except ClientError as error:
        failure = _refusal(error.response)
    except (
        NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, SSOError
    ) as error:  # fmt: skip
        failure = CredentialsError(
            f"botocore finds no credentials ({type(error).__name__})", hint=_NO_CREDENTIALS
        )
    except BotoCoreError as error:
        failure = TransportError(
            f"KMS could not be asked ({type(error).__name__})",
            hint="look at the network, and at AWS_ENDPOINT_URL_KMS, AWS_CA_BUNDLE and proxies",
        )
    except Exception as error:  # noqa: BLE001 - of an answer that botocore's parsers trip over
        failure = UntrustedAnswerError(
            f"botocore cannot read what was answered ({type(error).__name__})",
            hint="what answers is not KMS: look at AWS_ENDPOINT_URL_KMS and proxies",
        )
    # Outside of the handlers: botocore's exceptions quote answers, and must be no context of ours.
    raise failure


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """botocore logs whole answers and session tokens at DEBUG: nothing of this thread, meanwhile.

    Other threads go on logging, and no level or handler is touched.
    """
    import botocore.session  # noqa: PLC0415 - its loggers have to exist
    import botocore.tokens  # noqa: F401, PLC0415

    ours = threading.get_ident()

    def of_another(record: logging.LogRecord) -> bool:
        return record.thread != ours

    names = [name for name in logging.Logger.manager.loggerDict if name.startswith("botocore")]
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(of_another)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(of_another)


def _client(region: str, timeout: float) -> Any:
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    from botocore.session import Session  # noqa: PLC0415

    config = Config(
        connect_timeout=min(limits.CONNECT_TIMEOUT, timeout),
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    try:
        client = Session().create_client("kms", region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise SettingError(
            f"botocore makes no client of the settings here: {printable(str(error))}",
            hint="look at AWS_PROFILE, AWS_ENDPOINT_URL_KMS and the files in ~/.aws",
        ) from None
    if not client.meta.endpoint_url.startswith("https://"):
        raise SettingError(
            "the endpoint of KMS is not an https URL, and a data key would cross the network in"
            " the clear",
            hint="correct AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL or the profile's endpoint_url",
        )
    return client


def _refusal(response: Mapping[str, Any]) -> KmsError:
    said, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code = str(said.get("Code", ""))
    # AWS explains a wrong signature with the canonical request: the session token stands in it.
    message = "" if "Signature" in code else said.get("Message", "")
    error = parse_error(
        "GenerateDataKey",
        metadata.get("HTTPStatusCode", 0),
        {"x-amzn-requestid": str(metadata.get("RequestId", ""))},
        json.dumps({"__type": code, "message": message}).encode(),
    )
    error.hint = _HINTS.get(error.code, error.hint)
    return error
