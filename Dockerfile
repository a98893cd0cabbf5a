# docker build --target cpu -t sccello-tools:cpu .
# docker build --target cuda -t sccello-tools:cuda .
# docker run --rm -v "$PWD:/data" sccello-tools:cpu annotate cells.h5ad -o annotated.h5ad

FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir build==1.3.0 && python -m build --wheel --outdir /wheels

# The models, ontologies and example cells are part of the wheel, so the containers never need the network.
FROM python:3.12-slim AS cpu
ARG TORCH_INDEX=""
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} torch
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /wheels/*.whl)[drug,scale]" \
    && rm -r /wheels /tmp/constraints.txt \
    && useradd --create-home --uid 1000 sccello
USER sccello
ENV NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib SCCELLO_OFFLINE=1
WORKDIR /data
ENTRYPOINT ["sccello"]
CMD ["--help"]

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04 AS cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/sccello
ENV PATH=/opt/sccello/bin:$PATH
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt torch
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /wheels/*.whl)[drug,scale]" \
    && rm -r /wheels /tmp/constraints.txt \
    && useradd --create-home sccello
USER sccello
ENV NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib SCCELLO_OFFLINE=1
WORKDIR /data
ENTRYPOINT ["sccello"]
CMD ["--help"]
