# syntax=docker/dockerfile:1
# Two images of one binary: --target cpu (the default) and --target cuda. What is built, the Makefile says.
#   docker run -e CHATXRAY_TOKEN=... -p 8080:8080 -v chatxray:/data chatxray
# What is written lies in /data and $TMPDIR: docker run --read-only --tmpfs /tmp works too, and so do the roles of docs/kubernetes.md.

FROM golang:1.26-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends npm python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=0.1.0-dev
ENV GOFLAGS=-trimpath
RUN make build VERSION="$VERSION"

FROM build AS parts-cpu
ENV CHATXRAY_PARTS=/parts
RUN make parts VERSION="$VERSION"

FROM build AS parts-cuda
ENV CHATXRAY_PARTS=/parts
RUN make parts GPU=1 VERSION="$VERSION"

# What both images have, whatever they stand on. Beyond loopback the service wants a token.
FROM scratch AS product
COPY --from=build /src/bin/chatxray /usr/local/bin/chatxray
COPY --from=build /src/bundles /usr/share/chatxray/bundles
COPY --from=build /src/LICENSE /src/THIRD_PARTY_NOTICES.md /usr/share/chatxray/
COPY <<EOF /etc/chatxray/config.yaml
dicomweb:
  auth:
    tokens:
      - {name: token, token: "env:CHATXRAY_TOKEN", roles: [store, read]}
EOF

FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS cuda
# hadolint ignore=DL3067
COPY --from=product / /
COPY --from=parts-cuda /parts /usr/share/chatxray/parts
RUN install -d -o 10001 -g 10001 /data
ENV CHATXRAY_PARTS=/usr/share/chatxray/parts XDG_CACHE_HOME=/data/cache CUDA_CACHE_PATH=/data/cache/cuda
USER 10001:10001
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/chatxray"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--data", "/data", "--config", "/etc/chatxray/config.yaml"]

FROM debian:bookworm-slim AS cpu
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 tzdata \
 && rm -rf /var/lib/apt/lists/*
# hadolint ignore=DL3067
COPY --from=product / /
COPY --from=parts-cpu /parts /usr/share/chatxray/parts
RUN install -d -o 10001 -g 10001 /data
ENV CHATXRAY_PARTS=/usr/share/chatxray/parts XDG_CACHE_HOME=/data/cache
USER 10001:10001
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/chatxray"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--data", "/data", "--config", "/etc/chatxray/config.yaml"]
