"""Operations on keys as such, over TLS that ends in this enclave: make one, and look at it.

What it does: one request, one answer, and the check that the answer is about the key asked for.
What it never does: judge a key (`birth.py` does), or send CreateKey twice: a second one would make
another key, of which nobody would know.
"""

from typing import Self

from kmstool import limits
from kmstool.administration import (
    AdminOperation,
    KeyMetadata,
    PublicKey,
    build_create_key,
    build_describe_key,
    build_get_key_policy,
    build_get_public_key,
    build_list_grants,
    parse_create_key,
    parse_describe_key,
    parse_get_key_policy,
    parse_get_public_key,
    parse_list_grants,
)
from kmstool.arn import KeyArn
from kmstool.enclave.exchange import Exchange
from kmstool.errors import KmsError, TransportError, UntrustedAnswerError

_ORPHAN_HINT = (
    "it is not sent again, which could make another key: look for one made just now (aws kms"
    " list-keys, or CreateKey in CloudTrail) and delete it before you try once more"
)


class KmsAdmin:
    """The five administrative operations. A context manager that closes its connection.

    Every method raises `TransportError`, `CredentialsError` or `KmsError` when a link of the chain
    fails, and `UntrustedAnswerError` for an answer that is malformed or about another key.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """The name that the certificate of whoever answers has to bear."""
        return self._exchange.host

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        return self._exchange.region

    def close(self) -> None:
        """Closes the connection."""
        self._exchange.close()

    def create_key(self, *, key_spec: str, key_usage: str, policy: str) -> KeyMetadata:
        """Makes a key of one region with KMS' own material. Sent at most once.

        Raises:
            TransportError, KmsError: a hint says where a key may exist in spite of it.
        """
        body = build_create_key(key_spec=key_spec, key_usage=key_usage, policy=policy)
        sent = False

        def prepare() -> tuple[bytes, None]:
            nonlocal sent
            sent = True
            return body, None

        try:
            answer, _ = self._exchange.call(AdminOperation.CREATE_KEY, prepare, once=True)
        except TransportError as error:
            if sent:
                raise TransportError(
                    f"{error}; CreateKey had been sent, so a key may have been made",
                    hint=_ORPHAN_HINT,
                ) from None
            raise
        except KmsError as error:
            if error.status >= 500:
                error.hint = _ORPHAN_HINT
            raise
        try:
            return parse_create_key(answer.body)
        except UntrustedAnswerError as error:
            raise UntrustedAnswerError(str(error), hint=_ORPHAN_HINT) from None

    def describe_key(self, key: KeyArn) -> KeyMetadata:
        """What KMS says of the key now."""
        metadata = parse_describe_key(
            self._call(AdminOperation.DESCRIBE_KEY, build_describe_key(key))
        )
        _same(AdminOperation.DESCRIBE_KEY, metadata.key, key)
        return metadata

    def get_key_policy(self, key: KeyArn) -> str:
        """The live key policy, as text."""
        return parse_get_key_policy(
            self._call(AdminOperation.GET_KEY_POLICY, build_get_key_policy(key))
        )

    def get_public_key(self, key: KeyArn) -> PublicKey:
        """The public key of an asymmetric key."""
        answer = parse_get_public_key(
            self._call(AdminOperation.GET_PUBLIC_KEY, build_get_public_key(key))
        )
        _same(AdminOperation.GET_PUBLIC_KEY, answer.key, key)
        return answer

    def list_grants(self, key: KeyArn) -> tuple[str, ...]:
        """The ids of all grants on the key.

        Raises:
            UntrustedAnswerError: also after `GRANT_PAGES_MAX` pages.
        """
        found: list[str] = []
        marker: str | None = None
        for _ in range(limits.GRANT_PAGES_MAX):
            page = parse_list_grants(
                self._call(AdminOperation.LIST_GRANTS, build_list_grants(key, marker=marker))
            )
            found.extend(page.grant_ids)
            marker = page.next_marker
            if marker is None:
                return tuple(found)
        raise UntrustedAnswerError(
            f"the answers to {AdminOperation.LIST_GRANTS} did not end after"
            f" {limits.GRANT_PAGES_MAX} pages"
        )

    def _call(self, operation: AdminOperation, body: bytes) -> bytes:
        return self._exchange.call(operation, lambda: (body, None))[0].body


def _same(operation: AdminOperation, got: KeyArn, asked: KeyArn) -> None:
    if got != asked:
        raise UntrustedAnswerError(
            f"the answer to {operation} is about {got}, and {asked} was asked for",
            hint="this is not how KMS answers: do not use the endpoint before you know why",
        )
