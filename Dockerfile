# The image of `shop`: one executable, every role (serve, work, migrate, seed, verify ...).
#
#   docker build -t shop .
#   docker run --rm -p 127.0.0.1:8080:8080 -e SHOP_ALLOW_ANONYMOUS=true shop serve --demo
#
# Nothing below needs BuildKit, so that the legacy builder and Compose 1.29 build it too.

# --- build ---------------------------------------------------------------------------------------------------------
# The same Debian release as the final image: the executable links against its C library.
# The compiler that the slim image brings is enough; SQLite is compiled in, and TLS is rustls.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies first, against empty sources, so that this long layer is built again only when a manifest or the
# lock file changes. A bench or test that Cargo.toml declares must exist for cargo to read it at all; it stays a stub,
# because the image builds neither.
COPY Cargo.toml Cargo.lock ./
COPY migration/Cargo.toml migration/Cargo.toml
COPY tests/model/Cargo.toml tests/model/Cargo.toml
RUN set -eu; \
    mkdir -p src migration/src benches tests; \
    : > tests/model/tests.rs; \
    echo 'fn main() {}' > src/main.rs; \
    : > src/lib.rs; \
    : > migration/src/lib.rs; \
    awk -F'"' '/^\[/ { dir = "" } /^\[\[bench\]\]/ { dir = "benches" } /^\[\[test\]\]/ { dir = "tests" } \
        dir && /^name *=/ { print "fn main() {}" > (dir "/" $2 ".rs") }' Cargo.toml; \
    cargo build --profile dist --locked --bin shop

# Then the shop itself. config/ is compiled in. Cargo compares modification times, and a checkout can be older than
# the stubs, so the three crate roots are touched.
COPY config config
COPY migration migration
COPY src src
RUN set -eu; \
    touch src/lib.rs src/main.rs migration/src/lib.rs; \
    cargo build --profile dist --locked --bin shop; \
    mkdir -p /out/data; \
    cp target/dist/shop /out/shop

# --- run -----------------------------------------------------------------------------------------------------------
# The C library, libgcc, root certificates and time zones; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot

LABEL org.opencontainers.image.title="shop" \
      org.opencontainers.image.description="A headless order service: catalogue, orders, and settlement that never sells a unit twice" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"

COPY --from=build /out/shop /usr/local/bin/shop
# Settings for a container, read by who passes `--config /etc/shop/docker.toml`, as docker-compose.yml does.
COPY --chown=65532:65532 config/docker.toml /etc/shop/docker.toml
# Scripts for administrators of the database, in the place that the Debian package has for them: docs/backup.md#the-scripts.
COPY config/postgres /usr/share/doc/shop/examples/postgres
COPY config/sqlite /usr/share/doc/shop/examples/sqlite
# The only place that is ever written to, so that the root file system can be read-only (`--read-only`). It holds the
# embedded SQLite database, whose default path is relative to the working directory.
COPY --from=build --chown=65532:65532 /out/data /data
VOLUME ["/data"]
WORKDIR /data

# Loopback inside a container reaches nobody, so the addresses are the image's business. They stand here and not in a
# file because `shop health` must ask the very address that `serve` or `work` opened, and HEALTHCHECK and `docker exec`
# inherit the environment but not the command line.
# SHOP_ALLOW_ANONYMOUS is left out on purpose: without authentication, an open address must be asked for by whoever
# starts the container. Until then `serve` stops at once and says what to set.
ENV SHOP_BIND=0.0.0.0:8080 \
    SHOP_MANAGEMENT_BIND=0.0.0.0:8081

# glibc keeps buffers as large as those that were freed before. Every connection to RabbitMQ has two of 4 MB, and at this
# fixed threshold in bytes they go back to the system when it is lost: docs/deployment.md#memory.
ENV MALLOC_MMAP_THRESHOLD_=131072

# By number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532

# 8080: the API. 8081: health and metrics, for serve and work alike; keep it inside.
EXPOSE 8080 8081

# serve and work finish what they have begun on SIGTERM, within 10 seconds.
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/shop", "health"]

ENTRYPOINT ["/usr/local/bin/shop"]
CMD ["serve"]
