//! Requests, and the dispatch of each by its command.

use super::backend::{Backend, Request};
use super::client::{BlockReason, Client, RequestOutcome};
use super::{Clients, Time};
use crate::kv::command::Command;
use crate::kv::reply::Reply;
use crate::kv::table::{self, Class, Spec, Verb};
use crate::kv::{ParseContext, parse};
use crate::node::ticket::Ticket;
use bytes::Bytes;
use groups::Us;
use net::resp::request::RequestParser;

/// Maximum number of words for which the list of a request's words needs no heap allocation.
const FEW_WORDS: usize = 8;
/// Bytes per step of work, in replies that the node makes by itself.
const OWN_BYTES_PER_STEP: usize = 64;

impl Clients {
    /// Carries out one request, whose words `parser` has found in `bytes`. `buffer` holds a long request, and is empty
    /// for a short one.
    pub(super) fn request(
        &mut self,
        client: &mut Client,
        parser: &RequestParser,
        (bytes, buffer): (&[u8], &Bytes),
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        let (count, length) = (parser.len(), bytes.len());
        if count == 0 {
            return RequestOutcome::Taken;
        }
        if count > FEW_WORDS {
            let words: Vec<&[u8]> = parser.args(bytes).collect();
            return self.words(client, Request { words: &words, bytes: length, buffer }, node, time);
        }
        let mut words: [&[u8]; FEW_WORDS] = [&[]; FEW_WORDS];
        words.iter_mut().zip(parser.args(bytes)).for_each(|(word, arg)| *word = arg);
        self.words(client, Request { words: &words[..count], bytes: length, buffer }, node, time)
    }

    fn words(
        &mut self,
        client: &mut Client,
        request: Request<'_>,
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        let words = request.words;
        self.intake.spend(words.len());
        self.intake.spend_bytes(request.bytes);
        let spec = match table::lookup(words) {
            Ok(spec) => spec,
            Err(refusal) => return client.refuse(words, &refusal, node),
        };
        client.info.last_command = spec.name;
        if !spec.is_served_while_loading()
            && let Some(refusal) = node.loading_refusal()
        {
            node.stats().rejected(spec.verb as usize);
            return client.refuse(words, &refusal, node);
        }
        if self.pause.is_on(time.mono_ms()) && self.pause.holds(spec, client.multi.as_ref()) {
            return RequestOutcome::Again(BlockReason::Pause);
        }
        match spec.class {
            Class::Transaction => return self.transaction(client, spec, node, time),
            _ if client.multi.is_some() && !breaks_out(spec.verb) => client.queue(spec, words, node),
            Class::Read | Class::Write => return self.data(client, spec, request, node, time),
            Class::Cluster if spec.verb == Verb::PaxoiLeader => move_leader(client, words, node, time),
            Class::Connection if matches!(spec.verb, Verb::Wait | Verb::WaitAof) => {
                return self.wait(client, spec, words, node, time);
            }
            Class::Connection | Class::Admin | Class::Cluster => {
                if let Some(outcome) = self.whole_node(client, spec, request, node, time) {
                    node.stats().called(spec.verb as usize, Us(0), false);
                    return outcome;
                }
                let reply = self.own(client, spec, request, node, time);
                self.intake.spend(reply.bytes() / OWN_BYTES_PER_STEP);
                node.stats().called(spec.verb as usize, Us(0), matches!(reply, Reply::Error(_)));
                client.answer_counted(&reply, node);
            }
        }
        RequestOutcome::Taken
    }

    pub(super) fn parse_context(&mut self, node: &impl Backend, time: Time) -> ParseContext {
        node.parse_context(self.draw.below(u64::MAX), time)
    }

    fn data(
        &mut self,
        client: &mut Client,
        spec: &'static Spec,
        request: Request<'_>,
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        let parse_context = self.parse_context(node, time);
        match parse(spec, request.words, parse_context) {
            Ok(command) => self.route(client, (spec.verb, command), Vec::new(), request, node, time),
            Err(refusal) => client.reject(spec.verb, &refusal, node),
        }
    }
}

impl Client {
    /// Refuses a request that names no command or cannot be carried out now. An open transaction fails.
    pub(super) fn refuse(&mut self, words: &[&[u8]], refusal: &Reply<'_>, node: &mut impl Backend) -> RequestOutcome {
        self.fail_transaction();
        if !table::find(words[0]).is_some_and(|spec| spec.verb == Verb::Exec) {
            self.answer_counted(refusal, node);
            return RequestOutcome::Taken;
        }
        self.multi = None;
        self.info.multi = -1;
        let reason = error_text(refusal).trim_start_matches("ERR ");
        let text = format!("EXECABORT Transaction discarded because of: {reason}");
        self.answer_counted(&Reply::Error(text.into()), node);
        RequestOutcome::Taken
    }

    /// Refuses a command before it is tried, and counts that.
    pub(super) fn reject(&mut self, verb: Verb, refusal: &Reply<'_>, node: &mut impl Backend) -> RequestOutcome {
        node.stats().rejected(verb as usize);
        self.answer_counted(refusal, node);
        RequestOutcome::Taken
    }
}

/// Carries out `PAXOI LEADER MOVE group node`. The reply comes when the group has moved, or when its time limit is
/// over.
fn move_leader(client: &mut Client, words: &[&[u8]], node: &mut impl Backend, time: Time) {
    node.stats().called(Verb::PaxoiLeader as usize, Us(0), false);
    if node.pass_move(words, &mut || client.expect()) {
        return;
    }
    match node.check_move(words, time) {
        Ok(wanted) => node.ask_move(wanted, Ticket::Client(client.expect()), time),
        Err(reply) => client.answer_counted(&reply, node),
    }
}

/// Returns true if a command is carried out at once even between MULTI and EXEC.
fn breaks_out(verb: Verb) -> bool {
    matches!(verb, Verb::Quit | Verb::Reset)
}

fn error_text<'a>(reply: &'a Reply<'_>) -> &'a str {
    match reply {
        Reply::Error(text) => text,
        _ => "ERR",
    }
}

/// A command with its index in the statistics.
pub(super) type Named<'a> = (Verb, Command<'a>);
