# The one image of ossfuse-csi: node plugin, controller and sidecar. tools/image.sh builds it where no registry can
# be reached; elsewhere:
#
#     docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/ossfuse-csi:0.1.0 --push .
#     buildah build --platform linux/amd64,linux/arm64 --manifest ossfuse-csi .
#
# Nothing below depends on the architecture. Python packages are pinned by hash (tools/image/*.txt, written by
# `tools/image.sh lock`); Debian's are those of BASE_IMAGE, which may be given with a digest. Behind a proxy that
# re-encrypts TLS, pass its authority as a secret, which never enters a layer: --secret id=ca,src=/path/to/ca.crt

ARG BASE_IMAGE=docker.io/library/debian:12-slim

# ---- what every stage has: Debian's Python, the library pyfuse3 calls (no fusermount: the node plugin mounts)
FROM ${BASE_IMAGE} AS base
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update -q \
    && apt-get install -qy --no-install-recommends python3 ca-certificates '^libfuse3-[0-9]+$' \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    && python3 -m compileall -qf --invalidation-mode unchecked-hash "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')"

# ---- dependencies, changed only by tools/image/*.txt: wheels in /wheels, installed in /opt/ossfuse
FROM base AS dependencies
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update -q \
    && apt-get install -qy --no-install-recommends gcc libc6-dev libfuse3-dev pkg-config python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY tools/image/build.txt tools/image/requirements.txt ./
RUN --mount=type=secret,id=ca \
    if [ -e /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore CFLAGS='-O2 -g0' \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install -q --require-hashes -r build.txt \
    && /opt/build/bin/pip wheel -q --no-build-isolation --no-deps --require-hashes -w /wheels -r requirements.txt
COPY tools/image/prune.sh ./
RUN python3 -m venv --without-pip /opt/ossfuse \
    && /opt/build/bin/pip --python /opt/ossfuse/bin/python --disable-pip-version-check install -q --root-user-action=ignore \
        --no-compile --no-index --no-deps /wheels/*.whl \
    && /opt/build/bin/pip --python /opt/ossfuse/bin/python check \
    && ./prune.sh /opt/ossfuse \
    && python3 -m compileall -qf --invalidation-mode unchecked-hash /opt/ossfuse

# ---- the project itself: the only stage that a change of its sources runs again
FROM dependencies AS project
COPY pyproject.toml setup.py README.md LICENSE ./
COPY proto proto
COPY csi csi
RUN export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_WARN_SCRIPT_LOCATION=1 \
        CFLAGS='-O2 -g0' \
    && /opt/build/bin/pip wheel -q --no-build-isolation --no-deps --no-index -w /project . \
    && /opt/build/bin/pip --python /opt/ossfuse/bin/python install -q --no-compile --no-index --no-deps \
        --root /project/root /project/*.whl \
    && ls /project/root/opt/ossfuse/lib/python3*/site-packages/csi/fuse/native/device.*.so >/dev/null \
    && python3 -m compileall -qf --invalidation-mode unchecked-hash -s /project/root /project/root/opt/ossfuse

# ---- the system of the image: the base without what only builds and logins need
FROM base AS system
COPY tools/image/reduce.sh /
RUN /reduce.sh && rm /reduce.sh

# ---- the image
FROM scratch
COPY --from=system / /
COPY --from=dependencies /opt/ossfuse /opt/ossfuse
COPY --from=project /project/root/opt/ossfuse /opt/ossfuse
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="ossfuse-csi" \
      org.opencontainers.image.description="CSI driver for Alibaba Cloud OSS: node plugin, controller and FUSE sidecar" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# a read-only root has no place for bytecode, and all of it is there already
ENV PATH=/opt/ossfuse/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8
WORKDIR /
USER 65534:65534
ENTRYPOINT ["ossfuse"]
