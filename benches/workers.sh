#!/usr/bin/env bash
# Loads clusters of nodes with 1, 2 and 4 workers in turn, and prints processor time per request: of the node asked, of all
# nodes, and of the busiest thread. The figures are in docs/performance.md.
#
#   benches/workers.sh [ROUNDS]     default 3; takes a minute and a half per round
#
# Needs `cargo build --release`. Listens on 127.0.0.1, ports 21000 to 21002.
set -euo pipefail
cd "$(dirname "$0")/.."
paxoi=$PWD/target/release/paxoi
rounds=${1:-3}
place=$(mktemp -d)
cluster=
stop() { [ -z "$cluster" ] || { kill -INT "$cluster" && wait "$cluster"; } 2>/dev/null || true; cluster=; }
trap 'stop; rm -rf "$place"' EXIT

for _ in $(seq "$rounds"); do
    for workers in 1 2 4; do
        "$paxoi" local --dir "$place/data" --port 21000 --groups 16 --workers "$workers" >"$place/log" 2>&1 &
        cluster=$!
        for _ in $(seq 100); do grep -q '^ready' "$place/log" && break; sleep 0.1; done
        for load in "set 200 32" "get 200 32" "set 50 1" "get 50 1"; do
            read -r kind connections pipeline <<<"$load"
            "$paxoi" bench --connect 127.0.0.1:21000 --cpu --duration 4s --workload "$kind" \
                --connections "$connections" --pipeline "$pipeline" --keys 100000 >"$place/out"
            awk -v of="W=$workers $kind P=$pipeline" '
                /^ (set|get) /{ split($0, row, " ") }
                /processor time/{ cpu = $(NF-3) " " $NF }
                /thread paxoi(-[0-9]+)? /{ if ($(NF-3) + 0 > most) most = $(NF-3) + 0 }
                END { print of, "req/s", row[3], "p50", row[6] row[7], "p99", row[10] row[11],
                    "cpu_node1/all", cpu, "busiest_thread_node1", most }' "$place/out"
        done
        stop
        rm -rf "$place/data"
    done
done
