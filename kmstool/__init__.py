"""KMS keys that open for one Nitro Enclave alone, and what their answers may be trusted for."""

__version__ = "0.1.0.dev0"
