# Three images; .dockerignore says what of this directory a build sees.
#
#     docker build --target serve --tag chiffre-serve .
#     docker build --target train --tag chiffre-train .
#     docker build --target load --tag chiffre-load .
#
# All run as a numeric user on a read-only root, with /tmp to write to. Code comes last, so that a change of it makes one small
# layer. A build with `--build-arg SOURCE_DATE_EPOCH=...` gives its files that time.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# What the images share: no pip, and a standard library that is compiled once, here, instead of at every start.
FROM base AS runtime
RUN python -m pip uninstall --quiet --yes --root-user-action=ignore pip setuptools wheel \
    && python -m compileall -q --invalidation-mode unchecked-hash -x '/(ensurepip|idlelib|lib2to3|site-packages|test|tkinter|turtledemo)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
# A user without an entry in /etc/passwd has no name and no home otherwise. ONNX Runtime and MLflow report to their makers otherwise.
ENV HOME=/tmp USER=chiffre ORT_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true
ENV PATH=/opt/chiffre/bin:$PATH PYTHONPATH=/app
WORKDIR /app

# An environment at the path where the images have it, filled by the base image's pip; the project itself is in it as metadata.
FROM base AS builder
RUN python -m venv --without-pip /opt/chiffre
WORKDIR /build
COPY pyproject.toml constraints.txt LICENSE ./
RUN mkdir model serving && touch README.md

FROM builder AS serve-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/chiffre/bin/python install --no-compile --constraint constraints.txt '.[serve]'
COPY image/trim.py image/trim.py
ARG SOURCE_DATE_EPOCH=0
RUN python image/trim.py /opt/chiffre/lib/python3.11/site-packages \
    && find /opt/chiffre -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +

FROM builder AS train-dependencies
# Which torch: of PyPI, for CUDA, where pip is not told otherwise; the index of PyTorch's CPU builds gives one without.
ARG TORCH_INDEX_URL=""
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/chiffre/bin/python install --no-compile --constraint constraints.txt \
        ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/chiffre/bin/python install --no-compile --constraint constraints.txt '.[train]'
ARG SOURCE_DATE_EPOCH=0
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(tests?|testing/_internal)/' /opt/chiffre/lib \
    && find /opt/chiffre -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +

FROM builder AS load-dependencies
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/chiffre/bin/python install --no-compile --constraint constraints.txt '.[serve,load]'
ARG SOURCE_DATE_EPOCH=0
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/tests?/' /opt/chiffre/lib \
    && find /opt/chiffre -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +

# The packages of the serving image, as a CycloneDX file: docker build --target sbom --output build .
FROM serve-dependencies AS sbom-builder
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/cyclonedx \
    && /opt/cyclonedx/bin/python -m pip install --constraint constraints.txt cyclonedx-bom==7.5.0 \
    && /opt/cyclonedx/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
        --output-file sbom-serve.cdx.json /opt/chiffre/bin/python

FROM scratch AS sbom
COPY --from=sbom-builder /build/sbom-serve.cdx.json /

# Of our own code, a server needs the bundle's and its own.
FROM base AS serve-code
WORKDIR /app
COPY model/__init__.py model/bundle.py model/manifest.py model/
COPY serving serving
ARG SOURCE_DATE_EPOCH=0
RUN chmod -R u=rwX,go=rX . \
    && python -m compileall -q --invalidation-mode unchecked-hash . \
    && find . -exec touch --date "@$SOURCE_DATE_EPOCH" {} +

FROM base AS train-code
WORKDIR /app
COPY data/mnist data/mnist
COPY model model
ARG SOURCE_DATE_EPOCH=0
# Relative paths of configurations and flags lead into build, where a volume belongs.
RUN chmod -R u=rwX,go=rX . \
    && python -m compileall -q --invalidation-mode unchecked-hash model \
    && install --directory --owner 10001 --group 10001 build \
    && find . -exec touch --date "@$SOURCE_DATE_EPOCH" {} +

# Questions are read and written with what a server and its data have.
FROM base AS load-code
WORKDIR /app
COPY data/mnist data/mnist
COPY helm/chiffre/values.yaml helm/chiffre/values.yaml
COPY model/__init__.py model/bundle.py model/idx.py model/manifest.py model/mnist.py model/
COPY serving serving
COPY loadtests/peers/forward.py loadtests/peers/wire.py loadtests/peers/
COPY loadtests/slo loadtests/slo
COPY loadtests/locustfile.py loadtests/locustfile.py
ARG SOURCE_DATE_EPOCH=0
RUN chmod -R u=rwX,go=rX . \
    && python -m compileall -q --invalidation-mode unchecked-hash loadtests model serving \
    && find . -exec touch --date "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS train
# The server of MLflow, too: docker run --entrypoint mlflow ... server --host 0.0.0.0
ENV MPLCONFIGDIR=/tmp/matplotlib
COPY --from=train-dependencies /opt/chiffre /opt/chiffre
COPY --from=train-code /app /app
USER 10001:10001
EXPOSE 5000
ENTRYPOINT ["python", "-m", "model"]
ARG VERSION=0.1.0
ARG REVISION=""
ENV GIT_REVISION=${REVISION}
LABEL org.opencontainers.image.title="chiffre-train" \
    org.opencontainers.image.description="Trains, checks and publishes a handwritten-digit classifier; runs the MLflow server" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

FROM runtime AS load
ENV MPLCONFIGDIR=/tmp/matplotlib LOAD_OUTPUT=/tmp/load
COPY --from=load-dependencies /opt/chiffre /opt/chiffre
COPY --from=load-code /app /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "locust", "-f", "loadtests/locustfile.py"]
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="chiffre-load" \
    org.opencontainers.image.description="Loads a handwritten-digit classifier and holds its objectives against what users see" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

FROM runtime AS serve
COPY --from=serve-dependencies /opt/chiffre /opt/chiffre
COPY --from=serve-code /app /app
USER 10001:10001
# REST, metrics and the page; gRPC.
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "serving"]
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="chiffre-serve" \
    org.opencontainers.image.description="Serves a handwritten-digit classifier with KServe's protocols" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
