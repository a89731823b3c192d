# syntax=docker/dockerfile:1
# Two images of one binary: --target cpu (the default) and --target cuda. What is built, the Makefile says.

FROM golang:1.26-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends npm python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=0.1.0-dev
RUN make build VERSION="$VERSION"

FROM build AS parts-cpu
ENV CHATXRAY_PARTS=/parts
RUN make parts VERSION="$VERSION"

FROM build AS parts-cuda
ENV CHATXRAY_PARTS=/parts
RUN make parts GPU=1 VERSION="$VERSION"

FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS cuda
COPY --from=build /src/bin/chatxray /usr/local/bin/chatxray
COPY --from=build /src/bundles /opt/chatxray/bundles
COPY --from=build /src/LICENSE /src/THIRD_PARTY_NOTICES.md /opt/chatxray/
COPY --from=parts-cuda /parts /opt/chatxray/parts
RUN install -d -o 10001 -g 10001 /data
ENV CHATXRAY_PARTS=/opt/chatxray/parts XDG_CACHE_HOME=/data/cache
WORKDIR /opt/chatxray
USER 10001:10001
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/chatxray"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--data", "/data"]

FROM debian:bookworm-slim AS cpu
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 tzdata \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/bin/chatxray /usr/local/bin/chatxray
COPY --from=build /src/bundles /opt/chatxray/bundles
COPY --from=build /src/LICENSE /src/THIRD_PARTY_NOTICES.md /opt/chatxray/
COPY --from=parts-cpu /parts /opt/chatxray/parts
ENV CHATXRAY_PARTS=/opt/chatxray/parts XDG_CACHE_HOME=/data/cache
RUN install -d -o 10001 -g 10001 /data
WORKDIR /opt/chatxray
USER 10001:10001
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/chatxray"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--data", "/data"]
