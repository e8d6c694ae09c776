//! Clusters of real processes for tests: the built program, a directory per node on the disk of the target directory,
//! a port per node that stays reserved while the node is down, kill -9 and SIGSTOP, and the logs when a test fails.
//!
//! A node ends with the thread that started it, however that thread ends. So the thread of the test itself starts a
//! cluster and restarts its nodes. Tests that measure time or stop processes take their [`turn`] first.

#![allow(dead_code, reason = "each test target uses only a part of it")]

pub(crate) mod client;
pub(crate) mod recorder;

use paxoi::client::Client;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_paxoi");
/// Maximum time for a cluster to be born, or to find leaders again.
pub(crate) const READY_MAX: Duration = Duration::from_secs(20);
/// Interval between checks of a state that a test waits for.
const LOOK: Duration = Duration::from_millis(10);
/// Maximum bytes of each node's log that are shown when a test fails.
const LOG_TAIL_BYTES: usize = 6_000;

/// Waits for the turn of a test. Tests of a target run one at a time, because they would slow each other down.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `ask` until it gives a value.
///
/// # Panics
/// After `limit`, naming `what`.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(LOOK);
    }
}

/// Makes a directory on the disk of the target directory, where syncs have their real cost, unlike in memory.
pub(crate) fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the test")
}

/// A cluster, some of whose nodes may be down. Dropping it kills all of them.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    groups: u32,
    flags: Vec<String>,
    /// By (from, to): the address that `from` is told for `to`, if it is not the address at which `to` listens.
    routes: BTreeMap<(u32, u32), SocketAddr>,
    /// Number of initial nodes, if there are more now.
    initial: Option<usize>,
    dir: TempDir,
}

struct Node {
    address: SocketAddr,
    /// Keeps the port from others while the node is down. It never listens.
    _port: Socket,
    process: Option<Child>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its output on stdout.
    pub(crate) stdout: String,
    /// The lines on stderr that are not the log's.
    pub(crate) errors: Vec<String>,
}

impl Ended {
    /// Checks that it failed with `code` and a single line that contains all of `texts`.
    ///
    /// # Panics
    /// If not.
    pub(crate) fn expect(&self, code: i32, texts: &[&str]) {
        assert_eq!((self.code, self.errors.len()), (code, 1), "{self:?}");
        let missing = texts.iter().find(|text| !self.errors[0].contains(**text));
        assert!(missing.is_none(), "{missing:?} is not in: {}", self.errors[0]);
    }
}

impl Cluster {
    /// Starts a cluster, and waits until all nodes run and know a leader of every group.
    pub(crate) fn start(nodes: u32, groups: u32, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(nodes, groups, flags);
        cluster.ids().for_each(|id| cluster.spawn(id));
        cluster.wait_for_leaders();
        cluster
    }

    /// Prepares a cluster of which no node runs yet. Nodes are numbered from 1.
    pub(crate) fn prepare(nodes: u32, groups: u32, flags: &[&str]) -> Cluster {
        let nodes = (0..nodes).map(|_| reserved_node()).collect();
        let mut cluster =
            Cluster { nodes, groups, flags: Vec::new(), routes: BTreeMap::new(), initial: None, dir: directory() };
        cluster.set_flags(flags);
        cluster
    }

    /// Adds a node that is not started, and returns its number. The others do not know of it.
    pub(crate) fn add(&mut self) -> u32 {
        self.initial.get_or_insert(self.nodes.len());
        self.nodes.push(reserved_node());
        self.nodes.len() as u32
    }

    /// Starts a node for the first time. It joins through node `at`.
    pub(crate) fn spawn_joining(&mut self, id: u32, at: u32) {
        let (data, contact, own) = (self.data(id).display().to_string(), self.name(at), self.name(id));
        let words = format!("serve --id {id} --data {data} --join {contact} --listen {own}");
        let words: Vec<String> = words.split(' ').map(str::to_owned).chain(self.flags.iter().cloned()).collect();
        self.spawn_as(id, &words);
    }

    /// Waits until a node's process has ended by itself. Returns its exit code.
    pub(crate) fn wait_for_end(&mut self, id: u32) -> Option<i32> {
        let mut process = self.node_mut(id).process.take().expect("the node runs");
        let ended = wait_for(&format!("the end of node {id}"), READY_MAX, || process.try_wait().ok().flatten());
        ended.code()
    }

    /// Sets the flags with which nodes are started from now on, besides those that each node needs.
    pub(crate) fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Returns the numbers of all nodes.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.nodes.len() as u32
    }

    /// Returns the numbers of the nodes that run (or are paused).
    pub(crate) fn running(&self) -> Vec<u32> {
        self.ids().filter(|id| self.node(*id).process.is_some()).collect()
    }

    /// Returns the number of groups that the cluster was started with.
    pub(crate) fn groups(&self) -> u32 {
        self.groups
    }

    /// Returns the address at which a node listens.
    pub(crate) fn address(&self, id: u32) -> SocketAddr {
        self.node(id).address
    }

    /// Returns the address that other nodes and tools are given for a node: the host of [`host`], and the node's port.
    pub(crate) fn name(&self, id: u32) -> String {
        format!("{}:{}", host(), self.address(id).port())
    }

    /// Returns the addresses at which all nodes listen, in order.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Returns a node's data directory.
    pub(crate) fn data(&self, id: u32) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// Sets the address at which `from` dials `to`, from the next start of `from` on.
    pub(crate) fn route(&mut self, from: u32, to: u32, address: SocketAddr) {
        self.routes.insert((from, to), address);
    }

    /// Returns the words with which a node is started, from `serve` on.
    pub(crate) fn words(&self, id: u32) -> Vec<String> {
        let route = |to| self.routes.get(&(id, to)).map(SocketAddr::to_string);
        let address = |to| route(to).unwrap_or_else(|| self.name(to));
        let initial = self.initial.unwrap_or(self.nodes.len());
        let members: Vec<String> = self.ids().take(initial).map(|to| format!("{to}={}", address(to))).collect();
        let (id, data, groups) = (id.to_string(), self.data(id).display().to_string(), self.groups.to_string());
        let words =
            ["serve", "--id", &id, "--data", &data, "--initial-cluster", &members.join(","), "--groups", &groups];
        words.into_iter().map(str::to_owned).chain(self.flags.iter().cloned()).collect()
    }

    /// Starts a node, for the first time or again.
    pub(crate) fn spawn(&mut self, id: u32) {
        let words = self.words(id);
        self.spawn_as(id, &words);
    }

    /// Starts a node with other words than its own.
    pub(crate) fn spawn_as(&mut self, id: u32, words: &[String]) {
        self.spawn_with(id, Command::new(PROGRAM).args(words));
    }

    /// Starts a node with more variables in its environment.
    pub(crate) fn spawn_in(&mut self, id: u32, environment: &[(&str, &OsStr)]) {
        let words = self.words(id);
        self.spawn_with(id, Command::new(PROGRAM).args(words).envs(environment.iter().copied()));
    }

    /// Starts a node with this stdout and stderr.
    pub(crate) fn spawn_writing_to(&mut self, id: u32, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) {
        let words = self.words(id);
        self.spawn_command(id, Command::new(PROGRAM).args(words).stdout(stdout).stderr(stderr));
    }

    /// Starts a node whose files may not become larger than `bytes`, until [`Cluster::lift_limit`].
    pub(crate) fn spawn_limited(&mut self, id: u32, bytes: u64) {
        // The shell counts in blocks of 512 bytes.
        let limited = format!("ulimit -S -f {}; exec \"$0\" \"$@\"", bytes / 512);
        let words = self.words(id);
        self.spawn_with(id, Command::new("sh").args(["-c", &limited, PROGRAM]).args(words));
    }

    /// Lets the files of a node grow again.
    pub(crate) fn lift_limit(&self, id: u32) {
        let none = Rlimit { current: None, maximum: None };
        prlimit(Some(self.process_id(id)), Resource::Fsize, none).expect("to lift a limit of a child");
    }

    /// Starts a node by a command, which must become the node's process.
    pub(crate) fn spawn_with(&mut self, id: u32, command: &mut Command) {
        let log = File::options().create(true).append(true).open(self.log_file(id)).expect("a file for the log");
        self.spawn_command(id, command.stdout(Stdio::null()).stderr(log));
    }

    fn spawn_command(&mut self, id: u32, command: &mut Command) {
        assert!(self.node(id).process.is_none(), "node {id} runs already");
        let command = command.args(["--parent", &std::process::id().to_string()]).stdin(Stdio::null());
        let process = command.spawn().expect("the program starts");
        self.node_mut(id).process = Some(process);
    }

    /// Starts a node that is down, and waits until it has loaded its data and answers clients.
    pub(crate) fn restart(&mut self, id: u32) {
        self.spawn(id);
        self.wait_for_answer(id);
    }

    /// Waits until a node has loaded its data and answers clients, whatever it says.
    pub(crate) fn wait_for_answer(&mut self, id: u32) {
        let address = self.address(id);
        wait_for(&format!("an answer of node {id}"), READY_MAX, || {
            let ended = self.node_mut(id).process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            assert!(ended.is_none(), "node {id} has ended: {ended:?}");
            client::info(address).ok().filter(|info| !info.is_loading())
        });
    }

    /// Kills a node as by `kill -9`: the node loses its memory, but the system keeps writes that were not synced.
    pub(crate) fn kill9(&mut self, id: u32) {
        let mut process = self.node_mut(id).process.take().expect("the node runs");
        process.kill().expect("a signal to a child");
        process.wait().expect("the end of a child");
    }

    /// Stops a node's process where it is: its connections stay open, and it sends nothing.
    pub(crate) fn pause(&self, id: u32) {
        self.signal(id, Signal::STOP);
    }

    /// Resumes a paused node.
    pub(crate) fn resume(&self, id: u32) {
        self.signal(id, Signal::CONT);
    }

    /// Waits until every running node knows a leader of every group.
    pub(crate) fn wait_for_leaders(&self) {
        for id in self.running() {
            self.wait_for_info(id, "groups_leaderless:0", |info| info.number("groups_leaderless") == 0);
        }
    }

    /// Waits until a node's INFO satisfies `holds`, and returns that INFO.
    pub(crate) fn wait_for_info(&self, id: u32, what: &str, holds: impl Fn(&client::Info) -> bool) -> client::Info {
        let ask = || client::info(self.address(id)).ok().filter(&holds);
        wait_for(&format!("{what} at node {id}"), READY_MAX, ask)
    }

    /// Returns a node's INFO.
    pub(crate) fn info(&self, id: u32) -> client::Info {
        client::info(self.address(id)).unwrap_or_else(|error| panic!("INFO of node {id}: {error}"))
    }

    /// Connects to a node. The client waits for replies longer than the node waits for anything.
    pub(crate) fn client(&self, id: u32) -> Client {
        client::connect(self.address(id)).unwrap_or_else(|error| panic!("a connection to node {id}: {error}"))
    }

    /// Returns the node that leads the most groups.
    pub(crate) fn busiest(&self) -> u32 {
        let led = |id: &u32| self.info(*id).number("groups_led");
        self.running().into_iter().max_by_key(led).expect("a node that runs")
    }

    /// Returns everything that a node wrote to stderr.
    pub(crate) fn log(&self, id: u32) -> String {
        std::fs::read(self.log_file(id)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_file(&self, id: u32) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    /// Sends a signal to a node's process.
    pub(crate) fn signal(&self, id: u32, signal: Signal) {
        kill_process(self.process_id(id), signal).expect("a signal to a child");
    }

    fn process_id(&self, id: u32) -> Pid {
        let process = self.node(id).process.as_ref().expect("the node runs");
        Pid::from_raw(process.id().cast_signed()).expect("a process id")
    }

    fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize - 1]
    }

    fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            self.running().into_iter().for_each(|id| eprintln!("--- node {id}: {:?}", client::info(self.address(id))));
        }
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                // The process may have ended by itself.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if thread::panicking() {
            self.ids().for_each(|id| eprintln!("--- the end of the log of node {id}\n{}", tail(&self.log(id))));
        }
    }
}

/// Returns the last lines of a text.
pub(crate) fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(LOG_TAIL_BYTES);
    let start = (from..text.len()).find(|at| *at == 0 || text.as_bytes()[at - 1] == b'\n');
    start.map_or("", |start| &text[start..])
}

/// Returns the host in the addresses of the nodes: a name, as in most clusters. `PAXOI_TEST_HOST=127.0.0.1` runs the
/// same tests with an IP address.
fn host() -> String {
    std::env::var("PAXOI_TEST_HOST").unwrap_or_else(|_| "localhost".to_owned())
}

/// Returns a node with a reserved port. Another socket may listen on the port if it asks to share it, as the program
/// does. No connection and no other process gets the port by chance.
fn reserved_node() -> Node {
    let port = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    port.set_reuse_address(true).expect("a socket that shares its port");
    port.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = port.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    Node { address, _port: port, process: None }
}

/// Runs the program to its end, which must come by itself.
///
/// # Panics
/// If it does not end by itself in time.
pub(crate) fn run<S: AsRef<OsStr>>(words: &[S]) -> Ended {
    let mut process = Command::new(PROGRAM)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + READY_MAX;
    while process.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            // The output can be read only after the process has ended.
            process.kill().expect("a signal to a child");
        }
        thread::sleep(LOOK);
    }
    let output = process.wait_with_output().expect("the output of a child");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code = output.status.code().unwrap_or_else(|| panic!("it did not end by itself: {}", tail(&stderr)));
    let errors = stderr.lines().filter(|line| !is_log_line(line)).map(str::to_owned).collect();
    Ended { code, stdout: stdout.into_owned(), errors }
}

/// Returns true if a line on stderr begins with the time, as lines of the log do.
fn is_log_line(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_digit())
}

/// Returns true if no process listens at `address`.
pub(crate) fn refuses(address: SocketAddr) -> bool {
    Client::connect(address, Duration::from_millis(500)).is_err()
}

/// Copies the files of a data directory, except preallocated segments, which hold nothing of the log.
pub(crate) fn copy_data(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory to copy") {
        let entry = entry.expect("an entry");
        if !entry.file_name().to_string_lossy().starts_with("spare") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}
