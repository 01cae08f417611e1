"""The parts of scripts/build-enclave-image: standard library alone, none of it enters the image."""
