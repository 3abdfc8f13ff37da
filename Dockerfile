# syntax=docker/dockerfile:1
# A static binary on an empty root: no shell, no libraries, nobody's CVEs but ours.
# scripts/replay-image runs these steps without a container engine, which is why those of the
# build stage name no absolute path.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# Static, and random bytes from the system call: an empty root has no /dev/urandom to fall back to.
ENV RUSTFLAGS="-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\""

# Build the dependencies and the crates first, with stubs for the gateway itself, as a layer that is
# rebuilt only when they change.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN mkdir src \
 && printf '//! A stub.\n' > src/lib.rs \
 && printf '//! A stub.\nfn main() {}\n' > src/main.rs \
 && cp src/main.rs build.rs \
 && cargo build --release --locked --target "$(rustc --print host-tuple)"

COPY build.rs ./
COPY proto proto
COPY third_party third_party
COPY src src
# Newer than the stubs, whatever the files' own dates are.
RUN touch build.rs src/main.rs src/lib.rs \
 && cargo build --release --locked --target "$(rustc --print host-tuple)" \
 && mkdir -p image/tmp image/var/lib/thingspace-gateway \
 && cp "target/$(rustc --print host-tuple)/release/thingspace-gateway" image/ \
 && chmod 1777 image/tmp

# Ours, those of the crates, and that of the C library, which a static binary has in it too.
COPY LICENSE NOTICE licences/THIRD-PARTY.txt image/licences/
RUN for library in libc6-dev libgcc-12-dev; do \
      install -D -m 644 "/usr/share/doc/$library/copyright" "image/licences/$library/copyright"; \
    done

FROM scratch
LABEL org.opencontainers.image.title="thingspace-gateway" \
      org.opencontainers.image.description="A gRPC gateway to Verizon's ThingSpace" \
      org.opencontainers.image.source="https://github.com/thingspace-gateway/thingspace-gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
# The authorities that are trusted when ThingSpace or a collector is called.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# The binary, the licences, and two directories to write to: /var/lib/thingspace-gateway for the journal
# and /tmp for a sandbox's. Mount volumes there where the root is read-only. As one tree: of a directory
# that is copied by itself the mode would be lost.
COPY --from=build --chown=65532:65532 /src/image/ /
# The default of journal.dir, ./data, is below it; a variable would stand over a settings file.
WORKDIR /var/lib/thingspace-gateway
USER 65532:65532
EXPOSE 50051 9001 9090
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/thingspace-gateway", "healthcheck"]
ENTRYPOINT ["/thingspace-gateway"]
CMD ["serve"]
