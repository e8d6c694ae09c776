//! MULTI, EXEC and the requests between them. Requests are kept until EXEC, which sends them to their group as one
//! command.

use super::backend::{Backend, Request};
use super::client::{Client, RequestOutcome};
use super::routing::Known;
use super::whole::asks_other_workers;
use super::{Clients, Time};
use crate::admin::hello;
use crate::config::{ARGS_MAX, LOCAL_REPLY_BYTES_MAX, OUT_OF_MEMORY, QUEUED_WORD_BYTES};
use crate::kv::command::Command;
use crate::kv::parse;
use crate::kv::reply::{Reply, TOO_LARGE};
use crate::kv::table::{Class, Spec, Verb};
use bytes::Bytes;

pub(super) const NOT_IN_MULTI: &str = "ERR this command is not allowed in a transaction";

/// The requests between MULTI and EXEC.
#[derive(Default)]
pub(super) struct Multi {
    requests: Vec<Queued>,
    bytes: usize,
    words: usize,
    failed: bool,
    /// The replies that a waiting EXEC has produced already, with the indexes of their requests. The node answers these
    /// requests by itself.
    answered: Option<Known>,
}

/// One queued request with copies of its words, because the client's buffer is used for the next requests.
struct Queued {
    spec: &'static Spec,
    words: Vec<Box<[u8]>>,
}

impl Multi {
    /// Marks the transaction as failed: EXEC will carry nothing out.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    /// Returns true if one of the requests may write.
    pub(super) fn writes(&self) -> bool {
        self.requests.iter().any(|queued| queued.spec.class == Class::Write)
    }
}

impl Clients {
    pub(super) fn transaction(
        &mut self,
        client: &mut Client,
        spec: &'static Spec,
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        let reply = match (spec.verb, client.multi.take()) {
            (Verb::Multi, None) => {
                client.multi = Some(Multi::default());
                client.info.multi = 0;
                client.answer(&Reply::Ok);
                return RequestOutcome::Taken;
            }
            (Verb::Multi, open) => {
                client.multi = open;
                client.answer_counted(&Reply::error("ERR MULTI calls can not be nested"), node);
                return RequestOutcome::Taken;
            }
            (Verb::Watch, None) => Reply::error("ERR WATCH is not supported"),
            (Verb::Watch, open) => {
                client.multi = open;
                client.answer_counted(&Reply::error("ERR WATCH inside MULTI is not allowed"), node);
                return RequestOutcome::Taken;
            }
            (Verb::Unwatch, None) => Reply::Ok,
            (Verb::Unwatch, Some(mut multi)) => {
                multi.requests.push(Queued { spec, words: vec![b"unwatch".as_slice().into()] });
                client.multi = Some(multi);
                client.answer(&Reply::Simple("QUEUED"));
                return RequestOutcome::Taken;
            }
            (Verb::Exec, None) => Reply::error("ERR EXEC without MULTI"),
            (Verb::Discard, None) => Reply::error("ERR DISCARD without MULTI"),
            (Verb::Exec, Some(multi)) if multi.failed => {
                Reply::error("EXECABORT Transaction discarded because of previous errors.")
            }
            (Verb::Exec, Some(multi)) if multi.requests.is_empty() => Reply::Array(Vec::new()),
            (Verb::Exec, Some(mut multi)) => {
                let outcome = self.execute(client, &mut multi, node, time);
                if outcome != RequestOutcome::Taken {
                    // EXEC will be read again.
                    client.multi = Some(multi);
                }
                return outcome;
            }
            (_, Some(_)) => Reply::Ok,
            (_, None) => Reply::error("ERR not a transaction"),
        };
        client.info.multi = -1;
        client.answer_counted(&reply, node);
        RequestOutcome::Taken
    }

    fn execute(
        &mut self,
        client: &mut Client,
        multi: &mut Multi,
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        client.info.multi = -1;
        let mut answered = multi.answered.take().unwrap_or_default().into_iter().peekable();
        let words: Vec<Vec<&[u8]>> =
            multi.requests.iter().map(|queued| queued.words.iter().map(|word| &**word).collect()).collect();
        // Commands that the node answers by itself, or refuses, are answered now. The rest goes to the group as one
        // command.
        let (mut known, mut commands) = (Vec::new(), Vec::with_capacity(words.len()));
        let mut left = LOCAL_REPLY_BYTES_MAX;
        for (at, (queued, words)) in multi.requests.iter().zip(&words).enumerate() {
            // An earlier attempt of this EXEC has answered the request. CLIENT PAUSE, for example, must not run twice.
            if let Some(before) = answered.next_if(|(index, _)| *index == at) {
                known.push(before);
                continue;
            }
            let reply = match queued.spec.class {
                Class::Transaction => Reply::Ok, // UNWATCH; the others are never queued
                Class::Connection | Class::Admin | Class::Cluster if left == 0 => TOO_LARGE,
                _ if asks_other_workers(queued.spec, node.workers()) => Reply::error(NOT_IN_MULTI),
                Class::Connection | Class::Admin | Class::Cluster => {
                    let request = Request { words, bytes: multi.bytes, buffer: &Bytes::new() };
                    let reply = self.own(client, queued.spec, request, node, time);
                    // The replies together are limited: a short request can ask for INFO ten thousand times.
                    left = left.saturating_sub(reply.bytes());
                    reply
                }
                Class::Read | Class::Write => match parse(queued.spec, words, self.parse_context(node, time)) {
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
            client.answer_counted(&Reply::Array(replies), node);
            return RequestOutcome::Taken;
        }
        let request = Request { words: &[], bytes: multi.bytes, buffer: &Bytes::new() };
        let answered = known.clone();
        let outcome = self.route(client, (Verb::Exec, Command::Exec(commands)), known, request, node, time);
        multi.answered = (outcome != RequestOutcome::Taken).then_some(answered);
        outcome
    }
}

impl Client {
    /// Queues a request of an open transaction until EXEC. If the request is refused, the transaction fails.
    pub(super) fn queue(&mut self, spec: &'static Spec, words: &[&[u8]], node: &mut impl Backend) {
        let refuses = spec.denies_oom() && node.is_out_of_memory();
        let refusal = hello::refused_in_transaction(spec.verb, words, &self.info);
        let Some(multi) = self.multi.as_mut() else { return };
        multi.words += words.len();
        multi.bytes += words.iter().map(|word| word.len() + QUEUED_WORD_BYTES).sum::<usize>();
        let reply = if refuses {
            multi.failed = true;
            Reply::error(OUT_OF_MEMORY)
        } else if multi.bytes > node.config().request_bytes_max() || multi.words > ARGS_MAX {
            multi.failed = true;
            Reply::error("ERR the transaction has too many arguments or bytes")
        } else if let Some(refusal) = refusal {
            multi.failed = true;
            refusal
        } else {
            multi.requests.push(Queued { spec, words: words.iter().map(|word| (*word).into()).collect() });
            self.info.multi = multi.requests.len() as i32;
            Reply::Simple("QUEUED")
        };
        self.answer_counted(&reply, node);
    }
}
