# syntax=docker/dockerfile:1
# A static binary in an image without a shell or libraries. scripts/replay-image executes these steps
# without a container engine, so the build stage uses no absolute path.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# Links statically, and reads random bytes with the system call: the image has no /dev/urandom.
ENV RUSTFLAGS="-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\""

# Builds the dependencies and the crates with a stub of the gateway. The layer is rebuilt only if they
# change.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN mkdir src \
 && printf '//! Stub.\n' > src/lib.rs \
 && printf '//! Stub.\nfn main() {}\n' > src/main.rs \
 && cp src/main.rs build.rs \
 && cargo build --release --locked --target "$(rustc --print host-tuple)"

COPY build.rs ./
COPY proto proto
COPY third_party third_party
COPY src src
# cargo compares times: the sources must be newer than the stubs.
RUN touch build.rs src/main.rs src/lib.rs \
 && cargo build --release --locked --target "$(rustc --print host-tuple)" \
 && mkdir -p image/tmp image/var/lib/thingspace-gateway \
 && cp "target/$(rustc --print host-tuple)/release/thingspace-gateway" image/ \
 && chmod 1777 image/tmp

# The licences of the gateway, of the crates, and of the C library, which is linked statically.
COPY LICENSE NOTICE licences/THIRD-PARTY.txt image/licences/
RUN for library in libc6-dev libgcc-12-dev; do \
      install -D -m 644 "/usr/share/doc/$library/copyright" "image/licences/$library/copyright"; \
    done

FROM scratch
LABEL org.opencontainers.image.title="thingspace-gateway" \
      org.opencontainers.image.description="A gRPC gateway to Verizon's ThingSpace" \
      org.opencontainers.image.source="https://github.com/thingspace-gateway/thingspace-gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
# The certificate authorities for calls to ThingSpace and to a collector.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# The binary, the licences, and two writable directories: /var/lib/thingspace-gateway for the journal and
# /tmp for the journal of a sandbox. Mount volumes there if the root is read-only. They are copied as one
# tree, which keeps the modes of the directories.
COPY --from=build --chown=65532:65532 /src/image/ /
# journal.dir is ./data by default. An environment variable would override the settings file.
WORKDIR /var/lib/thingspace-gateway
USER 65532:65532
EXPOSE 50051 9001 9090
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/thingspace-gateway", "healthcheck"]
ENTRYPOINT ["/thingspace-gateway"]
CMD ["serve"]
