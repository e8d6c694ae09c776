#!/usr/bin/env bash
# Compares a three-node Paxoi with an unreplicated redis-server that syncs every write, on this machine's disk, by plain
# redis-benchmark: pairs alternated in one run, medians and their ratio. Everything shares the machine.
#
#   benches/floors.sh [PAIRS] [DIRECTORY]      (7 pairs, a new folder here; needs redis-server and redis-benchmark)
set -euo pipefail
pairs=${1:-7}
dir=$(mktemp -d "${2:-.}/paxoi-floors-XXXXXX")
paxoi=${PAXOI:-target/release/paxoi}
redis_port=${REDIS_PORT:-7400}
port=${PORT:-7401}

finish() {
    kill "$paxoi_pid" "$redis_pid" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$dir"
}
mkdir "$dir/redis"
(cd "$dir/redis" && exec redis-server --port "$redis_port" --appendonly yes --appendfsync always --save '' --daemonize no >../redis.log) &
redis_pid=$!
"$paxoi" local --dir "$dir/paxoi" --port "$port" >"$dir/ready" 2>"$dir/paxoi.log" &
paxoi_pid=$!
trap finish EXIT
for _ in $(seq 300); do grep -q ready "$dir/ready" && break; sleep 0.1; done
grep -q ready "$dir/ready"
# Until every node leads its third: groups go to their preferred members after ten healthy seconds.
for _ in $(seq 300); do
    [ "$(redis-cli -p "$port" info paxos | tr -d '\r' | awk -F: '/^groups_led/{print $2}')" -le 6 ] && break
    sleep 0.1
done

# load NAME PORT EXTRA...: requests per second of one run
load() {
    redis-benchmark -p "$2" "${@:3}" -r 1000000 -d 64 --csv 2>/dev/null | awk -F'","' 'END{gsub(/"/, "", $2); print $2}'
}
median() { sort -n | awk '{v[NR]=$1} END{print (NR % 2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }

printf '%-26s %12s %12s %12s %7s %7s %15s\n' load redis paxoi 'paxoi -c' ratio floor 'pairs: min max'
compare() { # NAME FLOOR ARGS...
    local name=$1 floor=$2
    shift 2
    : >"$dir/r" && : >"$dir/p" && : >"$dir/c" && : >"$dir/ratios"
    for _ in $(seq "$pairs"); do
        local r p c
        r=$(load redis "$redis_port" "$@")
        p=$(load paxoi "$port" "$@")
        c=$(load cluster "$port" --cluster "$@")
        echo "$r" >>"$dir/r"; echo "$p" >>"$dir/p"; echo "$c" >>"$dir/c"
        awk -v p="$p" -v r="$r" 'BEGIN{print p / r}' >>"$dir/ratios"
    done
    awk -v name="$name" -v floor="$floor" -v r="$(median <"$dir/r")" -v p="$(median <"$dir/p")" -v c="$(median <"$dir/c")" \
        -v ratio="$(median <"$dir/ratios")" -v low="$(sort -n "$dir/ratios" | head -1)" -v high="$(sort -n "$dir/ratios" | tail -1)" \
        'BEGIN{printf "%-26s %12d %12d %12d %7.2f %7s    %5.2f %5.2f\n", name, r, p, c, ratio, floor, low, high}'
}
compare 'SET c=50 P=1' 0.5 -t set -n 100000 -c 50
compare 'SET c=200 P=32' 0.35 -t set -n 1000000 -c 200 -P 32
compare 'GET c=50 P=1' 0.7 -t get -n 150000 -c 50
compare 'GET c=200 P=32' 0.45 -t get -n 1500000 -c 200 -P 32
