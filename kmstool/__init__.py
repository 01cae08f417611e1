"""Use AWS KMS keys that open for one Nitro Enclave alone, and know what the answer may be trusted for."""

__version__ = "0.1.0.dev0"
