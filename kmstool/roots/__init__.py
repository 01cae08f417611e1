"""The pinned certificates: Amazon's five roots for TLS, and the root of Nitro's attestation.

They are files beside this one, so that an image's builder can look at them; they are part of what
PCR0 to PCR2 measure. Nothing here reads an environment variable or another directory. The
fingerprints are checked by a test, not at run time: whoever can change a file in the image can
change this one too.
"""

from typing import Final

# SHA-256 of each certificate's DER.
AMAZON_ROOTS_PEM: Final[dict[str, str]] = {
    "amazon-root-ca-1.pem": "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    "amazon-root-ca-2.pem": "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
    "amazon-root-ca-3.pem": "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
    "amazon-root-ca-4.pem": "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
    "starfield-services-root-g2.pem": (
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5"
    ),
}
NITRO_ROOT_PEM: Final = "aws-nitro-enclaves-root-g1.pem"
NITRO_ROOT_SHA256: Final = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"


def amazon_roots_pem() -> str:
    """The roots of Amazon Trust Services, Starfield Services G2 among them, one PEM after another.

    All KMS endpoints outside the isolated partitions chain to one of them
    (https://www.amazontrust.com/repository/).
    """
    return "".join(_read(name) for name in AMAZON_ROOTS_PEM)


def nitro_root_der() -> bytes:
    """The DER of "aws.nitro-enclaves", Root-G1, which every genuine document chains to.

    Source: "Verifying the root of trust", AWS Nitro Enclaves User Guide.
    """
    from binascii import a2b_base64  # noqa: PLC0415 - a decrypt does not need it

    lines = _read(NITRO_ROOT_PEM).splitlines()
    first, last = (
        lines.index("-----BEGIN CERTIFICATE-----"),
        lines.index("-----END CERTIFICATE-----"),
    )
    return a2b_base64("".join(lines[first + 1 : last]), strict_mode=True)


def _read(name: str) -> str:
    # Not with pathlib or importlib.resources: they cost a cold start 6 and 13 modules.
    with open(f"{__path__[0]}/{name}", encoding="ascii") as file:  # noqa: PTH123
        return file.read()
