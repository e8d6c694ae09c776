#!/bin/sh
# What checkpoints, catching up and starting cost, on three nodes of this machine:
#
#   benches/storage.sh flat [SECONDS]      endless overwrites (RATE=20000: so many a second): disk and memory over time
#   benches/storage.sh catch-up [MIB]      a node is killed, the others take that many MiB of writes and cut their logs; it
#                                          is started again under load: how long until it has everything, and what of
#                                          the load's throughput is left meanwhile
#   benches/storage.sh restart [KEYS]      a node with that many keys is killed and started again
#
# Needs `cargo build --release` and redis-cli. Everything is in a new folder here, which is removed at the end.
set -eu
cd "$(dirname "$0")/.."
PAXOI=${PAXOI:-target/release/paxoi}
PORT=${PORT:-17401}
LIST="1=127.0.0.1:$PORT,2=127.0.0.1:$((PORT + 1)),3=127.0.0.1:$((PORT + 2))"
ALL="127.0.0.1:$PORT,127.0.0.1:$((PORT + 1)),127.0.0.1:$((PORT + 2))"
DIR=$(mktemp -d ./storage-XXXXXX)
PIDS=
trap 'for pid in $PIDS; do kill -9 "$pid" 2>/dev/null || :; done; rm -rf "$DIR"' EXIT INT TERM

start() { # node
    "$PAXOI" serve --id "$1" --data "$DIR/$1" --initial-cluster "$LIST" >/dev/null 2>>"$DIR/$1.log" &
    eval "PID$1=$!"
    PIDS="$PIDS $!"
}
ask() { redis-cli -p "$((PORT + $1 - 1))" info paxos 2>/dev/null | tr -d '\r' | sed -n "s/^$2://p"; } # node, field
bench() { "$PAXOI" bench --connect "$ALL" --cluster "$@"; }
now_ms() { date +%s%3N; }
await() { # seconds, command…
    end=$(($(now_ms) + $1 * 1000)); shift
    until "$@"; do
        [ "$(now_ms)" -lt "$end" ] || { echo "gave up waiting: $*" >&2; tail -n 3 "$DIR"/*.log >&2; exit 1; }
        sleep 0.05
    done
}
led() { [ "$(ask 1 groups_leaderless)" = 0 ] && [ "$(ask 2 groups_leaderless)" = 0 ]; }
cluster() { start 1; start 2; start 3; await 30 led; }
rss() { eval "awk '/VmRSS/ {print int(\$2 / 1024)}' /proc/\$PID$1/status"; }
disk() { du -sm "$DIR/$1" | cut -f1; }
applied() { ask "$1" applied_total; }

case ${1:-} in
flat)
    export PAXOI_CHECKPOINT_LOG_BYTES=${PAXOI_CHECKPOINT_LOG_BYTES:-256mb}
    seconds=${2:-600}
    cluster
    bench --workload set --keys 500000 --value-size 256 --connections 50 --pipeline 8 --duration "${seconds}s" ${RATE:+--rate "$RATE"} >"$DIR/bench" 2>&1 &
    load=$!
    PIDS="$PIDS $load"
    echo "second  MiB on disk (nodes 1 2 3)  MiB resident (nodes 1 2 3)  rounds of checkpoints  instances"
    since=$(now_ms)
    while kill -0 "$load" 2>/dev/null; do
        echo "$((($(now_ms) - since) / 1000))  $(disk 1) $(disk 2) $(disk 3)  $(rss 1) $(rss 2) $(rss 3)  $(ask 1 checkpoints_made)  $(applied 1)"
        sleep "${STEP:-15}"
    done
    cat "$DIR/bench"
    ;;
catch-up)
    export PAXOI_CHECKPOINT_LOG_BYTES=${PAXOI_CHECKPOINT_LOG_BYTES:-128mb}
    mib=${2:-2048}
    cluster
    load="--workload set --keys 300000 --value-size 1000 --connections 40 --pipeline 4 --no-load"
    bench $load --requests 300000 >/dev/null
    kill -9 "$PID3"
    await 10 led
    echo "node 3 is killed; writing $mib MiB"
    bench $load --requests "$((mib * 1048576 / 1000))" | sed -n '/per second/,$p'
    echo "log of node 1: $(ask 1 log_bytes) bytes, checkpoints: $(ask 1 checkpoint_bytes) bytes"
    # A load that leaves some of the machine free: what a node takes that catches up shows as slower replies.
    rate=${RATE:-8000}
    bench $load --rate "$rate" --duration 10s --json "$DIR/before.json" >/dev/null 2>&1
    bench $load --rate "$rate" --duration 30s --json "$DIR/during.json" >/dev/null 2>&1 &
    under=$!
    PIDS="$PIDS $under"
    sleep 2
    since=$(now_ms)
    start 3
    behind() { [ -n "$(applied 3)" ] && [ "$(ask 3 groups_behind)" = 0 ] && [ "$(($(applied 1) - $(applied 3)))" -lt 500 ] && [ "$(ask 3 groups_not_whole)" = 0 ]; }
    await 120 behind
    echo "caught up after $(($(now_ms) - since)) ms: $(ask 3 states_installed) states, $(ask 3 transfer_bytes_received) bytes of checkpoints"
    wait "$under"
    for run in before during; do
        echo "$run, at $rate a second: $(python3 -c "import json; r = json.load(open('$DIR/$run.json')); print(round(r['requests_per_s']), 'a second,', {k: v for o in r['operations'] for k, v in o['latency'].items() if not isinstance(v, list)})")"
    done
    votes() { [ "$(ask 3 ballots_lost)" != "" ] && redis-cli -p "$((PORT + 2))" set back 1 >/dev/null; }
    kill -9 "$PID2"
    since=$(now_ms)
    await 30 votes
    echo "with node 2 killed, nodes 1 and 3 take writes after $(($(now_ms) - since)) ms: node 3 votes"
    grep -h "installed\|fetching" "$DIR/3.log" || :
    ;;
restart)
    export PAXOI_CHECKPOINT_LOG_BYTES=${PAXOI_CHECKPOINT_LOG_BYTES:-128mb}
    keys=${2:-5000000}
    cluster
    # `get` loads all keys first.
    bench --workload get --keys "$keys" --value-size 100 --connections 50 --pipeline 32 --requests 1000 >/dev/null
    await 60 sh -c "[ \"\$(redis-cli -p $((PORT + 2)) info paxos | tr -d '\r' | sed -n 's/^checkpoint_in_progress://p')\" = 0 ]"
    echo "node 3: $(ask 3 checkpoint_bytes) bytes of checkpoints, $(ask 3 log_bytes) bytes of log segments, $(disk 3) MiB on disk"
    kill -9 "$PID3"
    wait "$PID3" 2>/dev/null || :
    : >"$DIR/3.log"
    since=$(now_ms)
    start 3
    answers() { redis-cli -p "$((PORT + 2))" ping >/dev/null 2>&1; }
    await 120 answers
    echo "answers after $(($(now_ms) - since)) ms"
    grep -h "loaded\|recovered" "$DIR/3.log"
    ;;
*)
    sed -n '2,11p' "$0" >&2
    exit 2
    ;;
esac
