# What a user of KServe's SDK and torch would build: loadtests/cold_start.py says how.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE}
WORKDIR /app
COPY constraints.txt .
# Which torch: of PyPI, for CUDA, where pip is not told otherwise.
ARG TORCH_INDEX_URL=""
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --constraint constraints.txt kserve
COPY model/__init__.py model/bundle.py model/manifest.py model/network.py model/
COPY loadtests/cold/stock_server.py .
RUN chmod -R u=rwX,go=rX . && python -m compileall -q .
ENV PYTHONUNBUFFERED=1 HOME=/tmp USER=stock PYTHONPATH=/app
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["python", "stock_server.py"]
