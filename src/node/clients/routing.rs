//! Routing: after the checks that need no answer from a group, a command goes to one group, or in parts to several.

use super::backend::{Backend, Request, Submission};
use super::client::{BlockReason, Client, RequestOutcome};
use super::replies::Parts;
use super::requests::Named;
use super::{Clients, Time};
use crate::config::KEYS_BYTES_MAX;
use crate::kv::LISTED_BYTES_MAX;
use crate::kv::command::Command;
use crate::kv::encode::encode;
use crate::kv::fanout::{self, Merge, Plan};
use crate::kv::reply::Reply;
use crate::kv::table::Verb;
use crate::node::ticket::{ClientTicket, Ticket};
use bytes::{Bytes, BytesMut};
use groups::GroupId;

/// Replies of a transaction that are known already, with their indexes in the transaction.
pub(super) type Known = Vec<(usize, Reply<'static>)>;

/// The context that all parts of a command share.
#[derive(Clone, Copy)]
struct RoutingContext<'a> {
    verb: Verb,
    request: Request<'a>,
    /// After READONLY: the read is answered from this node's local state, which may be old. It needs no confirmation.
    is_stale: bool,
}

impl Clients {
    /// Sends a command to its group or groups. `known`: the replies of an EXEC that are known already.
    pub(super) fn route(
        &mut self,
        client: &mut Client,
        (verb, command): Named<'_>,
        known: Known,
        request: Request<'_>,
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        if let Some(refusal) = node.refusal(&command, request.bytes).or_else(|| keys_refusal(&command)) {
            return client.reject(verb, &refusal, node);
        }
        if !client.set_executor(node.executor()) {
            return RequestOutcome::Again(BlockReason::Replies);
        }
        client.writes |= command.is_write();
        let context = RoutingContext { verb, request, is_stale: client.reads_stale && !command.is_write() };
        let any = self.any_group(node);
        match fanout::plan(command, node.groups(), any) {
            Plan::One(group, command) => to_one(client, &[(group, command)], known, context, node, time),
            Plan::Split(parts, merge) => to_several(client, &parts, merge.knowing(known), context, node, time),
            Plan::Refused(refusal) => client.reject(verb, &refusal, node),
        }
    }

    /// Draws a group for a command without a key: one of the loaded groups, if there is one.
    fn any_group(&mut self, node: &impl Backend) -> GroupId {
        let groups = node.groups();
        let drawn = self.draw.below(u64::from(groups)) as u32;
        let mut after = (0..groups).map(|step| GroupId((drawn + step) % groups));
        after.find(|group| node.has(*group)).unwrap_or(GroupId(drawn))
    }
}

fn to_one(
    client: &mut Client,
    part: &[(GroupId, Command<'_>); 1],
    known: Known,
    context: RoutingContext<'_>,
    node: &mut impl Backend,
    time: Time,
) -> RequestOutcome {
    if let Some(outcome) = context.check(client, part, node) {
        return outcome;
    }
    let [(group, command)] = part;
    if command.is_write() {
        client.wrote.insert(*group);
    }
    let bytes = node.expected_bytes(*group, command);
    let slot = client.expected(bytes, context.is_long(command, node));
    let request = if known.is_empty() {
        client.replies.expect(slot)
    } else {
        let parts = Parts::new(Merge::Among(known, None), 1, node.config().reply_bytes_max());
        client.replies.expect_parts(slot, parts)
    };
    let ticket = ClientTicket { connection: client.connection, request, part: 0 };
    context.send(client, (*group, command), None, ticket, node, time);
    RequestOutcome::Taken
}

fn to_several(
    client: &mut Client,
    parts: &[(GroupId, Command<'_>)],
    merge: Merge,
    context: RoutingContext<'_>,
    node: &mut impl Backend,
    time: Time,
) -> RequestOutcome {
    if let Some(outcome) = context.check(client, parts, node) {
        return outcome;
    }
    let written = parts.iter().filter(|(_, command)| command.is_write());
    written.for_each(|(group, _)| client.wrote.insert(*group));
    let bytes = parts.iter().map(|(group, command)| node.expected_bytes(*group, command)).sum();
    let bytes_max = match merge {
        Merge::Concatenation => LISTED_BYTES_MAX,
        _ => node.config().reply_bytes_max(),
    };
    // A command to every group is the same for all of them, and may hold a long pattern: it is encoded once.
    let is_same_for_all = matches!(merge, Merge::Concatenation | Merge::AnyOf(_));
    let shared = is_same_for_all.then(|| encoded(&parts[0].1));
    let long = parts.iter().any(|(_, command)| context.is_long(command, node));
    let slot = client.expected(bytes, long);
    let request = client.replies.expect_parts(slot, Parts::new(merge, parts.len(), bytes_max));
    for (part, (group, command)) in parts.iter().enumerate() {
        let ticket = ClientTicket { connection: client.connection, request, part: part as u32 };
        context.send(client, (*group, command), shared.clone(), ticket, node, time);
    }
    RequestOutcome::Taken
}

impl RoutingContext<'_> {
    /// Returns the outcome of a command that cannot go to its groups now; otherwise `None`. Either all parts are sent,
    /// or none.
    fn check(
        self,
        client: &mut Client,
        parts: &[(GroupId, Command<'_>)],
        node: &mut impl Backend,
    ) -> Option<RequestOutcome> {
        let bytes = self.request.bytes;
        let refusal = if parts.iter().all(|(group, _)| node.has(*group)) {
            let refused = |(group, command): &(GroupId, Command<'_>)| node.group_refusal(*group, command, bytes);
            if self.is_stale { None } else { parts.iter().find_map(refused) }
        } else {
            Some(node.missing_refusal())
        };
        if let Some(refusal) = refusal {
            return Some(client.reject(self.verb, &refusal, node));
        }
        let full = parts.iter().find(|(group, command)| node.holds_command(*group, command, bytes));
        full.map(|(group, _)| RequestOutcome::Again(BlockReason::Group(*group, bytes)))
    }

    /// Returns true if the reply may come in a later turn than the replies to the client's next commands.
    fn is_long(self, command: &Command<'_>, node: &impl Backend) -> bool {
        command.is_long_read() || node.is_upload(command, self.request.bytes)
    }

    fn send(
        self,
        client: &mut Client,
        (group, command): (GroupId, &Command<'_>),
        body: Option<Bytes>,
        ticket: ClientTicket,
        node: &mut impl Backend,
        time: Time,
    ) {
        let (verb, request) = (self.verb as u16, self.request);
        if !self.is_stale {
            let ticket = Ticket::Client(ticket);
            return node.submit(Submission { group, verb, command, body, request, ticket }, time);
        }
        let body = encoded(command);
        if command.is_long_read() || node.is_elsewhere(group) {
            return node.begin_stale_read(group, verb, body, ticket, command.is_long_read());
        }
        let reply = node.read_stale(group, &body);
        client.replies.complete(ticket.request, ticket.part, reply, &mut client.out);
    }
}

/// Returns the encoding of a command.
pub(in crate::node) fn encoded(command: &Command<'_>) -> Bytes {
    let mut body = BytesMut::with_capacity(64);
    encode(command, &mut body);
    body.freeze()
}

/// Returns the refusal if the keys of a command are too long to be hashed in one turn.
fn keys_refusal(command: &Command<'_>) -> Option<Reply<'static>> {
    let mut bytes = 0;
    command.each_key(&mut |key| bytes += key.len());
    (bytes > KEYS_BYTES_MAX).then(|| Reply::error("ERR the keys of one request hold more than 16 MiB together"))
}
