//! What a client's words mean and where they go: to one group, to several in parts, into a transaction, or nowhere.

use super::clients::{Client, Hold, Multi, Queued};
use super::engine::{Asked, Read};
use super::memory::OUT_OF_MEMORY;
use super::refusals::Refusals;
use super::relay::RELAYED;
use super::replies::{Expected, Parts, Ticket};
use super::{Node, Time};
use crate::admin::hello;
use crate::config::{ARGS_MAX, KEYS_BYTES_MAX, LOCAL_REPLY_BYTES_MAX, QUEUED_WORD_BYTES, Reads};
use crate::kv::command::Command;
use crate::kv::encode::encode;
use crate::kv::fanout::{self, Merge, Plan};
use crate::kv::reply::{Reply, TOO_LARGE};
use crate::kv::table::{self, Class, Spec, Verb};
use crate::kv::{LISTED_BYTES_MAX, Moment, parse};
use bytes::{Bytes, BytesMut};
use groups::GroupId;
use net::resp::request::RequestParser;

/// Requests with no more words than this need no memory for the list of them.
const FEW_WORDS: usize = 8;
/// Bytes of a reply of the node's own that are made in one step.
const LOCAL_BYTES_PER_STEP: usize = 64;

/// Replies of a transaction that are known already, by their index in it.
type Known = Vec<(usize, Reply<'static>)>;

pub(super) const NOT_IN_MULTI: &str = "ERR this command cannot stand in a transaction";
/// The reply to what was surely not done in time.
pub(super) const NOT_SERVED: Reply<'static> =
    Reply::Error(std::borrow::Cow::Borrowed("CLUSTERDOWN Hash slot not served"));

impl Node {
    /// Carries out one request, whose words `parser` has found in `bytes`. If it has to wait, because a group
    /// has too much queued already or for earlier replies, [`Client::holds_request`] says so: it is to be read again later.
    pub(super) fn request(&mut self, client: &mut Client, parser: &RequestParser, bytes: &[u8], time: Time) {
        let count = parser.len();
        if count == 0 {
            return;
        }
        if count > FEW_WORDS {
            let words: Vec<&[u8]> = parser.args(bytes).collect();
            return self.words(client, &words, time);
        }
        let mut words: [&[u8]; FEW_WORDS] = [&[]; FEW_WORDS];
        words.iter_mut().zip(parser.args(bytes)).for_each(|(word, arg)| *word = arg);
        self.words(client, &words[..count], time);
    }

    fn words(&mut self, client: &mut Client, words: &[&[u8]], time: Time) {
        self.intake.spend(words.len());
        self.intake.spend_bytes(self.request_bytes);
        let spec = match table::lookup(words) {
            Ok(spec) => spec,
            Err(refusal) => return self.no_command(client, words, &refusal),
        };
        client.info.last_command = spec.name;
        if !spec.is_served_while_loading() && self.has_not_begun() {
            self.stats.rejected(spec.verb as usize);
            return self.no_command(client, words, &self.loading_refusal());
        }
        if self.pause.is_on(time.mono_ms()) && self.pause.holds(spec, client.multi.as_ref()) {
            (client.hold, client.again) = (Some(Hold::Pause), true);
            return;
        }
        match spec.class {
            Class::Transaction => self.transaction(client, spec, time),
            _ if client.multi.is_some() && !breaks_out(spec.verb) => self.queue(client, spec, words),
            Class::Read | Class::Write => self.data(client, spec, words, time),
            Class::Cluster if spec.verb == Verb::PaxoiLeader => {
                self.stats.called(spec.verb as usize, 0, false);
                self.move_leader(client, words, time);
            }
            Class::Connection if matches!(spec.verb, Verb::Wait | Verb::WaitAof) => {
                self.wait(client, spec, words, time);
            }
            Class::Connection | Class::Admin | Class::Cluster => {
                let reply = self.local(client, spec, words, time);
                self.intake.spend(reply.bytes() / LOCAL_BYTES_PER_STEP);
                self.stats.called(spec.verb as usize, 0, matches!(reply, Reply::Error(_)));
                self.answer(client, &reply);
            }
        }
    }

    /// Answers what is no command, or cannot be one now; a transaction that it stood in is not carried out.
    pub(super) fn no_command(&mut self, client: &mut Client, words: &[&[u8]], refusal: &Reply<'_>) {
        client.multi.as_mut().into_iter().for_each(|multi| multi.failed = true);
        if !table::find(words[0]).is_some_and(|spec| spec.verb == Verb::Exec) {
            return self.answer(client, refusal);
        }
        client.multi = None;
        client.info.multi = -1;
        let reason = error_text(refusal).trim_start_matches("ERR ");
        let text = format!("EXECABORT Transaction discarded because of: {reason}");
        self.answer(client, &Reply::Error(text.into()));
    }

    pub(super) fn answer(&mut self, client: &mut Client, reply: &Reply<'_>) {
        if let Reply::Error(text) = reply {
            self.stats.error(text);
        }
        client.answer(reply);
    }

    fn moment(&mut self, time: Time) -> Moment {
        let cluster_ms = self.cluster_ms(time).unwrap_or(0);
        let durations = self.value_version() >= 3;
        Moment { cluster_ms, durations, seed: self.draw.below(u64::MAX) }
    }

    fn data(&mut self, client: &mut Client, spec: &'static Spec, words: &[&[u8]], time: Time) {
        let moment = self.moment(time);
        match parse(spec, words, moment) {
            Ok(command) => self.route(client, spec.verb, command, time),
            Err(refusal) => {
                self.stats.rejected(spec.verb as usize);
                self.answer(client, &refusal);
            }
        }
    }

    /// Sends a command to its group or groups.
    fn route(&mut self, client: &mut Client, verb: Verb, command: Command<'_>, time: Time) {
        self.route_among(client, verb, command, Vec::new(), time);
    }

    /// The same for an EXEC of which some replies are known already.
    fn route_among(&mut self, client: &mut Client, verb: Verb, command: Command<'_>, known: Known, time: Time) {
        if let Some(refusal) = self.refusal(&command).or_else(|| keys_refusal(&command)) {
            self.stats.rejected(verb as usize);
            return self.answer(client, &refusal);
        }
        if self.changes_way(client) {
            (client.hold, client.again) = (Some(Hold::Replies), true);
            return;
        }
        client.writes |= command.is_write();
        let groups = self.engine.len() as u32;
        let is_stale = client.reads_stale && !command.is_write();
        let any = self.any_group();
        match fanout::plan(command, groups, any) {
            Plan::One(group, _) if !self.engine.has(group) => self.refuse_missing(client, verb),
            Plan::One(group, command) => {
                if let Some(refusal) = self.group_refusal(group, &command).filter(|_| !is_stale) {
                    self.stats.rejected(verb as usize);
                    return self.answer(client, &refusal);
                }
                if self.holds_command(group, &command) {
                    return client.full_group = Some(group);
                }
                if command.is_write() {
                    client.wrote.insert(group);
                }
                let (protocol, mute) = (client.info.protocol, !client.info.reply_mode.admit());
                let bytes = self.engine.shard().store(group).expected_bytes(&command);
                let long = command.is_long_read() || self.is_upload(&command);
                let slot = Expected { protocol, mute, bytes, long };
                let sequence = if known.is_empty() {
                    client.replies.expect(slot)
                } else {
                    let parts = Parts::new(Merge::Among(known, None), 1, self.config.reply_bytes_max());
                    client.replies.expect_parts(slot, parts)
                };
                let ticket = Ticket { connection: client.connection, sequence, part: 0 };
                if is_stale {
                    return self.read_stale(client, group, verb, &command, ticket);
                }
                self.dispatch(group, verb, &command, None, ticket, time);
            }
            Plan::Split(parts, _) if !parts.iter().all(|(group, _)| self.engine.has(*group)) => {
                self.refuse_missing(client, verb);
            }
            Plan::Split(parts, merge) => {
                let refusal = parts.iter().find_map(|(group, command)| self.group_refusal(*group, command));
                if let Some(refusal) = refusal.filter(|_| !is_stale) {
                    self.stats.rejected(verb as usize);
                    return self.answer(client, &refusal);
                }
                let full = parts.iter().find(|(group, command)| self.holds_command(*group, command));
                if let Some((group, _)) = full {
                    return client.full_group = Some(*group);
                }
                let written = parts.iter().filter(|(_, command)| command.is_write());
                written.for_each(|(group, _)| client.wrote.insert(*group));
                let mute = !client.info.reply_mode.admit();
                let bytes = |(group, command): &(GroupId, Command<'_>)| {
                    self.engine.shard().store(*group).expected_bytes(command)
                };
                let bytes = parts.iter().map(bytes).sum();
                let is_same_for_all = matches!(merge, Merge::Concatenation | Merge::AnyOf(_));
                let bytes_max = match merge {
                    Merge::Concatenation => LISTED_BYTES_MAX,
                    _ => self.config.reply_bytes_max(),
                };
                let whole = Parts::new(merge.knowing(known), parts.len(), bytes_max);
                let is_long = |command: &Command<'_>| command.is_long_read() || self.is_upload(command);
                let long = parts.iter().any(|(_, command)| is_long(command));
                let slot = Expected { protocol: client.info.protocol, mute, bytes, long };
                let sequence = client.replies.expect_parts(slot, whole);
                // What is asked of every group is the same for all of them, and may be a long pattern.
                let shared = is_same_for_all.then(|| encoded(&parts[0].1));
                for (part, (group, command)) in parts.iter().enumerate() {
                    let ticket = Ticket { connection: client.connection, sequence, part: part as u32 };
                    if is_stale {
                        self.read_stale(client, *group, verb, command, ticket);
                    } else {
                        self.dispatch(*group, verb, command, shared.clone(), ticket, time);
                    }
                }
            }
            Plan::Refused(refusal) => {
                self.stats.rejected(verb as usize);
                self.answer(client, &refusal);
            }
        }
    }

    fn refuse_missing(&mut self, client: &mut Client, verb: Verb) {
        self.stats.rejected(verb as usize);
        self.answer(client, &self.loading_refusal());
    }

    /// Where a command without a key goes: one of the groups that are here, if there is one.
    fn any_group(&mut self) -> GroupId {
        let groups = self.engine.len() as u32;
        let drawn = self.draw.below(u64::from(groups)) as u32;
        let mut after = (0..groups).map(|step| GroupId((drawn + step) % groups));
        after.find(|group| self.engine.has(*group)).unwrap_or(GroupId(drawn))
    }

    /// After READONLY: what this node has, which may be old; it asks nobody, and waits for nothing.
    fn read_stale(&mut self, client: &mut Client, group: GroupId, verb: Verb, command: &Command<'_>, ticket: Ticket) {
        let body = encoded(command);
        if command.is_long_read() {
            let (verb, since_us, deadline_ms) = (verb as u16, self.now_us, u64::MAX);
            return self.engine.read_stale(Read { group, body, ticket, deadline_ms, verb, since_us, long: true });
        }
        let store = self.engine.shard().store(group);
        // By its own time nothing is due that is still there.
        let reply = store.read(&body, store.time_ms()).unwrap_or(NOT_SERVED);
        client.replies.settle(ticket.sequence, ticket.part, reply, &mut client.out);
    }

    /// Why a command cannot even be tried.
    pub(super) fn refusal(&self, command: &Command<'_>) -> Option<Reply<'static>> {
        if self.has_not_begun() {
            return Some(self.loading_refusal());
        }
        if !self.is_born() {
            let joining = self.joining.is_joining();
            let reason = if joining { self.joining.waits_for(self.identity.node) } else { self.birth.waits_for() };
            let text = format!("CLUSTERDOWN Hash slot not served: {reason}");
            return Some(Reply::Error(text.into()));
        }
        if let Some(refusal) = self.memory_refusal(command) {
            return Some(refusal);
        }
        self.refusals().of_space(command.grows(), self.is_logged(command), self.request_bytes)
    }

    pub(super) fn refusals(&self) -> Refusals<'_> {
        Refusals { engine: &self.engine, peers: &self.peers, relays: &self.relays }
    }

    /// Why a command cannot be tried in a group that it needs.
    fn group_refusal(&self, group: GroupId, command: &Command<'_>) -> Option<Reply<'static>> {
        self.refusals().of_group(group, command.is_write(), self.request_bytes)
    }

    /// Whether a command has to wait because too much is queued in its group.
    fn holds_command(&self, group: GroupId, command: &Command<'_>) -> bool {
        self.engine.holds_command(group, command.is_write(), self.request_bytes)
    }

    /// Whether a command, whose request has [`Node::request_bytes`], goes in parts.
    fn is_upload(&self, command: &Command<'_>) -> bool {
        self.engine.takes_upload(self.request_bytes)
            && self.is_logged(command)
            && self.relays.to().is_none()
            && self.value_version() >= 4
    }

    /// Whether a command goes through the log. So does a transaction that walks over keys: it sees one state over several
    /// turns, and its group waits meanwhile.
    pub(super) fn is_logged(&self, command: &Command<'_>) -> bool {
        let is_walking_transaction = matches!(command, Command::Exec(_)) && command.walks();
        command.is_write() || is_walking_transaction || self.config.reads == Reads::Log
    }

    /// `body` is the encoding of `command`, if that is there already.
    fn dispatch(
        &mut self,
        group: GroupId,
        verb: Verb,
        command: &Command<'_>,
        body: Option<Bytes>,
        ticket: Ticket,
        time: Time,
    ) {
        if let Some(to) = self.relays.to() {
            return self.relay(to, group, verb, command, ticket, time);
        }
        let deadline_ms = time.mono_ms() + self.config.client_timeout_ms;
        self.carry_out(group, verb as u16, (command, body), ticket, deadline_ms, time);
    }

    /// Queues a command of the group here, or begins a read: a command, and its encoding if that is there already. `verb` is
    /// its place in the statistics.
    pub(super) fn carry_out(
        &mut self,
        group: GroupId,
        verb: u16,
        (command, body): (&Command<'_>, Option<Bytes>),
        ticket: Ticket,
        deadline_ms: u64,
        time: Time,
    ) {
        let asked = Asked { ticket, verb, since_us: time.mono_us };
        // A client's next commands wait here for its upload, but not those that another member passes on: these are short.
        if ticket.connection != RELAYED && self.is_upload(command) {
            return self.engine.upload(group, command, &self.request, asked, deadline_ms);
        }
        if self.is_logged(command) {
            return self.engine.queue(group, |out| encode(command, out), asked, deadline_ms);
        }
        let (body, long) = (body.unwrap_or_else(|| encoded(command)), command.is_long_read());
        let since_us = asked.since_us;
        self.engine.read(Read { group, body, ticket, deadline_ms, verb, since_us, long });
    }

    fn transaction(&mut self, client: &mut Client, spec: &'static Spec, time: Time) {
        let reply = match (spec.verb, client.multi.take()) {
            (Verb::Multi, None) => {
                client.multi = Some(Multi::default());
                client.info.multi = 0;
                return client.answer(&Reply::Ok);
            }
            (Verb::Multi, open) => {
                client.multi = open;
                return self.answer(client, &Reply::error("ERR MULTI calls can not be nested"));
            }
            (Verb::Watch, None) => Reply::error("ERR WATCH is not supported"),
            (Verb::Watch, open) => {
                client.multi = open;
                return self.answer(client, &Reply::error("ERR WATCH inside MULTI is not allowed"));
            }
            (Verb::Unwatch, None) => Reply::Ok,
            (Verb::Unwatch, Some(mut multi)) => {
                multi.requests.push(Queued { spec, words: vec![b"unwatch".as_slice().into()] });
                client.multi = Some(multi);
                return client.answer(&Reply::Simple("QUEUED"));
            }
            (Verb::Exec, None) => Reply::error("ERR EXEC without MULTI"),
            (Verb::Discard, None) => Reply::error("ERR DISCARD without MULTI"),
            (Verb::Exec, Some(multi)) if multi.failed => {
                Reply::error("EXECABORT Transaction discarded because of previous errors.")
            }
            (Verb::Exec, Some(multi)) if multi.requests.is_empty() => Reply::Array(Vec::new()),
            (Verb::Exec, Some(multi)) => {
                self.execute(client, &multi, time);
                if client.holds_request() {
                    // EXEC will be read again.
                    client.multi = Some(multi);
                }
                return;
            }
            (_, Some(_)) => Reply::Ok,
            (_, None) => Reply::error("ERR not a transaction"),
        };
        client.info.multi = -1;
        self.answer(client, &reply);
    }

    fn execute(&mut self, client: &mut Client, multi: &Multi, time: Time) {
        self.request_bytes = multi.bytes;
        client.info.multi = -1;
        let words: Vec<Vec<&[u8]>> =
            multi.requests.iter().map(|queued| queued.words.iter().map(|word| &**word).collect()).collect();
        // What the node answers by itself, or refuses, it answers now; the rest goes to the group as one command.
        let (mut known, mut commands) = (Vec::new(), Vec::with_capacity(words.len()));
        let mut left = LOCAL_REPLY_BYTES_MAX;
        for (at, (queued, words)) in multi.requests.iter().zip(&words).enumerate() {
            let reply = match queued.spec.class {
                Class::Transaction => Reply::Ok, // UNWATCH; the others are never queued
                Class::Connection | Class::Admin | Class::Cluster if left == 0 => TOO_LARGE,
                Class::Connection | Class::Admin | Class::Cluster => {
                    let reply = self.local(client, queued.spec, words, time);
                    // INFO some ten thousand times is a short request.
                    left = left.saturating_sub(reply.bytes());
                    reply
                }
                Class::Read | Class::Write => match parse(queued.spec, words, self.moment(time)) {
                    Ok(command) if command.nests() => {
                        commands.push(command);
                        continue;
                    }
                    Ok(_) => Reply::error(NOT_IN_MULTI),
                    Err(refusal) => refusal,
                },
            };
            known.push((at, reply));
        }
        if commands.is_empty() {
            let replies = known.into_iter().map(|(_, reply)| reply).collect();
            return self.answer(client, &Reply::Array(replies));
        }
        self.route_among(client, Verb::Exec, Command::Exec(commands), known, time);
    }

    /// Between MULTI and EXEC: kept until then.
    fn queue(&mut self, client: &mut Client, spec: &'static Spec, words: &[&[u8]]) {
        let refuses = spec.denies_oom() && self.is_out_of_memory();
        let refusal = hello::refused_in_transaction(spec.verb, words, &client.info);
        let Some(multi) = client.multi.as_mut() else { return };
        multi.words += words.len();
        multi.bytes += words.iter().map(|word| word.len() + QUEUED_WORD_BYTES).sum::<usize>();
        let reply = if refuses {
            multi.failed = true;
            Reply::error(OUT_OF_MEMORY)
        } else if multi.bytes > self.config.request_bytes_max() || multi.words > ARGS_MAX {
            multi.failed = true;
            Reply::error("ERR too much is queued in this transaction")
        } else if let Some(refusal) = refusal {
            multi.failed = true;
            refusal
        } else {
            multi.requests.push(Queued { spec, words: words.iter().map(|word| (*word).into()).collect() });
            client.info.multi = multi.requests.len() as i32;
            Reply::Simple("QUEUED")
        };
        self.answer(client, &reply);
    }

    /// Commands and reads whose time is up get the error that says what is known of their fate.
    pub(super) fn tick_clients(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        self.wake_late(now_ms);
        self.close_idle(now_ms);
        let (engine, mut wires) = self.split();
        engine.expire(now_ms, &mut wires);
    }
}

fn encoded(command: &Command<'_>) -> Bytes {
    let mut body = BytesMut::with_capacity(64);
    encode(command, &mut body);
    body.freeze()
}

/// Why the keys of a command are too much to be hashed in one turn.
fn keys_refusal(command: &Command<'_>) -> Option<Reply<'static>> {
    let mut bytes = 0;
    command.each_key(&mut |key| bytes += key.len());
    (bytes > KEYS_BYTES_MAX).then(|| Reply::error("ERR the keys of one request hold more than 16 MiB together"))
}

/// What is carried out at once even between MULTI and EXEC.
fn breaks_out(verb: Verb) -> bool {
    matches!(verb, Verb::Quit | Verb::Reset)
}

fn error_text<'a>(reply: &'a Reply<'_>) -> &'a str {
    match reply {
        Reply::Error(text) => text,
        _ => "ERR",
    }
}
