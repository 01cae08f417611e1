"""An enclave VM on this machine: what `scripts/enclave-vm` runs. No part of the kmstool package."""
