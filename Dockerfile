# One image for every service; compose.yaml says which command each runs.
#   docker build -t firstread .
#   docker build -t firstread --build-arg TORCH_INDEX=<PyTorch's index of CPU wheels> .
FROM python:3.11-slim-bookworm

# Empty: the ordinary wheels, which run on CPU and GPU and bring gigabytes of CUDA along. PyTorch's
# own index of CPU wheels makes the image small.
ARG TORCH_INDEX=

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

RUN useradd --system --uid 10001 --create-home --home-dir /home/firstread firstread \
    && install -d -o firstread -g firstread -m 0700 /var/lib/firstread

WORKDIR /opt/firstread

# What changes seldom comes first, so that a change of code does not install torch again.
COPY constraints.txt pyproject.toml ./
RUN pip install --upgrade -c constraints.txt pip setuptools \
    && pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        torch torchvision

COPY README.md LICENSE ./
COPY alembic ./alembic
COPY common ./common
COPY dashboard ./dashboard
COPY dicom_listener ./dicom_listener
COPY firstread ./firstread
COPY model ./model
COPY worker ./worker
RUN pip install -c constraints.txt --build-constraint constraints.txt -e .

USER firstread
ENV FIRSTREAD_HOME=/var/lib/firstread
VOLUME /var/lib/firstread
EXPOSE 11112

ENTRYPOINT ["firstread"]
CMD ["--help"]
