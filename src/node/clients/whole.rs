//! Commands about the whole node, if it has several workers. The worker of the client asks the others: for their facts,
//! from which it answers INFO and CLUSTER, or to do their parts of CONFIG SET, CLIENT LIST and so on. The client's next
//! requests wait for the reply. Changes of the members are the first worker's.

use super::backend::{Backend, Request};
use super::client::{BlockReason, Client, RequestOutcome};
use super::messages::ClientsMessage;
use super::{Clients, Time};
use crate::admin::info::ClientsView;
use crate::kv::reply::Reply;
use crate::kv::table::{self, Spec, Verb};
use crate::node::facts::WorkerFacts;
use crate::node::ticket::ClientTicket;
use crate::workers::{WorkerId, Workers};
use bytes::Bytes;
use std::borrow::Cow;

/// The number of a question to other workers, at the asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct AskId(u64);

/// A question to another worker: a command of a client.
#[derive(Clone, Debug)]
pub(in crate::node) struct Question {
    id: AskId,
    words: Vec<Bytes>,
    /// The CLIENT ID of the client.
    client: u64,
}

/// The answer of another worker.
#[derive(Debug)]
pub(in crate::node) enum Part {
    Facts(Box<WorkerFacts>),
    Reply(Reply<'static>),
}

/// Who needs the reply.
#[derive(Clone, Copy, Debug)]
enum Asker {
    Client(ClientTicket),
    Worker(WorkerId, AskId),
}

/// A command whose parts are outstanding.
struct Open {
    id: AskId,
    asker: Asker,
    spec: &'static Spec,
    words: Vec<Bytes>,
    /// The parts that are here, this worker's own first.
    parts: Vec<Part>,
    missing: usize,
}

/// The commands whose parts are outstanding. Their number is bounded by that of the clients: each waits for its reply.
#[derive(Default)]
pub(super) struct WholeNode {
    open: Vec<Open>,
    asked: u64,
}

/// How a command concerns the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concern {
    /// The worker of the client can answer it.
    Own,
    /// It is answered from the facts about all workers.
    Facts,
    /// Each worker does its part.
    Parts,
    /// It is for the first worker.
    First,
}

fn concern(spec: &Spec) -> Concern {
    match spec.verb {
        Verb::Info | Verb::ClusterSlots | Verb::ClusterShards | Verb::ClusterNodes | Verb::ClusterInfo => {
            Concern::Facts
        }
        Verb::ClusterReplicas | Verb::ClusterSlaves => Concern::Facts,
        Verb::ClientList | Verb::ClientKill | Verb::ClientPause | Verb::ClientUnpause | Verb::ClientUnblock => {
            Concern::Parts
        }
        Verb::ConfigSet | Verb::ConfigResetStat => Concern::Parts,
        Verb::PaxoiCheckpoint | Verb::PaxoiDrain | Verb::PaxoiUndrain => Concern::Parts,
        Verb::PaxoiMember => Concern::First,
        _ => Concern::Own,
    }
}

/// Returns true if other workers take part in the command. EXEC does not wait for them, so it refuses such a command.
pub(super) fn asks_other_workers(spec: &Spec, workers: Workers) -> bool {
    workers.count() > 1 && matches!(concern(spec), Concern::Parts | Concern::First)
}

fn is_list(words: &[&[u8]]) -> bool {
    words.get(2).is_some_and(|word| word.eq_ignore_ascii_case(b"list"))
}

impl Clients {
    /// Begins a command about the whole node, if it needs other workers. Otherwise returns `None`.
    pub(super) fn whole_node(
        &mut self,
        client: &mut Client,
        spec: &'static Spec,
        request: Request<'_>,
        node: &mut impl Backend,
        time: Time,
    ) -> Option<RequestOutcome> {
        let workers = node.workers();
        // Until the node has begun, the first worker is alone.
        if workers.count() == 1 || concern(spec) == Concern::Own || node.loading_refusal().is_some() {
            return None;
        }
        if !client.replies.is_empty() {
            return Some(RequestOutcome::Again(BlockReason::Replies));
        }
        let parts = match concern(spec) {
            Concern::Parts => {
                let own = self.own(client, spec, request, node, time);
                if matches!(own, Reply::Error(_)) && spec.verb != Verb::ClientKill {
                    client.answer_counted(&own, node);
                    return Some(RequestOutcome::Taken);
                }
                vec![Part::Reply(own)]
            }
            _ => Vec::new(),
        };
        let words: Vec<Bytes> = request.words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
        let asker = Asker::Client(client.expect());
        (client.blocked, client.info.blocked) = (Some(BlockReason::Replies), true);
        self.ask(asker, spec, words, client.info.id, parts, node);
        Some(RequestOutcome::Taken)
    }

    /// Asks the other workers that a command concerns.
    fn ask(
        &mut self,
        asker: Asker,
        spec: &'static Spec,
        words: Vec<Bytes>,
        client: u64,
        parts: Vec<Part>,
        node: &mut impl Backend,
    ) {
        self.whole.asked += 1;
        let id = AskId(self.whole.asked);
        let (workers, is_first) = (node.workers(), node.workers().is_first());
        let slices: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let asked: Vec<WorkerId> = match concern(spec) {
            Concern::First if !is_first => vec![WorkerId::FIRST],
            Concern::First if !is_list(&slices) => Vec::new(),
            _ => workers.others().collect(),
        };
        for worker in &asked {
            node.tell_worker(*worker, ClientsMessage::Ask(Question { id, words: words.clone(), client }));
        }
        self.whole.open.push(Open { id, asker, spec, words, parts, missing: asked.len() });
    }

    /// Answers the question of another worker, or asks on for it.
    pub(super) fn on_question(&mut self, from: WorkerId, question: Question, node: &mut impl Backend, time: Time) {
        let Question { id, words, client } = question;
        let slices: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let Ok(spec) = table::lookup(&slices) else { unreachable!("the asker knows the command") };
        let part = match concern(spec) {
            Concern::First if node.workers().is_first() => {
                return self.ask(Asker::Worker(from, id), spec, words.clone(), client, Vec::new(), node);
            }
            Concern::First => Part::Facts(Box::new(node.facts_for_list(self.view(node.config().max_clients), time))),
            Concern::Facts => Part::Facts(Box::new(node.facts(self.view(node.config().max_clients), time))),
            _ if spec.name.starts_with("client") => Part::Reply(self.client_part(&slices, client, node, time)),
            _ => Part::Reply(node.admin(spec, &slices, ClientsView::default(), time)),
        };
        node.tell_worker(from, ClientsMessage::Part(id, part));
    }

    /// Takes the answer of another worker.
    pub(super) fn on_part(&mut self, id: AskId, part: Part) {
        if let Some(open) = self.whole.open.iter_mut().find(|open| open.id == id) {
            open.parts.push(part);
            open.missing -= 1;
        }
    }

    /// Answers the commands of which all parts are here.
    pub(in crate::node) fn step_whole(&mut self, node: &mut impl Backend, time: Time) {
        while let Some(at) = self.whole.open.iter().position(|open| open.missing == 0) {
            let Open { asker, spec, words, parts, .. } = self.whole.open.swap_remove(at);
            let reply = self.whole_reply(spec, &words, parts, node, time);
            match asker {
                Asker::Worker(to, id) => node.tell_worker(to, ClientsMessage::Part(id, Part::Reply(reply))),
                Asker::Client(ticket) => {
                    if let Reply::Error(text) = &reply {
                        node.stats().error(text);
                    }
                    self.complete(ticket, reply);
                }
            }
        }
    }

    fn whole_reply(
        &mut self,
        spec: &'static Spec,
        words: &[Bytes],
        parts: Vec<Part>,
        node: &mut impl Backend,
        time: Time,
    ) -> Reply<'static> {
        let slices: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let (mut facts, mut replies) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Facts(other) => facts.push(*other),
                Part::Reply(reply) => replies.push(reply),
            }
        }
        if !facts.is_empty() {
            node.set_facts(facts);
        }
        match merged(spec, replies) {
            Some(reply) => reply,
            None => node.admin(spec, &slices, self.view(node.config().max_clients), time),
        }
    }
}

/// Merges the replies of several workers, if there are any. A client to be killed is connected to one worker, and the
/// others say that it is not there. Every other command is done only if all workers have done their parts.
fn merged(spec: &Spec, replies: Vec<Reply<'static>>) -> Option<Reply<'static>> {
    replies.into_iter().reduce(|all, one| match (all, one) {
        (Reply::Int(sum), Reply::Int(more)) => Reply::Int(sum + more),
        (Reply::Text(list), Reply::Text(more)) => Reply::Text(Cow::Owned(list.into_owned() + &more)),
        (Reply::Error(_), other) | (other, Reply::Error(_)) if spec.verb == Verb::ClientKill => other,
        (Reply::Error(error), _) | (_, Reply::Error(error)) => Reply::Error(error),
        (all, _) => all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_done_if_all_workers_have_done_their_parts() {
        let of = |words: &[&[u8]], replies: &[Reply<'static>]| {
            merged(table::lookup(words).expect("it exists"), replies.to_vec()).expect("there are replies")
        };
        let (set, kill) = ([&b"config"[..], b"set", b"timeout", b"1"], [&b"client"[..], b"kill", b"127.0.0.1:9"]);
        let (done, failed) = (Reply::Ok, Reply::error("ERR no"));
        assert_eq!(of(&set, &[done.clone(), failed.clone(), done.clone()]), failed);
        assert_eq!(of(&set, &[done.clone(), done.clone()]), done);
        assert_eq!(of(&kill, &[failed.clone(), done.clone(), failed.clone()]), done);
        assert_eq!(of(&kill, &[failed.clone(), failed.clone()]), failed);
        assert_eq!(of(&[b"client", b"unblock", b"7"], &[Reply::Int(0), Reply::Int(1)]), Reply::Int(1));
    }
}
