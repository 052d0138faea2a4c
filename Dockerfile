# Two images: `--target worker`, which runs the steps of workflows, and `--target operator`. Neither holds a compiler, both
# run as user 65532 on a read-only root file system (with a writable /tmp), and the operator's is the worker's and a layer.
#
#   docker build --target worker --tag stepwell/worker .
#
# BASE_IMAGE is any image with Python 3.11 or newer, its venv module, and glibc. Packages come from where pip is told to
# look; behind a proxy with a certificate of its own: --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL=https://pypi.org/simple
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/stepwell
COPY pyproject.toml /source/
# What the package needs changes seldom, and so is a layer of its own: its names are read from the one place that has them.
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && python3 -c 'import tomllib; p = tomllib.load(open("/source/pyproject.toml", "rb"))["project"]; \
extras = p["optional-dependencies"]; \
print(*p["dependencies"], *(r for name in ("postgres", "kafka", "metrics") for r in extras[name]), sep="\n")' \
    > /requirements \
 && /pip/bin/pip install --quiet 'pip>=25.1' \
 && /pip/bin/pip --python /opt/stepwell/bin/python install --quiet --only-binary :all: --requirement /requirements
COPY README.md LICENSE /source/
COPY operator /source/operator
COPY runtime /source/runtime
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && /pip/bin/pip --python /opt/stepwell/bin/python install --quiet --no-deps /source \
 && /pip/bin/pip --python /opt/stepwell/bin/python check

FROM build AS build-operator
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && /pip/bin/pip --python /opt/stepwell/bin/python freeze --exclude stepwell > /constraints \
 && touch /before \
 && python3 -c 'import tomllib; p = tomllib.load(open("/source/pyproject.toml", "rb"))["project"]; \
print(*(r for r in p["optional-dependencies"]["operator"] if not r.startswith("stepwell")), sep="\n")' > /requirements \
 && /pip/bin/pip --python /opt/stepwell/bin/python install --quiet --only-binary :all: \
    --constraint /constraints --requirement /requirements \
 && /pip/bin/pip --python /opt/stepwell/bin/python check \
 && mkdir /added && cd / && find opt/stepwell -newer /before ! -type d -exec cp --parents -P -t /added {} +

FROM ${BASE_IMAGE} AS worker
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Stepwell worker" \
      org.opencontainers.image.description="Runs the steps of durable, typed workflows. Add your own modules in /app." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/stepwell /opt/stepwell
ENV PATH=/opt/stepwell/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    # A third of a MiB is for the columns in tracebacks; logs tell files and lines.
    PYTHONNODEBUGRANGES=1 \
    HOME=/tmp \
    # Nobody has this number in /etc/passwd, nor the ones that some platforms choose, and libraries ask who they are.
    USER=stepwell
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["stepwell"]
CMD ["worker", "-f", "/etc/stepwell/workflow.yaml"]

FROM worker AS operator
LABEL org.opencontainers.image.title="Stepwell operator" \
      org.opencontainers.image.description="Carries out the Workflows and Runs of a Kubernetes cluster."
COPY --from=build-operator /added/ /
ENTRYPOINT ["python", "-m", "stepwell_operator"]
CMD []
