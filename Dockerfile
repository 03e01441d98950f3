# The environment of uv.lock in Debian, in which both commands of the README run:
#
#     docker build --tag ssltransfer .
#     docker run --shm-size 4g --volume "$PWD/results:/ssltransfer/results" ssltransfer
#     docker run --shm-size 4g ssltransfer uv run pytest
#
# Loading processes hand images over in shared memory, of which a container gets 64 MiB without --shm-size. With
# NVIDIA's container toolkit, `--gpus all` gives it the GPUs.
FROM debian:trixie-slim

# git: the commit stands in the provenance of results. procps: tests look at processes. No versions, because Debian
# keeps one of each package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git procps python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv==0.13.9
ENV PATH=/opt/uv/bin:$PATH UV_LINK_MODE=copy

WORKDIR /ssltransfer
# The environment first: it is built anew only when the lock file changes.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-install-project --no-cache
COPY . .
RUN uv sync --locked --no-cache

# So that this is also an image for jobs elsewhere (docs/clusters.md): these call python, snakemake and pip.
ENV PATH=/ssltransfer/.venv/bin:$PATH

CMD ["uv", "run", "snakemake", "--cores", "all"]
