"""`kmstool doctor` inside an enclave: each link of the chain from the security module to KMS.

One file for each link; `inside.py` puts them in their order. The parent's side is
`kmstool/parent/checks.py`, which no image holds. The checks use the very functions of `enclave`
that operations use, so what they find is what an operation would meet. They never weaken a
setting, hold a secret only to sign with it, and change nothing at KMS: dry runs alone.
"""
