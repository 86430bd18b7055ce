# The code location of crypto_ml, served over gRPC to a Dagster webserver and daemon that run elsewhere; runs of the
# default launcher start in this container too. Everything that is kept is in S3.
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/venv
COPY requirements.lock .
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
# beside the code, what its folder `packaged` has links to
COPY pyproject.toml README.md dagster.yaml workspace.yaml ./
COPY model_out model_out
COPY crypto_ml crypto_ml
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/venv/bin/pip uninstall --yes ministack

FROM python:3.11-slim
LABEL org.opencontainers.image.title="crypto_ml" \
      org.opencontainers.image.description="Predictions of each cryptocurrency's next opening price, as Dagster assets"
RUN useradd --create-home --uid 10001 crypto_ml && mkdir -p /opt/crypto_ml/dagster_home && chown -R crypto_ml /opt/crypto_ml
COPY --from=build /opt/venv /opt/venv
COPY deploy/dagster.yaml /opt/crypto_ml/dagster_home/dagster.yaml
COPY deploy/aws/dagster.yaml deploy/aws/workspace.yaml /opt/crypto_ml/aws/
ENV PATH=/opt/venv/bin:$PATH \
    DAGSTER_HOME=/opt/crypto_ml/dagster_home
WORKDIR /opt/crypto_ml
USER crypto_ml
EXPOSE 4000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s CMD ["dagster", "api", "grpc-health-check", "-p", "4000"]
CMD ["dagster", "code-server", "start", "-h", "0.0.0.0", "-p", "4000", "-m", "crypto_ml.definitions"]
