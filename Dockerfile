# The image holds the interpreter, the pinned packages and Parapet; what builds them stays behind.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY requirements.lock pyproject.toml README.md ./
RUN python -m venv /opt/parapet \
 && sed '/^# --- dev/,$d' requirements.lock > run.lock \
 && /opt/parapet/bin/pip install --no-cache-dir --require-hashes --no-deps -r run.lock \
 && python -m venv /opt/builder \
 && /opt/builder/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY setup.py ./
COPY proxy proxy
RUN PARAPET_COMPILE=1 /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
 && /opt/parapet/bin/pip install --no-cache-dir --no-deps wheels/*.whl \
 && /opt/parapet/bin/pip uninstall --yes setuptools pip

FROM python:3.11-slim-bookworm
RUN pip uninstall --yes --quiet setuptools wheel pip \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/parapet parapet
COPY --from=build /opt/parapet /opt/parapet
COPY config/parapet.yaml /etc/parapet/parapet.yaml
ENV PATH=/opt/parapet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER parapet
WORKDIR /var/lib/parapet
VOLUME /var/lib/parapet
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8081/healthz', timeout=2)"]
ENTRYPOINT ["parapet"]
CMD ["serve", "-c", "/etc/parapet/parapet.yaml"]
