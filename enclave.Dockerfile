# The enclave image: Python, three packages, and the rooms of kmstool that run inside an enclave.
# What is in it is what is trusted, so it is put together file by file (scripts/image/assemble.py)
# from a base that is thrown away. Docs: docs/howto/build-the-image.md.
#
# BASE is Debian 13 (trixie), named by whoever builds, best by its digest. scripts/build-enclave-image
# makes one from Debian's packages. Nothing else decides what is in the image but this tree.

ARG BASE
FROM ${BASE} AS build
# Nothing to do where the base has them, as that of scripts/build-enclave-image: no network then.
RUN command -v pip3 >/dev/null && command -v busybox >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends python3 python3-pip busybox-static; }

# The packages, by hash. Wheels in wheels/ are taken in place of an index.
COPY requirements/enclave.txt wheels* /build/wheels/
RUN set -- ; ls /build/wheels/*.whl >/dev/null 2>&1 && set -- --no-index --find-links /build/wheels; \
    pip3 install --quiet --require-hashes --no-deps --only-binary :all: --no-compile --no-cache-dir \
        --root-user-action ignore --disable-pip-version-check \
        --target /build/packages "$@" -r /build/wheels/enclave.txt

# Our rooms, by name. A file that is not named here is not in the image.
COPY \
    kmstool/__init__.py \
    kmstool/__main__.py \
    kmstool/administration.py \
    kmstool/arn.py \
    kmstool/birth.py \
    kmstool/birth_statement.py \
    kmstool/caveats.py \
    kmstool/cbor.py \
    kmstool/create_key.py \
    kmstool/endpoint.py \
    kmstool/errors.py \
    kmstool/findings.py \
    kmstool/framing.py \
    kmstool/holders.py \
    kmstool/limits.py \
    kmstool/protocol.py \
    kmstool/refusals.py \
    kmstool/session.py \
    kmstool/strict_json.py \
    /build/rooms/kmstool/
COPY kmstool/attestation /build/rooms/kmstool/attestation/
COPY kmstool/cli /build/rooms/kmstool/cli/
COPY kmstool/doctor /build/rooms/kmstool/doctor/
COPY kmstool/enclave /build/rooms/kmstool/enclave/
COPY kmstool/policy /build/rooms/kmstool/policy/
COPY kmstool/roots /build/rooms/kmstool/roots/
COPY kmstool/sealing /build/rooms/kmstool/sealing/

COPY requirements/python-modules.txt /build/
COPY scripts/image/__init__.py scripts/image/assemble.py scripts/image/modules.py /build/image/
ARG SOURCE_DATE_EPOCH=0
RUN cd /build && PYTHONHASHSEED=0 SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    python3 -B -m image.assemble /build /rootfs /shell

# No shell, no package manager, no network tool: one interpreter and its program.
FROM scratch AS minimal
COPY --from=build /rootfs/ /
ENV PATH=/usr/local/bin:/usr/bin:/bin
ENTRYPOINT ["/usr/local/bin/kmstool"]

# The same with busybox, for images whose entry point is a script.
FROM minimal AS shell
COPY --from=build /shell/ /
ENTRYPOINT ["/bin/sh"]
