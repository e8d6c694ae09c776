//! A cluster whose members have host names in their addresses. Replies give the names in the form of a real Redis that
//! prefers host names. Every client finds every node, and no client is sent to a dead node.

use super::cluster::Cluster;
use super::redis_server::RedisServer;
use super::tools::{is_there, skip, succeed};
use super::wire::{PATIENCE, Wire, ask};
use net::resp::value::Value;
use redis::Commands;
use redis::cluster::ClusterClient;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Instant;

const NAME: &str = "localhost";

/// Returns the structure of a value: types instead of numbers and texts, except for the host name, `master` and
/// `online`.
fn shape(value: &Value) -> String {
    let list = |items: &[Value]| items.iter().map(shape).collect::<Vec<_>>().join(" ");
    match value {
        Value::Int(_) => "number".to_owned(),
        Value::Array(items) => format!("[{}]", list(items)),
        Value::Map(pairs) => {
            let pair = |(name, value): &(Value, Value)| format!("{}: {}", text(name), shape(value));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        other => {
            let text = text(other);
            if [NAME, "master", "online"].contains(&text.as_str()) { text } else { "text".to_owned() }
        }
    }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned()
}

fn resp3(node: SocketAddr, command: &str) -> Value {
    let mut wire = Wire::connect(node);
    wire.send(b"HELLO 3\r\n");
    wire.receive();
    wire.send(format!("{command}\r\n").as_bytes());
    wire.receive()
}

/// Returns a line of CLUSTER NODES without ids, port numbers and slots.
fn line_shape(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let address: String = words[1].chars().map(|sign| if sign.is_ascii_digit() { '0' } else { sign }).collect();
    let name = address.split_once(',').expect("a name").1;
    format!("{} @,{name} {} {} {}", words[0].len(), words[2], words[3], words[7])
}

#[test]
fn the_shapes_are_those_of_a_redis_that_prefers_hostnames() {
    // The port of the Redis cluster bus, which connects the nodes of a cluster. This Redis has no other nodes.
    let bus = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let redis = RedisServer::with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus.to_string(),
        "--cluster-announce-hostname",
        NAME,
        "--cluster-preferred-endpoint-type",
        "hostname",
    ]);
    let Some(redis) = redis else { return skip("redis-server") };
    assert_eq!(ask(redis.address, "CLUSTER ADDSLOTSRANGE 0 16383"), "OK");
    let cluster = Cluster::at(NAME);
    let node = cluster.nodes[0];
    // The structure of the first range and its leader.
    let first = |node: SocketAddr| {
        let slots = resp3(node, "CLUSTER SLOTS");
        let range = slots.as_items().expect("ranges")[0].as_items().expect("a range").to_vec();
        shape(&Value::Array(range[..3].to_vec()))
    };
    assert_eq!(first(redis.address), "[number number [localhost number text {ip: text}]]");
    assert_eq!(first(node), first(redis.address));
    let shard = |node: SocketAddr| {
        let Value::Array(shards) = resp3(node, "CLUSTER SHARDS") else { panic!("shards") };
        let Value::Map(fields) = &shards[0] else { panic!("a map") };
        let Value::Array(nodes) = &fields[1].1 else { panic!("nodes") };
        format!("{} {} {}", text(&fields[0].0), text(&fields[1].0), shape(&nodes[0]))
    };
    assert_eq!(shard(node), shard(redis.address));
    let line = |node: SocketAddr| {
        let nodes = text(&resp3(node, "CLUSTER NODES"));
        line_shape(nodes.lines().find(|line| line.contains("myself")).expect("one of them"))
    };
    assert_eq!(line(node), line(redis.address));
}

#[test]
fn every_client_finds_every_node_by_its_name_and_none_that_is_dead() {
    let cluster = Cluster::at(NAME);
    let told = |part: &str| cluster.nodes.iter().all(|node| ask(*node, "CLUSTER NODES").matches(part).count() == 3);
    wait("the IP addresses of all nodes", || told(" 127.0.0.1:"));
    assert!(told(&format!(",{NAME} ")), "{}", ask(cluster.nodes[0], "CLUSTER NODES"));

    let client = ClusterClient::new(vec![format!("redis://{NAME}:{}/", cluster.port())]).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    for key in 0..100 {
        let () = connection.set(format!("key{key}"), key).unwrap();
    }
    let keys = |connection: &mut redis::cluster::ClusterConnection| {
        (0..100).all(|key| connection.get::<_, i64>(format!("key{key}")).unwrap() == key)
    };
    assert!(keys(&mut connection));
    if is_there("redis-cli", &["--version"]) {
        check_with_redis_cli(&cluster, 0, "3 masters");
        let arguments = ["--cluster", "-q", "-t", "set,get", "-n", "2000", "-r", "1000", "-h", NAME, "-p"];
        let output = succeed(Command::new("redis-benchmark").args(arguments).arg(cluster.port()), "");
        assert_eq!(output.matches(" requests per second").count(), 2, "{output}");
    }
    let python = std::env::var("PAXOI_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".to_owned());
    if is_there(&python, &["-c", "import redis"]) {
        let script = "import sys; from redis.cluster import RedisCluster\n\
                      c = RedisCluster(host=sys.argv[1], port=int(sys.argv[2]), decode_responses=True)\n\
                      assert all(c.set(f'key{k}', k) for k in range(100)) and len(c.get_nodes()) == 3\n\
                      assert [c.get(f'key{k}') for k in range(100)] == [str(k) for k in range(100)]\n";
        succeed(Command::new(python).args(["-W", "ignore", "-c", script, NAME, &cluster.port()]), "");
    }

    let process = ask(cluster.nodes[2], "INFO server");
    let process = process.split("process_id:").nth(1).and_then(|rest| rest.split('\\').next()?.parse::<i32>().ok());
    let process = process.and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("a signal");
    let (dead, node) = (cluster.nodes[2].port(), cluster.nodes[0]);
    wait("the dead node marked as failed", || {
        let nodes = ask(node, "CLUSTER NODES");
        nodes.contains(&format!(" 127.0.0.1:{dead}@{dead},{NAME} master,fail - 0 0 3 disconnected\\n"))
    });
    wait("leaders for its slots", || ask(node, "CLUSTER INFO").contains("cluster_state:ok"));
    let slots = ask(node, "CLUSTER SLOTS");
    assert!(!slots.contains(&dead.to_string()), "{dead} in {slots}");
    assert_eq!(ask(node, "CLUSTER SHARDS").matches("\"health\" \"fail\"").count(), 3, "in each shard");
    let status = Command::new(env!("CARGO_BIN_EXE_paxoi"))
        .args(["status", "--connect", &format!("{NAME}:{}", cluster.port())])
        .output()
        .expect("the program runs");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("3 nodes: 2 up, 1 down;"), "{status}");
    if is_there("redis-cli", &["--version"]) {
        check_with_redis_cli(&cluster, 1, "2 masters");
    }
    assert!(keys(&mut client.get_connection().expect("a connection")));
}

fn check_with_redis_cli(cluster: &Cluster, node: usize, masters: &str) {
    let address = format!("{NAME}:{}", cluster.nodes[node].port());
    let output = succeed(Command::new("redis-cli").args(["--cluster", "check", &address]), "");
    assert!(output.contains("[OK] All 16384 slots covered.") && output.contains(masters), "{output}");
    assert!(!output.contains("[ERR]") && !output.contains("ERR "), "{output}");
}

/// Waits until `holds` returns true, for changes that the cluster makes by itself.
#[track_caller]
fn wait(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
