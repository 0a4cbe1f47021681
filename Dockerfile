# An image for a CPU:  docker build --tag fpt .
# One for NVIDIA GPUs: docker build --tag fpt --build-arg BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04 --build-arg TORCH=cu130 .
ARG BASE=debian:12-slim
FROM ghcr.io/astral-sh/uv:0.13.9 AS uv
# hadolint ignore=DL3006
FROM ${BASE}

# The build of torch: cpu, or one for the base's CUDA.
ARG TORCH=cpu

# DeepSpeed compiles what it needs when it is first used, on a GPU with the base's nvcc.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ \
    && rm -rf /var/lib/apt/lists/*

COPY --from=uv /uv /usr/local/bin/uv
ENV UV_PYTHON_INSTALL_DIR=/opt/python VIRTUAL_ENV=/opt/fpt PATH="/opt/fpt/bin:${PATH}"
COPY . /src
RUN uv venv --python 3.11 "${VIRTUAL_ENV}" \
    && uv pip install --no-cache --torch-backend "${TORCH}" --constraint /src/constraints.txt '/src[quantize,serve]'

# Anybody may be the user, as `docker run --user` says, and has this home for what is downloaded and compiled.
ENV HOME=/home/fpt
RUN useradd --uid 10001 --create-home fpt && chmod a+rwX /home/fpt
USER 10001
WORKDIR /home/fpt/work
ENTRYPOINT ["fpt"]
CMD ["--help"]
