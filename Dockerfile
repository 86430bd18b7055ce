# The images of crypto_ml. `scoring` has what answers files and requests, and what shows them: code location, webserver,
# daemon, service and page. `full` can train, too. Neither keeps anything: what counts is in S3, what Dagster shows in
# PostgreSQL. They run as a user of no rights, on a root file system that may be read-only; /scratch is for what is
# worked on, and anything else that is written is written there.
#
# The base image should be given by digest: --build-arg PYTHON=python:3.11-slim@sha256:…
ARG PYTHON=python:3.11-slim

# What writes the bill of materials (CycloneDX: the Python packages, with their licences). It looks where they are installed:
# in a stage of its own it would take another copy of them, which took longer than all it does.
FROM ${PYTHON} AS bill
RUN python -m venv /opt/bill && /opt/bill/bin/pip install --no-cache-dir cyclonedx-bom==7.5.0

FROM bill AS libraries-scoring
RUN python -m venv /opt/venv
COPY requirements-scoring.lock .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-scoring.lock
COPY pyproject.toml .
RUN /opt/bill/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o /sbom.cdx.json /opt/venv/bin/python

FROM bill AS libraries-full
RUN python -m venv /opt/venv
COPY requirements.lock .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
 && /opt/venv/bin/pip uninstall --yes ministack
COPY pyproject.toml .
RUN /opt/bill/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o /sbom.cdx.json /opt/venv/bin/python

# crypto_ml itself comes last, so that another release brings a layer of a few megabytes and not the libraries once more
FROM libraries-scoring AS release
WORKDIR /build
# beside the code, what its folder `packaged` has links to
COPY pyproject.toml README.md requirements.lock dagster.yaml workspace.yaml ./
COPY model_out model_out
COPY crypto_ml crypto_ml
RUN /opt/venv/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .
COPY deploy/dagster.yaml /opt/crypto_ml/dagster_home/dagster.yaml
COPY deploy/aws/dagster.yaml deploy/aws/workspace.yaml /opt/crypto_ml/aws/
COPY deploy/workspace.yaml /opt/crypto_ml/workspace.yaml

FROM ${PYTHON} AS bare
LABEL org.opencontainers.image.title="crypto_ml" \
      org.opencontainers.image.description="Predictions of each cryptocurrency's next opening price, as Dagster assets"
RUN useradd --create-home --uid 10001 crypto_ml \
 && mkdir -p /opt/crypto_ml/dagster_home /scratch /run/secrets \
 && chown crypto_ml /scratch
ENV PATH=/opt/venv/bin:$PATH \
    DAGSTER_HOME=/opt/crypto_ml/dagster_home \
    TMPDIR=/scratch \
    MPLCONFIGDIR=/scratch/matplotlib \
    KERAS_HOME=/scratch/keras
VOLUME /scratch
WORKDIR /opt/crypto_ml
EXPOSE 4000
CMD ["dagster", "code-server", "start", "-h", "0.0.0.0", "-p", "4000", "-m", "crypto_ml.definitions"]

FROM bare AS scoring
COPY --from=libraries-scoring /opt/venv /opt/venv
COPY --from=libraries-scoring /sbom.cdx.json /opt/crypto_ml/sbom.cdx.json
COPY --from=release /opt/crypto_ml /opt/crypto_ml
COPY --from=release /wheel /wheel
RUN pip install --no-cache-dir --no-deps --no-index /wheel/*.whl
USER crypto_ml

FROM bare AS full
COPY --from=libraries-full /opt/venv /opt/venv
COPY --from=libraries-full /sbom.cdx.json /opt/crypto_ml/sbom.cdx.json
COPY --from=release /opt/crypto_ml /opt/crypto_ml
COPY --from=release /wheel /wheel
RUN pip install --no-cache-dir --no-deps --no-index /wheel/*.whl
USER crypto_ml
