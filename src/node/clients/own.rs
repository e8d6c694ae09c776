//! Commands that need no group: about the connection, and about the other clients. Commands about the node and the
//! cluster are passed to the rest of the node.

use super::backend::{Backend, Request};
use super::client::Client;
use super::pause::Pause;
use super::transactions::NOT_IN_MULTI;
use super::{Clients, Close, Output, Time};
use crate::admin::client::{self, ClientAction};
use crate::admin::hello;
use crate::admin::info::ClientsView;
use crate::config::{LOCAL_BYTES_MAX, LOCAL_WORDS_MAX};
use crate::kv::docs;
use crate::kv::long_value::{LongValue, shared_word};
use crate::kv::reply::Reply;
use crate::kv::table::{Class, Spec, Verb};
use bytes::Bytes;
use net::event::ConnectionId;
use std::borrow::Cow;

impl Clients {
    /// Carries out a command that needs no group, and returns the reply.
    pub(super) fn own(
        &mut self,
        client: &mut Client,
        spec: &Spec,
        request: Request<'_>,
        node: &mut impl Backend,
        time: Time,
    ) -> Reply<'static> {
        let words = request.words;
        if words.len() > LOCAL_WORDS_MAX {
            return Reply::error("ERR too many arguments: 1024 at most for a command that this node answers itself");
        }
        let is_echo = matches!(spec.verb, Verb::Ping | Verb::Echo);
        if !is_echo && words.iter().map(|word| word.len()).sum::<usize>() > LOCAL_BYTES_MAX {
            return Reply::error("ERR arguments too long: 1 MiB at most for a command that this node answers itself");
        }
        match spec.verb {
            Verb::Ping => repeat(hello::ping(words), request.buffer),
            Verb::Echo => repeat(hello::echo(words), request.buffer),
            Verb::Quit => {
                self.dismiss(client, Close::AfterFlush, node);
                hello::quit()
            }
            Verb::Reset => {
                client.multi = None;
                client.reads_stale = false;
                hello::reset(words, &mut client.info)
            }
            Verb::Select => hello::select(words),
            Verb::Hello => hello::hello(words, &mut client.info),
            Verb::Auth => hello::auth(words),
            Verb::Wait | Verb::WaitAof => self.wait_at_once(client, spec, words, node, time),
            Verb::ReadOnly | Verb::ReadWrite => {
                client.reads_stale = spec.verb == Verb::ReadOnly;
                hello::accepted(words, spec.name)
            }
            Verb::Asking => hello::accepted(words, spec.name),
            Verb::PaxoiLeader => Reply::error(NOT_IN_MULTI),
            Verb::Info => {
                let view = self.view(node.config().max_clients);
                node.admin(spec, words, view, time)
            }
            _ if spec.name.starts_with("client") => self.client_command(client, words, node, time),
            _ if spec.name.starts_with("command") => docs::command(spec.verb, words),
            Verb::Time | Verb::PaxoiCheckpoint | Verb::PaxoiMember => {
                node.admin(spec, words, ClientsView::default(), time)
            }
            _ if spec.class == Class::Cluster || spec.name.starts_with("config") => {
                node.admin(spec, words, ClientsView::default(), time)
            }
            // `OBJECT HELP` and `SESSION HELP`.
            _ => docs::help(crate::kv::table::find(words[0])),
        }
    }

    fn client_command(
        &mut self,
        client: &mut Client,
        words: &[&[u8]],
        node: &mut impl Backend,
        time: Time,
    ) -> Reply<'static> {
        let now_ms = time.mono_ms();
        client.info.outbound_bytes = client.out.len();
        if let Some(reply) = client::own(words, &mut client.info, now_ms) {
            return reply;
        }
        let others = self.table.iter().map(|(_, other)| &other.info);
        let all = others.chain(std::iter::once(&client.info));
        let action = client::every(words, client.info.id, all, now_ms);
        if let ClientAction::Kill { ids, .. } = &action
            && ids.contains(&client.info.id)
        {
            self.dismiss(client, Close::AfterFlush, node);
        }
        self.act(action, node, time)
    }

    /// Does this worker's part of a command of another worker's client, whose CLIENT ID is `asker`.
    pub(super) fn client_part(
        &mut self,
        words: &[&[u8]],
        asker: u64,
        node: &mut impl Backend,
        time: Time,
    ) -> Reply<'static> {
        let all = self.table.iter().map(|(_, other)| &other.info);
        let action = client::every(words, asker, all, time.mono_ms());
        self.act(action, node, time)
    }

    fn act(&mut self, action: ClientAction, node: &mut impl Backend, time: Time) -> Reply<'static> {
        let now_ms = time.mono_ms();
        match action {
            ClientAction::Reply(reply) => reply,
            ClientAction::Pause { timeout_ms, all } => {
                self.pause.begin(now_ms, timeout_ms, all);
                Reply::Ok
            }
            ClientAction::Unpause => {
                self.pause = Pause::default();
                Reply::Ok
            }
            ClientAction::Unblock { id, with_error } => {
                let waits = self.connections(|other| other.info.id == id).pop();
                let ended = waits.is_some_and(|connection| self.end_wait(connection, with_error, node, time));
                Reply::Int(i64::from(ended))
            }
            ClientAction::Kill { ids, reply } => {
                for connection in self.connections(|other| ids.contains(&other.info.id)) {
                    node.output(Output::Close(connection, Close::Now));
                    self.closed(connection);
                }
                reply
            }
        }
    }

    /// Returns the connections of the clients that `is_meant` selects. The client that is being served is not among
    /// them.
    fn connections(&self, is_meant: impl Fn(&Client) -> bool) -> Vec<ConnectionId> {
        self.table.iter().filter(|(_, client)| is_meant(client)).map(|(id, _)| id).collect()
    }
}

/// Returns a reply that repeats a word of the request. A long word shares the memory of the request's buffer.
fn repeat(reply: Reply<'_>, buffer: &Bytes) -> Reply<'static> {
    let shared = match &reply {
        Reply::Bulk(Cow::Borrowed(word)) => shared_word(word, buffer),
        _ => None,
    };
    shared.map_or_else(|| reply.into_owned(), |word| Reply::Long(LongValue::from(word)))
}
