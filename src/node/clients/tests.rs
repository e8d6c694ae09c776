//! Clients on a fake backend, without a node and without groups.

use super::*;
use crate::admin::stats::Stats;
use crate::kv::ParseContext;
use crate::kv::command::Command;
use crate::kv::table::{self, Spec};
use crate::node::facts::WorkerFacts;
use crate::node::ticket::Ticket;
use crate::storage::wal::Lsn;
use crate::workers::{WorkerId, Workers};
use groups::{GroupId, Instance, NodeId};
use net::event::ConnectionId;
use net::outbound::Outbound;

const GROUPS: u32 = 16;
const ADDR: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// A backend that takes commands, and answers none by itself.
struct Rest {
    config: NodeConfig,
    stats: Stats,
    outputs: Vec<Output>,
    submitted: Vec<(GroupId, ClientTicket)>,
    /// Groups whose queues are full for requests of at least `full_from_bytes`.
    full: Vec<GroupId>,
    full_from_bytes: usize,
    admin_calls: usize,
    executor: Option<NodeId>,
    is_loading: bool,
}

fn client_ticket(ticket: Ticket) -> ClientTicket {
    match ticket {
        Ticket::Client(ticket) => ticket,
        other => panic!("{other:?} is not a client's"),
    }
}

impl Backend for Rest {
    fn config(&self) -> &NodeConfig {
        &self.config
    }
    fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }
    fn output(&mut self, output: Output) {
        self.outputs.push(output);
    }
    fn loading_refusal(&self) -> Option<Reply<'static>> {
        self.is_loading.then(|| self.missing_refusal())
    }
    fn missing_refusal(&self) -> Reply<'static> {
        Reply::error("LOADING")
    }
    fn is_out_of_memory(&self) -> bool {
        false
    }
    fn parse_context(&self, seed: u64, _time: Time) -> ParseContext {
        ParseContext { cluster_ms: Ms(1_000), durations: true, seed }
    }
    fn admin(&mut self, spec: &Spec, _words: &[&[u8]], clients: ClientsView, _time: Time) -> Reply<'static> {
        self.admin_calls += 1;
        Reply::Error(format!("{} {}", spec.name, clients.connected).into())
    }
    fn check_move(&self, _words: &[&[u8]], _time: Time) -> Result<(GroupId, NodeId), Reply<'static>> {
        Ok((GroupId(0), NodeId(2)))
    }
    fn ask_move(&mut self, (group, _): (GroupId, NodeId), ticket: Ticket, _time: Time) {
        self.submitted.push((group, client_ticket(ticket)));
    }
    fn groups(&self) -> u32 {
        GROUPS
    }
    fn facts(&self, _clients: ClientsView, _time: Time) -> WorkerFacts {
        unreachable!("there is one worker")
    }
    fn facts_for_list(&mut self, _clients: ClientsView, _time: Time) -> WorkerFacts {
        unreachable!("there is one worker")
    }
    fn share_load(&mut self, _clients: u64, _now_ms: Ms) {}
    fn clients_elsewhere(&self) -> u64 {
        0
    }
    fn pass_move(&mut self, _words: &[&[u8]], _client: &mut dyn FnMut() -> ClientTicket) -> bool {
        false
    }
    fn set_facts(&mut self, _facts: Vec<WorkerFacts>) {}
    fn workers(&self) -> Workers {
        Workers::ONE
    }
    fn tell_worker(&mut self, _worker: WorkerId, _message: ClientsMessage) {}
    fn is_here(&self, _group: GroupId) -> bool {
        true
    }
    fn refusal(&self, _command: &Command<'_>, _bytes: usize) -> Option<Reply<'static>> {
        None
    }
    fn group_refusal(&self, _group: GroupId, _command: &Command<'_>, _bytes: usize) -> Option<Reply<'static>> {
        None
    }
    fn holds_command(&self, group: GroupId, _command: &Command<'_>, bytes: usize) -> bool {
        self.full.contains(&group) && bytes >= self.full_from_bytes
    }
    fn holds_writers(&self, _bytes: usize, _queue_bytes: usize) -> bool {
        false
    }
    fn takes_again(&self, group: GroupId, bytes: usize) -> bool {
        !self.full.contains(&group) || bytes < self.full_from_bytes
    }
    fn reads(&self) -> usize {
        0
    }
    fn takes_upload(&self, _bytes: usize) -> bool {
        false
    }
    fn is_upload(&self, _command: &Command<'_>, _bytes: usize) -> bool {
        false
    }
    fn executor(&self) -> Option<NodeId> {
        self.executor
    }
    fn expected_bytes(&self, _group: GroupId, _command: &Command<'_>) -> usize {
        0
    }
    fn submit(&mut self, submission: Submission<'_>, _time: Time) {
        self.submitted.push((submission.group, client_ticket(submission.ticket)));
    }
    fn read_stale(&self, _group: GroupId, _body: &[u8]) -> Reply<'_> {
        Reply::Simple("STALE")
    }
    fn begin_stale_read(&mut self, _group: GroupId, _verb: u16, _body: Bytes, _client: ClientTicket, _long: bool) {}
    fn gathered_lsn(&self) -> Lsn {
        Lsn(7)
    }
    fn has_logged(&self, _lsn: Lsn) -> bool {
        true
    }
    fn next(&self, _group: GroupId) -> Instance {
        Instance::FIRST
    }
    fn count_durable_members(&self, groups: &[(GroupId, Instance)], _time: Time) -> usize {
        groups.len()
    }
    fn query_durable_positions(&mut self, _groups: Vec<GroupId>) {}
}

struct Harness {
    clients: Clients,
    rest: Rest,
    time: Time,
    input: BytesMut,
}

impl Harness {
    fn new() -> Harness {
        let config = NodeConfig::for_test(NodeId(1));
        let clients = Clients::new(&config);
        let rest = Rest {
            config,
            stats: Stats::new(table::names_by_verb()),
            outputs: Vec::new(),
            submitted: Vec::new(),
            full: Vec::new(),
            full_from_bytes: 0,
            admin_calls: 0,
            executor: None,
            is_loading: false,
        };
        let mut harness = Harness { clients, rest, time: Time::default(), input: BytesMut::new() };
        harness.admit(ConnectionId(1));
        harness
    }

    fn admit(&mut self, id: ConnectionId) {
        self.clients.admit(id, ADDR.into(), None, &mut self.rest, self.time);
    }

    /// Sends `text` as the client. Returns the immediate replies.
    fn send(&mut self, id: ConnectionId, text: &str) -> String {
        self.input.extend_from_slice(text.replace(" | ", "\r\n").as_bytes());
        self.input.extend_from_slice(b"\r\n");
        self.read(id)
    }

    /// Reads the unread input again. Returns the immediate replies.
    fn read(&mut self, id: ConnectionId) -> String {
        self.clients.input(id, &mut self.input, 0, &mut self.rest, self.time);
        self.told(id)
    }

    fn told(&mut self, id: ConnectionId) -> String {
        let mut told = String::new();
        self.clients.take_replies(Us(0), |connection, out: &mut Outbound| {
            assert_eq!(connection, id);
            told.push_str(&String::from_utf8_lossy(&out.take_bytes()).replace("\r\n", " "));
            0
        });
        told.trim_end().to_owned()
    }

    fn complete(&mut self, index: usize, reply: Reply<'_>) {
        let (_, ticket) = self.rest.submitted[index];
        self.clients.complete(ticket, reply);
    }

    fn resumed(&mut self) -> bool {
        self.clients.resume(&mut self.rest, self.time.mono_ms());
        self.rest.outputs.drain(..).any(|output| matches!(output, Output::Resume(ConnectionId(1))))
    }
}

#[test]
fn replies_leave_in_the_order_of_the_requests_whichever_group_answers_first() {
    let mut harness = Harness::new();
    assert_eq!(harness.send(ConnectionId(1), "SET a 1 | PING | GET b | ECHO x"), "");
    assert_eq!(harness.rest.submitted.len(), 2);
    harness.complete(1, Reply::Int(2));
    assert_eq!(harness.told(ConnectionId(1)), "");
    harness.complete(0, Reply::Ok);
    assert_eq!(harness.told(ConnectionId(1)), "+OK +PONG :2 $1 x");
    harness.complete(0, Reply::Int(3));
    assert_eq!(harness.told(ConnectionId(1)), "", "a second reply finds no place");
}

#[test]
fn a_command_over_several_groups_is_answered_when_all_parts_are() {
    let mut harness = Harness::new();
    harness.send(ConnectionId(1), "DEL a b c");
    assert_eq!(harness.rest.submitted.len(), 3);
    (0..3).for_each(|part| harness.complete(part, Reply::Int(1)));
    assert_eq!(harness.told(ConnectionId(1)), ":3");
}

#[test]
fn a_request_for_a_full_group_is_read_again_when_there_is_room_and_what_follows_waits() {
    let mut harness = Harness::new();
    harness.send(ConnectionId(1), "SET a 1");
    let (group, _) = harness.rest.submitted.remove(0);
    harness.rest.full.push(group);
    assert_eq!(harness.send(ConnectionId(1), "SET a 2 | PING"), "");
    assert!(harness.rest.submitted.is_empty() && !harness.input.is_empty() && !harness.resumed());
    harness.rest.full.clear();
    assert!(harness.resumed());
    harness.read(ConnectionId(1));
    assert!(harness.rest.submitted.len() == 1 && harness.input.is_empty());
}

#[test]
fn a_large_transaction_waits_for_room_for_all_of_it_not_for_the_word_exec() {
    let mut harness = Harness::new();
    harness.send(ConnectionId(1), "SET a 1");
    let (group, _) = harness.rest.submitted.remove(0);
    harness.rest.full.push(group);
    harness.rest.full_from_bytes = 100;
    harness.send(ConnectionId(1), &format!("MULTI | SET a {} | EXEC", "x".repeat(100)));
    assert!(harness.rest.submitted.is_empty() && !harness.resumed(), "it would be read again for nothing in each turn");
    harness.rest.full.clear();
    assert!(harness.resumed());
    harness.read(ConnectionId(1));
    assert_eq!(harness.rest.submitted.len(), 1);
}

#[test]
fn commands_that_a_waiting_transaction_has_executed_are_not_executed_again() {
    let mut harness = Harness::new();
    harness.send(ConnectionId(1), "SET a 1");
    let (group, _) = harness.rest.submitted.remove(0);
    harness.rest.full.push(group);
    harness.send(ConnectionId(1), "MULTI | CONFIG GET x | SET a 2 | EXEC");
    assert_eq!((harness.rest.admin_calls, harness.rest.submitted.len()), (1, 0));
    harness.rest.full.clear();
    assert!(harness.resumed());
    harness.read(ConnectionId(1));
    assert_eq!((harness.rest.admin_calls, harness.rest.submitted.len()), (1, 1));
}

#[test]
fn a_request_that_waits_for_a_full_group_for_too_long_is_refused() {
    let mut harness = Harness::new();
    harness.send(ConnectionId(1), "SET a 1");
    let (group, _) = harness.rest.submitted[0];
    harness.complete(0, Reply::Ok);
    assert_eq!(harness.told(ConnectionId(1)), "+OK");
    harness.rest.full.push(group);
    harness.send(ConnectionId(1), "SET a 2 | SET a 3");
    harness.time.mono_us += harness.rest.config.client_timeout_ms.to_us();
    harness.clients.tick(&mut harness.rest, harness.time.mono_ms());
    assert!(harness.rest.outputs.drain(..).any(|output| matches!(output, Output::Resume(ConnectionId(1)))));
    assert_eq!(harness.read(ConnectionId(1)), "-CLUSTERDOWN Hash slot not served -CLUSTERDOWN Hash slot not served");
}

#[test]
fn commands_for_another_executor_wait_for_the_replies_to_the_earlier_ones() {
    let mut harness = Harness::new();
    harness.send(ConnectionId(1), "SET a 1");
    harness.rest.executor = Some(NodeId(2));
    harness.send(ConnectionId(1), "SET a 2");
    assert_eq!(harness.rest.submitted.len(), 1);
    harness.complete(0, Reply::Ok);
    assert!(harness.resumed());
    assert_eq!(harness.read(ConnectionId(1)), "+OK");
    assert_eq!(harness.rest.submitted.len(), 2);
}

#[test]
fn a_transaction_is_one_command_and_one_that_failed_is_none() {
    let mut harness = Harness::new();
    assert_eq!(harness.send(ConnectionId(1), "MULTI | SET a 1 | PING | GET a | EXEC"), "+OK +QUEUED +QUEUED +QUEUED");
    assert_eq!(harness.rest.submitted.len(), 1);
    harness.complete(0, Reply::Array(vec![Reply::Ok, Reply::Int(1)]));
    assert_eq!(harness.told(ConnectionId(1)), "*3 +OK +PONG :1");
    harness.send(ConnectionId(1), "MULTI | NOSUCH");
    assert_eq!(harness.send(ConnectionId(1), "EXEC"), "-EXECABORT Transaction discarded because of previous errors.");
    harness.rest.is_loading = true;
    let told = "+OK -LOADING -EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(harness.send(ConnectionId(1), "MULTI | GET a | EXEC"), told);
}

#[test]
fn a_client_ends_the_connection_or_the_wait_of_another() {
    let mut harness = Harness::new();
    harness.admit(ConnectionId(2));
    harness.send(ConnectionId(1), "SET a 1");
    harness.complete(0, Reply::Ok);
    assert_eq!(harness.send(ConnectionId(1), "WAIT 2 0"), "+OK");
    assert!(harness.clients.is_any_waiting());
    assert_eq!(harness.send(ConnectionId(1), "PING"), "", "it waits");
    let kept = std::mem::take(&mut harness.input);
    harness.clients.input(
        ConnectionId(2),
        &mut BytesMut::from("CLIENT UNBLOCK 1\r\n"),
        0,
        &mut harness.rest,
        harness.time,
    );
    let mut told = Vec::new();
    harness.clients.take_replies(Us(0), |id, out| {
        told.push((id, out.take_bytes()));
        0
    });
    told.sort();
    assert_eq!(told, [1, 2].map(|id| (ConnectionId(id), Bytes::from_static(b":1\r\n"))));
    assert!(harness.resumed());
    harness.input = kept;
    assert_eq!(harness.read(ConnectionId(1)), "+PONG");
    harness.clients.input(
        ConnectionId(2),
        &mut BytesMut::from("CLIENT KILL ID 1\r\n"),
        0,
        &mut harness.rest,
        harness.time,
    );
    assert!(
        !harness.clients.has(ConnectionId(1)) && harness.clients.has(ConnectionId(2)) && harness.clients.len() == 1
    );
    assert!(harness.rest.outputs.iter().any(|output| matches!(output, Output::Close(ConnectionId(1), Close::Now))));
}

#[test]
fn one_client_too_many_is_told_so_and_goes() {
    let mut harness = Harness::new();
    harness.rest.config.max_clients = 1;
    harness.admit(ConnectionId(2));
    assert_eq!(harness.told(ConnectionId(2)), "-ERR max number of clients reached");
    harness.clients.resume(&mut harness.rest, Ms(0));
    assert!(matches!(harness.rest.outputs[..], [Output::Close(ConnectionId(2), Close::AfterFlush)]));
}
