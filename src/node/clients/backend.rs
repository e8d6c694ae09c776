//! The seam between the clients and the rest of the node. Clients ask for admission, submit commands with a ticket, and get
//! each reply by its ticket later. They see no group, no log and no peer.

use crate::admin::info::ClientsView;
use crate::admin::stats::Stats;
use crate::config::NodeConfig;
use crate::kv::Moment;
use crate::kv::command::Command;
use crate::kv::reply::Reply;
use crate::kv::table::Spec;
use crate::node::ticket::Ticket;
use crate::node::{Output, Time};
use bytes::Bytes;
use groups::{GroupId, Instance, NodeId};

/// One request as it came: its words, and how long it is.
#[derive(Clone, Copy)]
pub(in crate::node) struct Request<'a> {
    pub(in crate::node) words: &'a [&'a [u8]],
    /// Bytes of the whole request. They bound what its command may add.
    pub(in crate::node) bytes: usize,
    /// The buffer that holds a long request: parts of it are shared, not copied. Empty for a short request.
    pub(in crate::node) buffer: &'a Bytes,
}

/// A command on its way to a group.
pub(in crate::node) struct Submission<'a> {
    pub(in crate::node) group: GroupId,
    /// Its place in the statistics.
    pub(in crate::node) verb: u16,
    pub(in crate::node) command: &'a Command<'a>,
    /// The encoding of the command, if it exists already.
    pub(in crate::node) body: Option<Bytes>,
    pub(in crate::node) request: Request<'a>,
    /// Where the reply belongs.
    pub(in crate::node) ticket: Ticket,
}

/// What the clients need of the rest of the node.
pub(in crate::node) trait Backend {
    // The node.

    fn config(&self) -> &NodeConfig;
    fn stats(&mut self) -> &mut Stats;
    /// Has something done outside: connections are paused, resumed and closed.
    fn output(&mut self, output: Output);
    /// The refusal of all that needs data, while the node loads its groups; `None` afterwards.
    fn loading_refusal(&self) -> Option<Reply<'static>>;
    /// The refusal of what needs a group that is not loaded yet.
    fn missing_refusal(&self) -> Reply<'static>;
    /// Returns true if commands that may add data are refused, because memory is short.
    fn is_out_of_memory(&self) -> bool;
    /// What commands are parsed with; `seed` is chance.
    fn moment(&self, seed: u64, time: Time) -> Moment;
    /// Answers a command about the node or the cluster. `clients` tells INFO of the clients.
    fn admin(&mut self, spec: &Spec, words: &[&[u8]], clients: ClientsView, time: Time) -> Reply<'static>;
    /// Checks `PAXOI LEADER MOVE`: the group, and who is to lead it.
    ///
    /// # Errors
    /// The reply, if there is nothing to wait for.
    fn check_move(&self, words: &[&[u8]], time: Time) -> Result<(GroupId, NodeId), Reply<'static>>;
    /// Moves the group; the reply comes by `ticket`.
    fn ask_move(&mut self, wanted: (GroupId, NodeId), ticket: Ticket, time: Time);

    // Admission.

    fn groups(&self) -> u32;
    /// Returns true if the group is loaded.
    fn has(&self, group: GroupId) -> bool;
    /// Why a command whose request has `bytes` cannot be tried in any group.
    fn refusal(&self, command: &Command<'_>, bytes: usize) -> Option<Reply<'static>>;
    /// Why a command whose request has `bytes` cannot be tried in this group, which is loaded.
    fn group_refusal(&self, group: GroupId, command: &Command<'_>, bytes: usize) -> Option<Reply<'static>>;
    /// Returns true if a command whose request has `bytes` has to wait, because the queue of its group is full.
    fn holds_command(&self, group: GroupId, command: &Command<'_>, bytes: usize) -> bool;
    /// Returns true if a client that writes, and has sent `bytes`, has to wait while `queue_bytes` are in all queues.
    fn holds_writers(&self, bytes: usize, queue_bytes: usize) -> bool;
    /// Returns true if a group whose queue was full takes requests of `bytes` again.
    fn takes_again(&self, group: GroupId, bytes: usize) -> bool;
    /// Reads that wait for their answers.
    fn reads(&self) -> usize;
    /// Returns true if a request of `bytes` may go into the log in parts.
    fn takes_upload(&self, bytes: usize) -> bool;
    /// Returns true if this command, whose request has `bytes`, goes in parts.
    fn is_upload(&self, command: &Command<'_>, bytes: usize) -> bool;
    /// The member that carries the commands out, if this node does not. Replies of two ways are not in order.
    fn way(&self) -> Option<NodeId>;
    /// About how many bytes the reply will have, if they may be many.
    fn expected_bytes(&self, group: GroupId, command: &Command<'_>) -> usize;

    // Work.

    /// Carries out a command or a read; the reply comes by the ticket.
    fn submit(&mut self, submission: Submission<'_>, time: Time);
    /// Reads what this node has, which may be old.
    fn read_stale(&self, group: GroupId, body: &[u8]) -> Reply<'_>;
    /// The same for a read that takes several turns; the reply comes by the ticket.
    fn begin_stale_read(&mut self, group: GroupId, verb: u16, body: Bytes, ticket: Ticket);

    // Durability, for WAIT.

    /// The place in the log behind all that this node has applied.
    fn gathered_lsn(&self) -> u64;
    /// Returns true if this node's own log is durable up to there, and has all writes of its clients.
    fn has_logged(&self, lsn: u64) -> bool;
    /// The first instance of a group that is not applied.
    fn next(&self, group: GroupId) -> Instance;
    /// How many other members have all that is below these instances durably; how many are reached if there are none.
    fn holders(&self, groups: &[(GroupId, Instance)], time: Time) -> usize;
    /// Asks the members how far their logs are durable in these groups.
    fn ask_where_durable(&mut self, groups: Vec<GroupId>);
}
