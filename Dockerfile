# An image for jobs on GPUs: docs/jobs.md. It holds Python packages, no images and no pretrained weights.
#
#   docker build --tag finetune .
#   docker build --tag finetune --build-arg BASE=registry.example.org/pytorch/pytorch:latest .
#
# BASE needs Python 3.11 or newer with venv; PyTorch is installed unless it is there. PIP_INDEX_URL and the other
# PIP_* arguments lead pip to a mirror; what they say does not stay in the image.
ARG BASE=python:3.12-slim

FROM ${BASE} AS wheel
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_FIND_LINKS PIP_CERT
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY finetune finetune
RUN python3 -m venv /builder \
    && /builder/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE}
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_FIND_LINKS PIP_CERT
# Further packages of finetune, and limits to versions: --build-arg EXTRAS=timm,wandb PIN="torch==2.14.1"
ARG EXTRAS=timm,parquet,heif,tensorboard
ARG PIN=
# What the base image brings (PyTorch, for instance) is used; nothing of it is changed.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    python3 -m venv --system-site-packages /opt/finetune \
    && wheel="$(find /wheels -name '*.whl')" \
    && /opt/finetune/bin/pip install --no-cache-dir "${wheel}[${EXTRAS}]" ${PIN}

# A user without rights; a cluster may take another. Caches and weights go where anybody may write.
RUN useradd --uid 1000 --user-group --create-home finetune && mkdir --mode=1777 /cache
ENV PATH=/opt/finetune/bin:${PATH} \
    XDG_CACHE_HOME=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /home/finetune
ENTRYPOINT ["finetune"]
CMD ["--help"]
