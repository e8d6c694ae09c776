#!/usr/bin/env python3
"""What small commands notice of large values, on three nodes of this machine:

  benches/large.py [--clients N] [--mib N] [--seconds N] [--rate N] [--dir DIR] [PROGRAM...]

Clients set values of so many MiB, one after the other each, at all nodes, while the bundled generator sends small SETs by
the clock. Several programs are measured in turns, --pairs times each. Needs `cargo build --release`. The folder in DIR is
removed at the end. Values above 64 MiB have --value-bytes-max raised to 512 MiB.
"""
import argparse, json, os, shutil, socket, subprocess, sys, tempfile, threading, time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--clients", type=int, default=6)
ap.add_argument("--mib", type=float, default=57.2, help="57.2 MiB are 60 MB")
ap.add_argument("--seconds", type=int, default=12)
ap.add_argument("--rate", type=int, default=1000)
ap.add_argument("--once", action="store_true", help="each client sets one value")
ap.add_argument("--pairs", type=int, default=1)
ap.add_argument("--port", type=int, default=17501)
ap.add_argument("--dir", default=".")
ap.add_argument("--keep-logs", help="a folder that gets the nodes' logs")
ap.add_argument("programs", nargs="*", default=["target/release/paxoi"])
args = ap.parse_args()
ports = [args.port + i for i in range(3)]


def command(port, *words, timeout=90.0):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as conn:
        conn.settimeout(timeout)
        conn.sendall(b"*%d\r\n" % len(words))
        for word in words:
            conn.sendall(b"$%d\r\n" % len(word))
            conn.sendall(word)
            conn.sendall(b"\r\n")
        line = conn.makefile("rb").readline()
        return line.decode(errors="replace").strip()


def await_cluster():
    end = time.monotonic() + 30
    for port in ports:
        for key in range(64):
            while True:
                try:
                    if command(port, b"SET", b"warm:%d" % key, b"1", timeout=5).startswith("+OK"):
                        break
                except OSError:
                    pass
                if time.monotonic() > end:
                    sys.exit("the cluster does not come up")
                time.sleep(0.1)


def measure(program):
    # What the run before has not written yet would be written in this one.
    os.sync()
    time.sleep(5)
    folder = tempfile.mkdtemp(prefix="storage-large-", dir=args.dir)
    members = ",".join(f"{i + 1}=127.0.0.1:{port}" for i, port in enumerate(ports))
    nodes, results, stop = [], [], threading.Event()
    try:
        for i in range(3):
            words = [program, "serve", "--id", str(i + 1), "--data", f"{folder}/{i + 1}", "--initial-cluster", members]
            if args.mib > 64:
                words += ["--value-bytes-max", "512mb"]
            log = open(f"{folder}/{i + 1}.log", "ab")
            nodes.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log))
        await_cluster()
        value = b"v" * int(args.mib * 1048576)

        def client(number):
            while not stop.is_set():
                began = time.monotonic()
                try:
                    reply = command(ports[number % 3], b"SET", b"large:%d" % number, value)
                except OSError as error:
                    reply = f"-{error}"
                results.append((round(time.monotonic() - began, 1), reply[:60]))
                if args.once:
                    return

        clients = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(args.clients)]
        out = f"{folder}/bench.json"
        bench = [program, "bench", "--connect", ",".join(f"127.0.0.1:{port}" for port in ports), "--rate", str(args.rate),
                 "--duration", f"{args.seconds}s", "--keys", "1000", "--json", out]
        load = subprocess.Popen(bench, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(1)
        [thread.start() for thread in clients]
        text = load.communicate()[0]
        stop.set()
        [thread.join(120) for thread in clients]
        cpu = []
        for node in nodes:
            fields = open(f"/proc/{node.pid}/stat").read().rsplit(")", 1)[1].split()
            cpu.append(round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 1))
        rss = [int(line.split()[1]) >> 10 for node in nodes for line in open(f"/proc/{node.pid}/status") if "VmHWM" in line]
        ok = sum(reply.startswith("+OK") for _, reply in results)
        print(f"--- {program}: {args.clients} clients of {args.mib} MiB beside {args.rate} small SETs a second, {args.seconds} s")
        print("\n".join(text.strip().splitlines()[-14:]))
        print(f"large values: {ok} of {len(results)} OK, {sorted(took for took, _ in results)} s; others:",
              sorted({reply for _, reply in results if not reply.startswith("+OK")}))
        print(f"processor seconds of the nodes: {cpu}; largest resident MiB: {rss}", flush=True)
    finally:
        for node in nodes:
            node.kill()
            node.wait()
        if args.keep_logs:
            os.makedirs(args.keep_logs, exist_ok=True)
            for i in range(3):
                shutil.copy(f"{folder}/{i + 1}.log", f"{args.keep_logs}/{i + 1}.log")
        shutil.rmtree(folder)


for _ in range(args.pairs):
    for program in args.programs:
        measure(program)
