//! Host names in addresses: the cluster follows a member that moves, tools accept answers only from the node that they
//! mean, and clients get the address that a node announces.

use crate::harness::client::{ask, ask_until_served, info};
use crate::harness::{Cluster, PROGRAM, READY_MAX, run, turn, wait_for};
use paxoi::client::Client;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A proxy that forwards connections from one address to another, until it is dropped.
struct Forwarder {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    fn start(address: SocketAddr, to: SocketAddr) -> Forwarder {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // The harness keeps the port reserved for the node.
        socket.set_reuse_address(true).expect("a socket that shares its port");
        socket.bind(&address.into()).and_then(|()| socket.listen(64)).expect("the port of a node that is down");
        let (listener, stopping) = (TcpListener::from(socket), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&stopping);
        let forward = move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) {
                    let back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                    for (mut from, mut to) in [(client, server), back] {
                        thread::spawn(move || {
                            // Either end may have closed the connection.
                            let _ = io::copy(&mut from, &mut to);
                            let _ = to.shutdown(Shutdown::Both);
                        });
                    }
                }
            }
        };
        Forwarder { address, stopping, thread: Some(thread::spawn(forward)) }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // The thread waits for a connection: this one lets it end.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn a_tool_means_one_node_and_believes_no_other() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &[]);
    let by = cluster.name(1);
    let status = || run(&["status", "--connect", &by]).stdout;
    assert!(status().contains("3 nodes: 3 up, 0 down;"), "{}", status());
    cluster.kill9(2);
    // The address of node 2 leads to node 1 now.
    let _forwarder = Forwarder::start(cluster.address(2), cluster.address(1));
    assert_eq!(ask(&mut cluster.client(2), "PING"), "PONG");
    wait_for("node 1 to report node 2 as dead", READY_MAX, || {
        ask(&mut cluster.client(1), "CLUSTER NODES").contains("master,fail - 0 0 2 disconnected").then_some(())
    });
    let told = status();
    assert!(told.contains("3 nodes: 2 up, 1 down;"), "{told}");
    let who = format!("node 1 answers at {}", cluster.name(2));
    assert!(told.contains(&format!("node 2: {who}")), "{told}");
    for more in [&[][..], &["--undo"]] {
        let words = [&["drain", "--connect", &by, "--node", "2"], more].concat();
        run(&words).expect(1, &["cannot drain node 2", &who]);
    }
    run(&["drain", "--connect", &by, "--node", "9"]).expect(1, &["node 9 is not a member"]);
    assert_eq!((cluster.info(1).number("draining"), cluster.info(3).number("draining")), (0, 0));
    // The tool can ask any node: it finds node 3 by its name.
    let ended = run(&["drain", "--connect", &by, "--node", "3"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "node 3 leads no group any more: it can be stopped\n"));
    assert_eq!((cluster.info(1).number("draining"), cluster.info(3).number("draining")), (0, 1));
}

#[test]
fn clients_are_told_what_each_node_announces() {
    let _turn = turn();
    let mut cluster = Cluster::prepare(3, 2, &[]);
    for id in cluster.ids() {
        let mut words = cluster.words(id);
        words.extend(["--announce-address".to_owned(), format!("node-{id}.example:{}", 9000 + id)]);
        cluster.spawn_as(id, &words);
    }
    cluster.wait_for_leaders();
    for id in cluster.ids() {
        let all = |reply: &str| (1..=3).all(|id| reply.contains(&format!("node-{id}.example {}", 9000 + id)));
        wait_for("all announced addresses", READY_MAX, || {
            let slots = ask(&mut cluster.client(id), "CLUSTER SLOTS");
            (all(&slots) && !slots.contains("localhost")).then_some(())
        });
    }
    // A joining node has its announced address from its file. It listens at 0.0.0.0, which is no address to dial, so
    // the members use the announced address, too.
    let new = cluster.add();
    let (dir, port) = (cluster.data(new), cluster.address(new).port());
    let file = dir.with_extension("toml");
    let text = format!(
        "id = {new}\ndata = '{}'\njoin = '{}'\nlisten = '0.0.0.0:{port}'\nannounce-address = 'localhost:{port}'\n",
        dir.display(),
        cluster.name(1)
    );
    std::fs::write(&file, text).expect("a file");
    let words = ["serve", "--insecure", "--config", &file.display().to_string()].map(str::to_owned);
    cluster.spawn_as(new, &words);
    let added = run(&["member", "add", "4", "--connect", &cluster.name(1)]);
    assert_eq!(added.code, 0, "{added:?}");
    let list = run(&["member", "list", "--connect", &cluster.name(1)]).stdout;
    assert!(list.contains(&format!("localhost:{port} ")), "{list}");
    wait_for("node 4 among the nodes", READY_MAX, || {
        let nodes = ask(&mut cluster.client(2), "CLUSTER NODES");
        nodes.contains(&format!(":{port}@{port},localhost master - 0 0 4 connected")).then_some(())
    });
}

/// Returns the beginning of a command that sees its own `/etc/hosts`; `None` if the system does not allow that.
fn with_hosts(hosts: &str) -> Option<Vec<String>> {
    let script = format!("mount --bind '{hosts}' /etc/hosts && exec \"$0\" \"$@\"");
    let begin = |flags: &str| ["unshare", flags, "sh", "-c", &script].map(str::to_owned).to_vec();
    [begin("-m"), begin("-rm")].into_iter().find(|words| {
        let tried = Command::new(&words[0]).args(&words[1..]).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    })
}

#[test]
fn a_member_whose_name_changes_its_address_is_followed_though_another_answers_at_the_old_one() {
    let _turn = turn();
    let mut cluster = Cluster::prepare(3, 4, &[]);
    let port = cluster.address(1).port();
    std::fs::create_dir_all(cluster.data(1)).expect("a directory");
    let hosts = cluster.data(1).with_extension("hosts");
    let write = |address: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} the-first\n"));
    write("127.0.0.1").expect("a file");
    let Some(shell) = with_hosts(&hosts.display().to_string()) else {
        eprintln!("skipped: this system does not let a process have its own /etc/hosts");
        return;
    };
    cluster.spawn(1);
    for id in [2, 3] {
        let first = (cluster.name(1), format!("the-first:{port}"));
        let words = cluster.words(id);
        let words = words.iter().map(|word| word.replace(&first.0, &first.1)).collect::<Vec<String>>();
        cluster.spawn_with(id, Command::new(&shell[0]).args(&shell[1..]).arg(PROGRAM).args(words));
    }
    cluster.wait_for_leaders();
    assert_eq!(ask_until_served(&mut cluster.client(1), "SET key 1"), "OK");

    cluster.kill9(1);
    let moved: SocketAddr = ([127, 0, 0, 2], port).into();
    let forwarder = Forwarder::start(cluster.address(1), cluster.address(3));
    write("127.0.0.2").expect("a file");
    // Node 1 cannot find the others, so they must find it.
    let mut words = cluster.words(1);
    let list = words.iter().position(|word| word == "--initial-cluster").expect("a list") + 1;
    words[list] = format!("1={moved},2=127.0.0.1:1,3=127.0.0.1:2");
    cluster.spawn_as(1, &words);
    let mut client: Client = wait_for("the members to find node 1", READY_MAX, || {
        info(moved).ok().filter(|info| !info.is_loading() && info.number("groups_leaderless") == 0)?;
        crate::harness::client::connect(moved).ok()
    });
    assert_eq!(ask_until_served(&mut client, "GET key"), "1");
    wait_for("node 2 to report the new address of node 1", READY_MAX, || {
        let nodes = ask(&mut cluster.client(2), "CLUSTER NODES");
        nodes.contains(&format!(" {moved}@{port},the-first master - 0 0 1 connected")).then_some(())
    });
    assert_eq!(ask_until_served(&mut cluster.client(2), "GET key"), "1");
    drop(forwarder);
}
