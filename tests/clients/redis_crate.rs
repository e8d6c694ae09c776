//! The `redis` crate, plain and in cluster mode.

use super::cluster::Cluster;
use redis::cluster::{ClusterClient, cluster_pipe};
use redis::{Commands, Connection, ErrorKind, ExistenceCheck, Pipeline, ServerErrorKind, SetExpiry, SetOptions};
use std::collections::BTreeSet;

fn connect(cluster: &Cluster, node: usize) -> Connection {
    let client = redis::Client::open(format!("redis://{}/", cluster.nodes[node])).expect("an address");
    client.get_connection().expect("a connection")
}

#[test]
fn a_plain_connection_reaches_every_key_at_any_node() {
    let cluster = Cluster::start();
    let mut connections: Vec<Connection> = (0..3).map(|node| connect(&cluster, node)).collect();
    for key in 0..60 {
        let () = connections[key % 3].set(format!("key{key}"), key).unwrap();
    }
    for key in 0..60 {
        let value: usize = connections[(key + 1) % 3].get(format!("key{key}")).unwrap();
        assert_eq!(value, key);
    }
    let [one, two, three] = &mut connections[..] else { panic!("three nodes") };
    assert_eq!(one.incr::<_, _, i64>("key1", 9).unwrap(), 10);
    assert_eq!(two.mget::<_, Vec<Option<i64>>>(&["key1", "none", "key2"]).unwrap(), [Some(10), None, Some(2)]);
    assert_eq!(three.del::<_, i64>(&["key1", "key2", "none"]).unwrap(), 2);
    assert_eq!(one.append::<_, _, i64>("text", "abc").unwrap(), 3);
    let options =
        SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::EX(100)).get(true);
    assert_eq!(two.set_options::<_, _, Option<String>>("timed", "v", options).unwrap(), None);
    assert!((90..=100).contains(&three.ttl::<_, i64>("timed").unwrap()));
    assert!(one.persist::<_, bool>("timed").unwrap());
    assert_eq!(two.get_del::<_, String>("timed").unwrap(), "v");
    assert!(!three.exists::<_, bool>("timed").unwrap());

    let found: BTreeSet<String> = one.scan_match::<_, String>("key*").unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(found.len(), 58);
    let options = redis::ScanOptions::default().with_count(100);
    assert_eq!(two.scan_options::<String>(options).unwrap().count(), 59);
    let info: redis::InfoDict = redis::cmd("INFO").query(three).unwrap();
    assert_eq!((info.get("redis_mode"), info.get("groups_leaderless")), (Some("cluster".to_owned()), Some(0)));
}

#[test]
fn pipelines_and_errors() {
    let cluster = Cluster::start();
    let mut connection = connect(&cluster, 1);
    let mut pipe = Pipeline::new();
    pipe.set("a", 1).ignore().incr("b", 1).get("a").mget(&["a", "b", "c"]);
    let replies: (i64, i64, (i64, i64, Option<i64>)) = pipe.query(&mut connection).unwrap();
    assert_eq!(replies, (1, 1, (1, 1, None)));

    let mut pipe = Pipeline::new();
    pipe.atomic().set("{t}a", 1).ignore().incr("{t}a", 1).get("{t}b");
    assert_eq!(pipe.query::<(i64, Option<i64>)>(&mut connection).unwrap(), (2, None));
    let mut pipe = Pipeline::new();
    pipe.atomic().set("a", 5).incr("b", 5);
    assert!(pipe.query::<()>(&mut connection).is_err(), "the crate does not tell that EXEC answered CROSSSLOT");
    assert_eq!(connection.mget::<_, (i64, i64)>(&["a", "b"]).unwrap(), (1, 1), "nothing of it was done");

    let () = connection.set("text", "x").unwrap();
    let crossed = connection.rename::<_, _, ()>("a", "b").unwrap_err();
    assert_eq!(crossed.kind(), ErrorKind::Server(ServerErrorKind::CrossSlot), "{crossed}");
    let wrong = connection.incr::<_, _, i64>("text", 1).unwrap_err();
    assert_eq!(wrong.detail(), Some("value is not an integer or out of range"));
    let unknown = redis::cmd("NONSENSE").arg(1).query::<()>(&mut connection).unwrap_err();
    assert!(unknown.to_string().contains("unknown command 'NONSENSE'"), "{unknown}");
    let pages = redis::cmd("SELECT").arg(1).query::<()>(&mut connection).unwrap_err();
    assert!(pages.to_string().contains("not allowed in cluster mode"), "{pages}");
    assert_eq!(connection.ping::<String>().unwrap(), "PONG", "errors leave the connection as it was");
}

#[test]
fn a_cluster_client_finds_the_leaders_by_itself() {
    let cluster = Cluster::start();
    let client = ClusterClient::new(vec![format!("redis://{}/", cluster.nodes[2])]).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    for key in 0..200 {
        let () = connection.set(format!("key{key}"), key).unwrap();
    }
    for key in 0..200 {
        assert_eq!(connection.get::<_, i64>(format!("key{key}")).unwrap(), key);
    }
    let keys: Vec<String> = (0..50).map(|key| format!("key{key}")).collect();
    let values: Vec<i64> = connection.mget(&keys).unwrap();
    assert_eq!(values, (0..50).collect::<Vec<_>>());
    assert_eq!(connection.del::<_, i64>(&keys).unwrap(), 50);
    let pairs: Vec<(String, i64)> = keys.iter().cloned().zip(100..).collect();
    let () = connection.mset(&pairs).unwrap();
    let mut pipe = cluster_pipe();
    keys.iter().for_each(|key| {
        pipe.incr(key, 1);
    });
    assert_eq!(pipe.query::<Vec<i64>>(&mut connection).unwrap(), (101..151).collect::<Vec<_>>());
    let () = connection.set("{t}x", 1).unwrap();
    assert_eq!(connection.rename::<_, _, String>("{t}x", "{t}y").unwrap(), "OK");
    assert!(connection.check_connection());

    // The client asked for the slots and sent each command to its leader: no node had to forward commands.
    let calls = |node: usize| -> i64 {
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut connect(&cluster, node)).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    assert!((0..3).all(|node| calls(node) > 30), "SET went to {:?}", [calls(0), calls(1), calls(2)]);
}
