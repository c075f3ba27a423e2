# The same make targets as on any machine; CI runs them (make check-wheel) without Docker.
FROM python:3.12-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make wheel && make install PREFIX=/opt/tenant_proxy

# No compiler, no sources, no root.
FROM python:3.12-slim-bookworm
RUN groupadd --system --gid 6432 tenant_proxy \
 && useradd --system --uid 6432 --gid 6432 --no-create-home --shell /usr/sbin/nologin tenant_proxy
COPY --from=build /opt/tenant_proxy /opt/tenant_proxy
ENV PATH=/opt/tenant_proxy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 6432:6432
# clients; metrics and health
EXPOSE 6432 9127
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD \
  ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9127/healthz', timeout=2)"]
ENTRYPOINT ["tenant-proxy"]
CMD ["serve", "-c", "/etc/tenant_proxy/tenant_proxy.yaml"]
