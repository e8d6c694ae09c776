//! The interface between the clients and the rest of the node. Clients ask for admission, submit commands with a
//! ticket, and get each reply by its ticket later. They see no group, no log and no peer.

use super::messages::ClientsMessage;
use crate::admin::info::ClientsView;
use crate::admin::stats::Stats;
use crate::config::NodeConfig;
use crate::kv::ParseContext;
use crate::kv::command::Command;
use crate::kv::reply::Reply;
use crate::kv::table::Spec;
use crate::node::facts::WorkerFacts;
use crate::node::ticket::{ClientTicket, Ticket};
use crate::node::{Output, Time};
use crate::storage::wal::Lsn;
use crate::workers::{WorkerId, Workers};
use bytes::Bytes;
use groups::{GroupId, Instance, Ms, NodeId};

/// One request as received: its words and its length.
#[derive(Clone, Copy)]
pub(in crate::node) struct Request<'a> {
    pub(in crate::node) words: &'a [&'a [u8]],
    /// Bytes of the whole request. They bound the data that its command may add.
    pub(in crate::node) bytes: usize,
    /// The buffer that holds a long request: parts of it are shared, not copied. Empty for a short request.
    pub(in crate::node) buffer: &'a Bytes,
}

/// A command in flight to a group.
pub(in crate::node) struct Submission<'a> {
    pub(in crate::node) group: GroupId,
    /// The command's index in the statistics.
    pub(in crate::node) verb: u16,
    pub(in crate::node) command: &'a Command<'a>,
    /// The encoding of the command, if it exists already.
    pub(in crate::node) body: Option<Bytes>,
    pub(in crate::node) request: Request<'a>,
    /// Where the reply belongs.
    pub(in crate::node) ticket: Ticket,
}

/// The interface of the clients to the rest of the node.
pub(in crate::node) trait Backend {
    // The node.

    fn config(&self) -> &NodeConfig;
    fn stats(&mut self) -> &mut Stats;
    /// Requests an action from outside the node: to pause, resume or close a connection.
    fn output(&mut self, output: Output);
    /// Returns the refusal of every command that needs data, until the node has loaded its first groups; `None`
    /// afterwards.
    fn loading_refusal(&self) -> Option<Reply<'static>>;
    /// Returns the refusal of a command that needs a group that is not loaded yet.
    fn missing_refusal(&self) -> Reply<'static>;
    /// Returns true if commands that may add data are refused, because memory is short.
    fn is_out_of_memory(&self) -> bool;
    /// Returns the context that commands are parsed with; `seed` is a random number.
    fn parse_context(&self, seed: u64, time: Time) -> ParseContext;
    /// Returns the facts about this worker; `clients` are those about its clients.
    fn facts(&self, clients: ClientsView, time: Time) -> WorkerFacts;
    /// Notes that an operator lists the members at the first worker. Returns the facts with the counts of members.
    fn facts_for_list(&mut self, clients: ClientsView, time: Time) -> WorkerFacts;
    /// Tells the other workers how many clients are connected here, and the memory that is used, once in a while.
    fn share_load(&mut self, clients: u64, now_ms: Ms);
    /// Returns the number of clients that are connected to the other workers, as they have said last.
    fn clients_elsewhere(&self) -> u64;
    /// Passes `PAXOI LEADER MOVE` to the worker of the group, if that is another one. Returns true if it has.
    fn pass_move(&mut self, words: &[&[u8]], client: &mut dyn FnMut() -> ClientTicket) -> bool;
    /// Takes the facts about the other workers.
    fn set_facts(&mut self, facts: Vec<WorkerFacts>);
    /// Answers a command about the node or the cluster. `clients` holds the facts about clients for INFO.
    fn admin(&mut self, spec: &Spec, words: &[&[u8]], clients: ClientsView, time: Time) -> Reply<'static>;
    /// Checks `PAXOI LEADER MOVE`. Returns the group, and the node that should lead it.
    ///
    /// # Errors
    /// The reply, if there is nothing to wait for.
    fn check_move(&self, words: &[&[u8]], time: Time) -> Result<(GroupId, NodeId), Reply<'static>>;
    /// Requests the move of the group's leadership; the reply comes by `ticket`.
    fn ask_move(&mut self, wanted: (GroupId, NodeId), ticket: Ticket, time: Time);

    // Admission.

    fn groups(&self) -> u32;
    /// Returns this worker among the workers of the node.
    fn workers(&self) -> Workers;
    /// Gives the clients' part of another worker a message.
    fn tell_worker(&mut self, worker: WorkerId, message: ClientsMessage);
    /// Returns true if the group belongs to another worker of this node, which carries its commands out.
    fn is_elsewhere(&self, group: GroupId) -> bool {
        !self.workers().owns(group)
    }
    /// Returns true if the group belongs to this worker and is loaded.
    fn is_here(&self, group: GroupId) -> bool;
    /// Returns true if the group is loaded, or belongs to another worker.
    fn has(&self, group: GroupId) -> bool {
        self.is_elsewhere(group) || self.is_here(group)
    }
    /// Returns the refusal if a command whose request has `bytes` cannot be tried in any group.
    fn refusal(&self, command: &Command<'_>, bytes: usize) -> Option<Reply<'static>>;
    /// Returns the refusal if a command whose request has `bytes` cannot be tried in this group, which is loaded.
    fn group_refusal(&self, group: GroupId, command: &Command<'_>, bytes: usize) -> Option<Reply<'static>>;
    /// Returns true if a command whose request has `bytes` has to wait, because the queue of its group is full.
    fn holds_command(&self, group: GroupId, command: &Command<'_>, bytes: usize) -> bool;
    /// Returns true if a client that writes, and has sent `bytes`, has to wait: all queues together hold `queue_bytes`
    /// or more.
    fn holds_writers(&self, bytes: usize, queue_bytes: usize) -> bool;
    /// Returns true if a group whose queue was full takes requests of `bytes` again.
    fn takes_again(&self, group: GroupId, bytes: usize) -> bool;
    /// Returns the number of reads that wait for their answers.
    fn reads(&self) -> usize;
    /// Returns true if a request of `bytes` may go into the log in parts.
    fn takes_upload(&self, bytes: usize) -> bool;
    /// Returns true if this command, whose request has `bytes`, goes into the log in parts.
    fn is_upload(&self, command: &Command<'_>, bytes: usize) -> bool;
    /// Returns the member that executes the clients' commands; `None`: this node. Replies from different executors come
    /// in no fixed order.
    fn executor(&self) -> Option<NodeId>;
    /// Returns the estimated bytes of a reply that may be large; 0 for any other reply.
    fn expected_bytes(&self, group: GroupId, command: &Command<'_>) -> usize;

    // Work.

    /// Carries out a command or a read; the reply comes by the ticket.
    fn submit(&mut self, submission: Submission<'_>, time: Time);
    /// Answers a read from this node's local state, which may be stale.
    fn read_stale(&self, group: GroupId, body: &[u8]) -> Reply<'_>;
    /// Begins a stale read in a group of another worker, or a `long` one, which may take several turns; the reply comes
    /// by the ticket.
    fn begin_stale_read(&mut self, group: GroupId, verb: u16, body: Bytes, client: ClientTicket, long: bool);

    // Durability, for WAIT.

    /// Returns the LSN up to which the log must be durable to hold everything that this node has applied.
    fn gathered_lsn(&self) -> Lsn;
    /// Returns true if this node's own log is durable up to `lsn`, and holds all writes of its clients.
    fn has_logged(&self, lsn: Lsn) -> bool;
    /// Returns the first instance of a group that is not applied.
    fn next(&self, group: GroupId) -> Instance;
    /// Returns the number of other members that durably hold everything below the given instance, as the minimum over
    /// `groups`. If `groups` is empty, returns the number of reached members.
    fn count_durable_members(&self, groups: &[(GroupId, Instance)], time: Time) -> usize;
    /// Asks the members up to which instances their logs are durable in these groups.
    fn query_durable_positions(&mut self, groups: Vec<GroupId>);
}
