#!/bin/sh
# What checkpoints, catching up and starting cost, on three nodes of this machine:
#
#   benches/storage.sh flat [SECONDS]      endless overwrites (RATE=20000: so many a second): disk and memory over time
#   benches/storage.sh catch-up [MIB]      a node is killed, the others take that many MiB of writes and cut their logs; it
#                                          is started again under load (RATE=8000, or max): how long until it has
#                                          everything, and what the load notices of it
#   benches/storage.sh turns [KEYS]        how long turns of the event loop take while a group with that many keys is written
#                                          to a checkpoint under load, and without; what else runs here runs behind that node
#   benches/storage.sh rebalance [SECONDS] a node is killed and started again, again and again, and gets its groups back each
#                                          time: the p99 of the moments with handovers, and of the calm ones between
#   benches/storage.sh restart [KEYS]      a node with that many keys (VALUE_SIZE=100 bytes each), and ONE_GROUP=0 more that
#                                          share a group, is killed and started again: when which groups are here
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
    ${BEHIND:-} "$PAXOI" serve --id "$1" --data "$DIR/$1" --initial-cluster "$LIST" >/dev/null 2>>"$DIR/$1.log" &
    eval "PID$1=$!"
    PIDS="$PIDS $!"
}
ask() { redis-cli -p "$((PORT + $1 - 1))" info paxos 2>/dev/null | tr -d '\r' | sed -n "s/^$2://p"; } # node, field
bench() { ${BEHIND:-} "$PAXOI" bench --connect "$ALL" --cluster "$@"; }
now_ms() { date +%s%3N; }
await() { # seconds, command…
    end=$(($(now_ms) + $1 * 1000)); shift
    until "$@"; do
        [ "$(now_ms)" -lt "$end" ] || { echo "gave up waiting: $*" >&2; tail -n 3 "$DIR"/*.log >&2; exit 1; }
        sleep "${POLL:-0.05}"
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
    noticed() { ask 1 peer3 | grep -q reached=0 && ask 2 peer3 | grep -q reached=0; }
    await 10 noticed
    await 10 led
    echo "node 3 is killed; writing $mib MiB"
    bench $load --requests "$((mib * 1048576 / 1000))" | sed -n '/per second/,$p'
    echo "log of node 1: $(ask 1 log_bytes) bytes, checkpoints: $(ask 1 checkpoint_bytes) bytes"
    # A load that leaves some of the machine free: what a node takes that catches up shows as slower replies. RATE=max is
    # one that leaves nothing: then it shows in the throughput, beside that of all three nodes afterwards.
    rate=${RATE:-8000}
    paced="--rate $rate"
    [ "$rate" != max ] || paced=
    bench $load $paced --duration 60s --json "$DIR/load.json" >/dev/null 2>&1 &
    under=$!
    PIDS="$PIDS $under"
    sleep 10
    since=$(now_ms)
    # APART=1: it takes no processor from those that serve, as on a machine of its own.
    BEHIND=${APART:+nice -n 19}
    start 3
    BEHIND=
    behind() { [ -n "$(applied 3)" ] && [ "$(ask 3 groups_behind)" = 0 ] && [ "$(($(applied 1) - $(applied 3)))" -lt 500 ] && [ "$(ask 3 groups_not_whole)" = 0 ]; }
    # As seldom as this, and as often afterwards: looking takes the processor from what is measured.
    POLL=0.5
    await 120 behind
    until=$(now_ms)
    echo "caught up after $((until - since)) ms: $(ask 3 states_installed) states, $(ask 3 transfer_bytes_received) bytes of checkpoints"
    while kill -0 "$under" 2>/dev/null; do behind || :; sleep "$POLL"; done
    wait "$under"
    POLL=
    python3 - "$DIR/load.json" "$since" "$until" <<'EOF'
import json, statistics, sys
run = json.load(open(sys.argv[1]))
began = run["unix_time_ms"] / 1000 - run["elapsed_s"]
since, until = (int(at) / 1000 - began for at in sys.argv[2:4])
width = run["interval_s"]
rates = {}
parts = {"before": (1, since), "meanwhile": (since, until), "afterwards": (until + 1, run["elapsed_s"] - 1)}
for name, (first, last) in parts.items():
    points = [point for point in run["series"] if first - width / 2 <= point["at_s"] < last - width / 2]
    rate = statistics.mean(point["requests_per_s"] for point in points)
    p50, p99 = (statistics.median(point[key] for point in points) / 1000 for key in ("p50_us", "p99_us"))
    rates[name] = rate
    print(f"{name}: {rate:.0f} a second; in {width} s p50 {p50:.2f} ms, p99 {p99:.2f} ms (medians of {len(points)})")
print(f"served meanwhile, against afterwards: {100 * (rates['meanwhile'] / rates['afterwards'] - 1):+.0f} %")
EOF
    votes() { [ "$(ask 3 ballots_lost)" != "" ] && redis-cli -p "$((PORT + 2))" set back 1 >/dev/null; }
    kill -9 "$PID2"
    since=$(now_ms)
    await 30 votes
    echo "with node 2 killed, nodes 1 and 3 take writes after $(($(now_ms) - since)) ms: node 3 votes"
    grep -h "installed\|fetching" "$DIR/3.log" || :
    ;;
turns)
    keys=${2:-1000000}
    export PAXOI_GROUPS=1 PAXOI_CHECKPOINT_LOG_BYTES=${PAXOI_CHECKPOINT_LOG_BYTES:-8gb}
    start 1
    BEHIND="nice -n 15"
    start 2; start 3; await 30 led
    bench --workload get --keys "$keys" --connections 50 --pipeline 32 --requests 1000 >/dev/null
    load="--workload set --keys $keys --no-load --connections 20 --rate ${RATE:-5000}"
    turns() { for field in p50 p99 p999 max; do printf ' %s %s us' "$field" "$(ask 1 "turn_${field}_us")"; done; echo; }
    leads() { [ "$(ask 1 groups_led)" = 1 ]; }
    await 30 leads
    for round in 1 2 3; do
        bench $load --duration 10s --json "$DIR/without.json" >/dev/null 2>&1 &
        PIDS="$PIDS $!"; under=$!
        sleep 1; redis-cli -p "$PORT" config resetstat >/dev/null; wait "$under"
        echo "without a checkpoint:$(turns)"
        bench $load --duration 10s --json "$DIR/with.json" >/dev/null 2>&1 &
        PIDS="$PIDS $!"; under=$!
        sleep 1; redis-cli -p "$PORT" config resetstat >/dev/null; made=$(ask 1 checkpoints_made)
        redis-cli -p "$PORT" paxoi checkpoint >/dev/null
        while kill -0 "$under" 2>/dev/null; do
            [ "$(ask 1 checkpoint_in_progress)" = 1 ] || redis-cli -p "$PORT" paxoi checkpoint >/dev/null
            sleep 0.2
        done
        echo "with $(($(ask 1 checkpoints_made) - made)) checkpoints:$(turns)"
    done
    ;;
rebalance)
    # A run of more than four minutes: the generator's series is of 0.8 s then, each with its own p99.
    seconds=${2:-250}
    cluster
    "$PAXOI" bench --connect "127.0.0.1:$PORT,127.0.0.1:$((PORT + 1))" --workload mixed:0.5 --keys 100000 --connections 20 \
        --rate "${RATE:-4000}" --duration "${seconds}s" --json "$DIR/rebalance.json" >/dev/null 2>&1 &
    load=$!
    PIDS="$PIDS $load"
    # Looked at as often in calm moments as around handovers: that takes the processor from what is measured.
    watch() { for look in $(seq "$1"); do sleep 0.5; echo "$(now_ms) $(ask 3 groups_led)" >>"$DIR/led"; done; }
    since=$(now_ms)
    watch 20
    while [ "$(($(now_ms) - since))" -lt "$((seconds * 1000 - 35000))" ]; do
        echo "$(now_ms)" >>"$DIR/killed"
        kill -9 "$PID3"
        sleep 1
        start 3
        watch 50
    done
    wait "$load"
    python3 - "$DIR/rebalance.json" "$DIR/led" "$DIR/killed" <<'EOF'
import json, statistics, sys
run = json.load(open(sys.argv[1]))
began, width = run["unix_time_ms"] / 1000 - run["elapsed_s"], run["interval_s"]
looks = [line.split() for line in open(sys.argv[2])]
looks = [(int(at) / 1000 - began, int(*led) if led else 0) for at, *led in looks]
# When it was seen to lead more groups than before.
seen = [at for (_, before), (at, led) in zip(looks, looks[1:]) if before < looks[-1][1] and led > before]
kills = [int(line) / 1000 - began for line in open(sys.argv[3])]
p99 = [(point["at_s"], point["p99_us"] / 1000) for point in run["series"]]
# They were handed over within the half second before it was seen.
handed = lambda at: any(at < look and at + width > look - 0.6 for look in seen)
failing = lambda at: any(killed - 1 < at < killed + 4 for killed in kills)
calm = sorted(ms for at, ms in p99 if 2 < at < run["elapsed_s"] - 2 and not handed(at) and not failing(at))
handovers = sorted(ms for at, ms in p99 if handed(at))
median = statistics.median(calm)
part = lambda of: f"{sum(ms > 2 * median for ms in of)} of {len(of)}"
print(f"{len(kills)} times killed, {len(seen)} times seen to have more groups; p99 of each {width:.1f} s, calm ones: median {median:.2f} ms,"
      f" 9 of 10 below {calm[len(calm) * 9 // 10]:.2f} ms, largest {calm[-1]:.2f} ms")
print("with handovers:", ", ".join(f"{ms:.2f}" for ms in handovers),
      f"ms: median {statistics.median(handovers) / median:.2f}, largest {handovers[-1] / median:.2f} times the calm median")
print(f"above twice the calm median: {part(handovers)} with handovers, {part(calm)} calm ones")
print(f"failures: {run['errors']}, {run['requests_lost']} lost")
EOF
    ;;
restart)
    export PAXOI_CHECKPOINT_LOG_BYTES=${PAXOI_CHECKPOINT_LOG_BYTES:-128mb}
    keys=${2:-5000000}
    cluster
    # `get` loads all keys first.
    bench --workload get --keys "$keys" --value-size "${VALUE_SIZE:-100}" --connections 50 --pipeline 32 --requests 1000 >/dev/null
    awk -v keys="${ONE_GROUP:-0}" 'BEGIN {
        value = sprintf("%0100d", 0)
        for (i = 0; i < keys; i += 50) {
            printf "MSET"
            for (j = i; j < i + 50; j++) printf " {one}:%d %s", j, value
            printf "\r\n"
        }
    }' | redis-cli -p "$PORT" --pipe >/dev/null
    await 60 sh -c "[ \"\$(redis-cli -p $((PORT + 2)) info paxos | tr -d '\r' | sed -n 's/^checkpoint_in_progress://p')\" = 0 ]"
    echo "node 3: $(ask 3 checkpoint_bytes) bytes of checkpoints, $(ask 3 log_bytes) bytes of log segments, $(disk 3) MiB on disk"
    kill -9 "$PID3"
    wait "$PID3" 2>/dev/null || :
    : >"$DIR/3.log"
    since=$(now_ms)
    start 3
    says_loading() { redis-cli -p "$((PORT + 2))" ping 2>/dev/null | grep -q LOADING; }
    answers() { [ "$(redis-cli -p "$((PORT + 2))" ping 2>/dev/null)" = PONG ]; }
    await 10 says_loading
    echo "says that it loads after $(($(now_ms) - since)) ms"
    await 120 answers
    echo "has its first groups after $(($(now_ms) - since)) ms"
    loaded() { grep -q "loaded" "$DIR/3.log"; }
    await 120 loaded
    grep -hE "loaded" "$DIR/3.log"
    ;;
*)
    sed -n '2,13p' "$0" >&2
    exit 2
    ;;
esac
