# One file, a target for each binary: docker build --target manager|api|shard|gateway-sim .
# The build downloads crates and nothing else.

ARG RUST=1.95-slim-bookworm
ARG DEBIAN=bookworm-slim

# What dependencies are built from: manifests, and sources that say nothing. It comes out the same until a manifest changes.
FROM rust:${RUST} AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -name '*.rs' -delete \
 && find . -name '*.rs' ! -path '*/src/lib.rs' ! -path '*/src/main.rs' ! -path '*/benches/*' -delete \
 && find . -name '*.rs' -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} + \
 && find . -type d -empty -delete

FROM rust:${RUST} AS dependencies
WORKDIR /src
ENV CARGO_TERM_COLOR=never
COPY --from=manifests /src .
RUN cargo build --release --locked \
    -p shardmeter-manager -p shardmeter-api -p shardmeter-shard -p shardmeter-gateway-sim

FROM dependencies AS build
COPY . .
# Files may be older than what was built from the ones that said nothing. Those that dependencies generated are not: touched, they
# would be built again.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --bins \
    -p shardmeter-manager -p shardmeter-api -p shardmeter-shard -p shardmeter-gateway-sim \
 && strip -g target/release/shardmeter-manager target/release/shardmeter-api \
    target/release/shardmeter-shard target/release/shardmeter-gateway-sim

# What all of them run on. Certificates of authorities are in the binaries.
FROM debian:${DEBIAN} AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin shardmeter \
 && install -d -m 0700 -o shardmeter -g shardmeter /data /run/shardmeter/ingest /run/shardmeter/admin
USER 10001:10001
WORKDIR /data
ENV LOG_FORMAT=json

FROM runtime AS gateway-sim
COPY --from=build /src/target/release/shardmeter-gateway-sim /usr/local/bin/
ENV GATEWAY_SIM_ADDR=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s CMD ["shardmeter-gateway-sim", "healthcheck"]
ENTRYPOINT ["shardmeter-gateway-sim"]

FROM runtime AS shard
COPY --from=build /src/target/release/shardmeter-shard /usr/local/bin/
ENV SHARDMETER_HEALTH_ADDR=127.0.0.1:8080 SHARDMETER_STATE_DIR=/data
VOLUME /data
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["shardmeter-shard", "healthcheck"]
ENTRYPOINT ["shardmeter-shard"]

FROM runtime AS api
COPY --from=build /src/target/release/shardmeter-api /usr/local/bin/
ENV API_ADDR=0.0.0.0:3000
EXPOSE 3000
VOLUME /data
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s CMD ["shardmeter-api", "healthcheck"]
ENTRYPOINT ["shardmeter-api"]

FROM runtime AS manager
COPY --from=build /src/target/release/shardmeter-manager /usr/local/bin/
ENV SHARDMETER_HTTP_ADDR=0.0.0.0:30000 SHARDMETER_GRPC_ADDR=0.0.0.0:30001 SHARDMETER_DATA_DIR=/data
EXPOSE 30000 30001
VOLUME /data
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["shardmeter-manager", "healthcheck"]
ENTRYPOINT ["shardmeter-manager"]
