//! Connections between members: who dials whom, the handshake, and the frames afterwards.
//!
//! The higher id dials. Both sides say hello first; a hello of another cluster, of a storage id or start number that
//! cannot be, or of another group count is refused with a line that says why. A new connection of a peer replaces the
//! old one.

use super::joining::is_contact;
use super::peers::Peer;
use super::peers::lanes::FRAGMENT;
use super::wire::{Hello, NODE, NodeMessage, Positions, Refusal};
use super::{Close, Node, Output, Time};
use crate::config::{HANDSHAKE_MS_MAX, LARGE_INPUT_BYTES, NODE_MESSAGE_BYTES_MAX};
use crate::identity::LIVES_MAX;
use bytes::BytesMut;
use groups::{Answer, GroupId, Instance, NodeId};
use net::frame::{self, Frame, FrameWriter, Purpose};

/// How much of a peer's reason is repeated.
const REFUSAL_CHARS_MAX: usize = 500;

/// How often a member can have been started while this node did not see it.
const STARTS_AHEAD_MAX: u64 = 1 << 32;
pub(super) const ABSURD: &str = "it named a ballot or an instance that cannot be";

/// A connection to or from another member.
pub(super) struct Link {
    /// Whom it was dialled to.
    pub(super) dialled: Option<NodeId>,
    /// Whose it is, once the handshake is done.
    pub(super) peer: Option<NodeId>,
    /// For large transfers; see `bulk`.
    bulk: bool,
    since_ms: u64,
}

impl Link {
    pub(super) fn accepted(now_ms: u64) -> Link {
        Link { dialled: None, peer: None, bulk: false, since_ms: now_ms }
    }

    pub(super) fn dialled_for_bulk(to: NodeId, now_ms: u64) -> Link {
        Link { dialled: Some(to), bulk: true, ..Link::accepted(now_ms) }
    }

    /// The handshake is done: `peer` is at the other end.
    pub(super) fn on_peer(&mut self, peer: NodeId) {
        self.peer = Some(peer);
    }

    fn is_late(&self, now_ms: u64) -> bool {
        self.peer.is_none() && now_ms >= self.since_ms + HANDSHAKE_MS_MAX
    }
}

impl Node {
    /// A connection to a member is being made, as [`Output::Dial`] asked; `None` if it could not even begin.
    pub fn dialling(&mut self, to: NodeId, purpose: Purpose, connection: Option<u64>, time: Time) {
        if purpose == Purpose::Bulk {
            return self.bulk_dialling(to, connection, time);
        }
        if is_contact(to) {
            self.joining.dialling(to, connection, time.mono_ms());
        } else {
            if !self.peers.on_dialling(to, connection, time.mono_ms()) {
                return;
            }
        }
        let Some(id) = connection else { return };
        let link = Link { dialled: Some(to), ..Link::accepted(time.mono_ms()) };
        self.links.insert(id, link);
    }

    /// A dialled connection is established.
    pub fn connected(&mut self, id: u64) {
        self.say_hello(id);
    }

    pub(super) fn link_input(&mut self, id: u64, input: &mut BytesMut, time: Time) {
        if let Some(peer) = self.peers.by_link(id) {
            peer.on_bytes(time.mono_ms());
        }
        loop {
            // A stranger gets no more memory than a hello needs.
            let is_member = self.links.find(id).is_some_and(|link| link.peer.is_some());
            let payload_bytes_max = if is_member { self.config.frame_bytes_max() } else { NODE_MESSAGE_BYTES_MAX };
            let bytes = input.len();
            match frame::decode(input, payload_bytes_max) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if input.is_empty() && bytes > LARGE_INPUT_BYTES {
                        // Its memory is the frame's, and goes with it.
                        *input = BytesMut::new();
                    }
                    if let Err(reason) = self.link_frame(id, &frame, time) {
                        return self.cut(id, &reason, time);
                    }
                }
                Err(error) => return self.cut(id, &error.to_string(), time),
            }
            if !self.links.has(id) {
                return;
            }
        }
    }

    fn link_frame(&mut self, id: u64, frame: &Frame, time: Time) -> Result<(), String> {
        if let Some(link) = self.links.find(id) {
            // The first frame tells what an accepted connection is for.
            link.bulk |= link.peer.is_none() && link.dialled.is_none() && frame.purpose == Purpose::Bulk;
            if link.bulk {
                return self.bulk_frame(id, frame, time);
            }
        }
        for message in frame.messages() {
            let message = message.map_err(|error| error.to_string())?;
            let Some(link) = self.links.find(id) else { return Ok(()) };
            let from = link.peer;
            if message.group == NODE && message.kind == FRAGMENT {
                let Some(from) = from else { return Err("it sent something else before its hello".to_owned()) };
                self.fragment(from, &message.body, time)?;
                continue;
            }
            if message.group == NODE {
                let bytes = message.body.len();
                if bytes > NODE_MESSAGE_BYTES_MAX {
                    return Err(format!("a message between nodes of {bytes} bytes exceeds {NODE_MESSAGE_BYTES_MAX}"));
                }
                match NodeMessage::decode(message.kind, &message.body) {
                    Ok(Some(decoded)) => self.node_message(id, from, decoded, time)?,
                    Ok(None) => self.unknown_kinds += 1,
                    Err(error) => return Err(format!("malformed message between nodes: {error}")),
                }
                continue;
            }
            let Some(from) = from else { return Err("it sent something else before its hello".to_owned()) };
            self.group_message(from, message.group, message.kind, &message.body, time)?;
        }
        Ok(())
    }

    fn node_message(&mut self, id: u64, from: Option<NodeId>, message: NodeMessage, time: Time) -> Result<(), String> {
        if !self.believes(&message) {
            return Err(ABSURD.to_owned());
        }
        match (message, from) {
            (NodeMessage::Hello(hello), None) => self.handle_hello(id, &hello, time),
            (NodeMessage::Hello(_), Some(_)) => return Err("it said hello twice".to_owned()),
            (NodeMessage::Refusal(refusal), _) => self.handle_refusal(id, &refusal, time),
            (_, None) => return Err("it sent something else before its hello".to_owned()),
            (NodeMessage::Ping(ping), Some(from)) => {
                let (is_reach_other, round_trip) = self.peers.on_ping(from, &ping, time.mono_us);
                // One that tells no clocks knows of none.
                let clocks = ping.clocks.filter(|_| self.tells_clocks());
                if let (Some(clocks), Some(round_trip)) = (clocks, round_trip) {
                    self.cluster_time.on_ping(from, clocks, round_trip, time);
                }
                let Some(peer) = self.peers.find(from) else { return Ok(()) };
                let (claimed, reached) = peer.claims();
                // A group that stood for election itself has not heeded the claim when it came; it may have lost since.
                let is_unheeded = |(group, _): &(GroupId, _)| {
                    let group = self.engine.has(*group).then(|| self.engine.group(*group));
                    group.is_some_and(|group| group.leader().is_none() && group.is_quorum(from, reached))
                };
                if is_reach_other || claimed.iter().any(is_unheeded) {
                    self.on_claims(from, time);
                }
            }
            (NodeMessage::Claims(claims), Some(from)) => {
                self.peers.on_claims(from, &claims);
                self.on_claims(from, time);
            }
            (NodeMessage::Positions(positions), Some(from)) => self.handle_positions(from, &positions, time),
            (NodeMessage::Question(question), Some(from)) => {
                let (engine, mut wires) = self.split();
                engine.handle_question(from, &question, &mut wires, time);
            }
            (NodeMessage::Answers(answers), Some(from)) => {
                let (engine, mut wires) = self.split();
                engine.handle_answers(from, &answers, &mut wires, time);
            }
            (NodeMessage::Birth(record), Some(_)) => self.handle_birth(record)?,
            // Which numbers new files can have is known when all groups are here.
            (NodeMessage::Offer(_), Some(_)) if self.is_loading() => {}
            (NodeMessage::Offer(offer), Some(from)) => {
                let (upkeep, mut cx) = self.upkeep(time);
                upkeep.handle_offer(from, &offer, &mut cx);
            }
            (NodeMessage::Want(_) | NodeMessage::Piece(_), Some(_)) => {
                return Err("it sent a transfer on a connection for votes".to_owned());
            }
            (NodeMessage::Admission(admission), Some(_)) => self.handle_admission(admission)?,
            (NodeMessage::Where, Some(from)) => self.tell_positions(from),
            (NodeMessage::Move(wanted), Some(from)) => {
                let (cluster, mut cx) = self.cluster(time);
                cluster.handle_move(from, &wanted, &mut cx);
            }
            (NodeMessage::Moved(moved), Some(_)) => {
                let (cluster, mut cx) = self.cluster(time);
                cluster.handle_moved(&moved, &mut cx);
            }
            (NodeMessage::Here(here), Some(from)) => self.handle_here(from, here),
            (NodeMessage::WhereDurable(groups), Some(from)) => self.handle_where_durable(from, &groups),
            (NodeMessage::Durable(positions), Some(from)) => {
                self.durability.on_told(from, &positions, self.engine.len());
            }
            (NodeMessage::Relay(relay), Some(from)) => self.handle_relay(id, from, &relay, time),
            (NodeMessage::Relayed(relayed), Some(_)) => self.handle_relayed(&relayed),
        }
        Ok(())
    }

    /// Whether a member can mean this; see [`groups::Group::believes`].
    fn believes(&self, message: &NodeMessage) -> bool {
        let known = |group: &GroupId| self.engine.has(*group).then(|| self.engine.group(*group));
        let ballot = |group: &GroupId, ballot| known(group).is_none_or(|group| group.believes_ballot(ballot));
        let instance = |group: &GroupId, instance| known(group).is_none_or(|group| group.believes_instance(instance));
        match message {
            NodeMessage::Claims(claims) => claims.led.iter().all(|(group, leads)| ballot(group, *leads)),
            NodeMessage::Positions(positions) | NodeMessage::Durable(positions) => {
                positions.next.iter().all(|(group, next)| instance(group, *next))
            }
            NodeMessage::Answers(answers) => answers.items.iter().all(|(group, _, answer)| match answer {
                Answer::Leads(at) => instance(group, *at),
                Answer::Refused(promised) => ballot(group, *promised),
                Answer::Holds => true,
            }),
            NodeMessage::Offer(offer) => instance(&offer.group, offer.instance),
            _ => true,
        }
    }

    fn handle_hello(&mut self, id: u64, hello: &Hello, time: Time) {
        let Some(link) = self.links.find(id) else { return };
        let dialled = link.dialled;
        if dialled.is_none() {
            self.say_hello(id);
        }
        let from = hello.node;
        let version = match self.common_version(hello) {
            Ok(version) => version,
            Err(text) => return self.refuse(id, false, text, time),
        };
        // Whoever was removed is told so wherever it asks: it may know nobody who is left.
        let ours = self.identity.birth.as_ref().map(|record| record.cluster_id);
        if ours.is_some() && hello.cluster == ours && self.peers.roster().was_removed(from) {
            return self.refuse(id, true, removed(from), time);
        }
        if let Some(text) = self.misdirected(hello) {
            return self.refuse(id, false, text, time);
        }
        if dialled.is_some_and(is_contact) {
            return self.on_contact_hello(id, hello, time);
        }
        if let Some(address) = hello.joins.as_ref().filter(|_| self.is_born() && hello.cluster.is_none()) {
            if self.is_loading() {
                return self.refuse(id, false, loads(self.identity.node), time);
            }
            return self.on_applicant(id, hello, address, time);
        }
        if let Some(to) = dialled.filter(|to| *to != from) {
            if !self.is_unknown_member(hello) {
                return self.refuse(id, false, format!("this address is node {from}'s, not node {to}'s"), time);
            }
            // It has taken that one's place and address while this node was away, and may know what became of this one.
            self.peers.on_dial_failed(to, time.mono_ms());
        }
        if let Err(refusal) = self.judge(hello) {
            return self.refuse(id, refusal.fatal, refusal.text, time);
        }
        if !self.peers.admit_guest(from) {
            return self.refuse(id, false, "too many nodes that are not members are connected".to_owned(), time);
        }
        if let Some(link) = self.links.find(id) {
            link.peer = Some(from);
        }
        let old = self.peers.on_linked(id, hello, version, time.mono_ms());
        if let Some(old) = old {
            self.on_relay_cut(from, time);
            self.links.remove(old);
            self.outputs.close(old, Close::Now);
        }
        tracing::info!("connected to node {from}, with version {version} of the peer protocol");
        self.settle_value_version();
        if !self.is_born() {
            return self.birth.on_hello(hello);
        }
        if hello.cluster.is_none() {
            // It was there at the birth and missed its record, which its storage id proves.
            return self.tell_birth(from);
        }
        if let Some(record) = self.peers.note_hello(hello) {
            self.engine.persist(record);
        }
        self.peers.tell_claims(from);
        self.tell_positions(from);
        if self.is_loading() {
            self.tell_here(from, &[]);
        }
        self.step_all(|group, effects| group.on_connected(from, effects));
    }

    /// Why a hello is not meant for this node, if it is not: the address that was dialled was another member's before. It
    /// must not take the place of a connection of the same peer.
    pub(super) fn misdirected(&self, hello: &Hello) -> Option<String> {
        let (to, me) = (hello.to?, self.identity.node);
        (to != me).then(|| format!("this address is node {me}'s, not node {to}'s"))
    }

    /// Whether a hello comes from a node of this cluster that this node has not heard of.
    fn is_unknown_member(&self, hello: &Hello) -> bool {
        let ours = self.identity.birth.as_ref().map(|record| record.cluster_id);
        let is_known = self.peers.get(hello.node).is_some();
        hello.node != self.identity.node && ours.is_some() && hello.cluster == ours && !is_known
    }

    /// Whether a hello can be: else why not.
    pub(super) fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let refuse = |fatal, text: String| Err(Refusal { fatal, text });
        let (from, ours) = (hello.node, self.identity.birth.as_ref());
        if from == self.identity.node {
            let text = format!("it says that it is node {from}, which is this node: no two can have the same id");
            return refuse(false, text);
        }
        // A group that is missing may know it as a member.
        if self.is_loading() && self.peers.roster().place(from).is_none() {
            return refuse(false, loads(self.identity.node));
        }
        // Before anything that ends a node for ever: the address can have been one of that node's own cluster.
        if let (Some(ours), Some(theirs)) = (ours, hello.cluster)
            && ours.cluster_id != theirs
        {
            return refuse(false, format!("node {from} belongs to another cluster"));
        }
        if self.peers.roster().was_removed(from) {
            return refuse(true, removed(from));
        }
        let place = self.peers.roster().place(from);
        // It may have joined while this node was away, if it belongs to the cluster at all.
        let is_guest = ours.is_some() && hello.cluster.is_some();
        if place.is_none() && !is_guest {
            return refuse(false, stranger(from));
        }
        let groups = ours.map_or(self.config.groups, |record| record.groups);
        if groups != hello.groups && (ours.is_none() == hello.cluster.is_none()) {
            let text = format!("node {from} has {} groups, but this cluster has {groups}", hello.groups);
            return refuse(false, text);
        }
        if ours.is_none() {
            return self.birth.judge(hello);
        }
        if place.is_some_and(|place| place.storage != hello.storage) {
            let text = format!(
                "node {from} is known with another data directory: a lost or foreign one never votes; \
                 replace the node under a new id"
            );
            return refuse(true, text);
        }
        // What is known of a peer was said by a born one: it cannot have been there at the birth only.
        let seen = self.peers.seen_as(from);
        if hello.cluster.is_none() && seen.is_some() {
            let text = format!(
                "node {from} was a member already, but its data directory is from before the cluster was born: \
                 it is an old copy; replace the node under a new id"
            );
            return refuse(true, text);
        }
        let seen = seen.unwrap_or_default();
        let (start, life) = (seen.start, seen.life);
        if hello.start < start {
            let text = format!(
                "node {from} was seen with start number {}, but now has {}: its data directory is an old copy; \
                 replace the node under a new id",
                start, hello.start
            );
            return refuse(true, text);
        }
        // Believed and logged, it would make the member's own number look like an old copy's for ever.
        if hello.start > start.saturating_add(STARTS_AHEAD_MAX) {
            let said = hello.start;
            let text = format!("node {from} cannot have been started {said} times, it was seen with {start}");
            return refuse(false, text);
        }
        if hello.lives.is_empty() || hello.lives.len() > LIVES_MAX {
            return refuse(false, format!("node {from} tells of {} lives", hello.lives.len()));
        }
        if life.is_some_and(|life| !hello.descends_from(start, life)) {
            let text = format!(
                "node {from} was seen with start number {start}, but in another process: its data directory is an old copy, \
                 or there are two of it; replace the node under a new id"
            );
            return refuse(true, text);
        }
        Ok(())
    }

    pub(super) fn handle_refusal(&mut self, id: u64, refusal: &Refusal, time: Time) {
        // What a peer says goes to the log and to the terminal: as one line, and as nothing but text.
        let text = refusal.text.chars().filter(|c| !c.is_control()).take(REFUSAL_CHARS_MAX).collect::<String>();
        tracing::warn!("refused by a peer: {text}");
        // A member may say that this node can never join. Whoever else can reach the port may not, nor whoever listens now
        // where a member did: it has said who it is before it refuses anything.
        let known = self.links.find(id).is_some_and(|link| link.peer.is_some());
        if refusal.fatal && known {
            self.outputs.push(Output::Stop(text));
        }
        self.outputs.close(id, Close::Now);
        self.closed(id, time);
    }

    pub(super) fn refuse(&mut self, id: u64, fatal: bool, text: String, time: Time) {
        tracing::warn!("refusing a connection: {text}");
        self.send_alone(id, &NodeMessage::Refusal(Refusal { fatal, text }));
        self.outputs.close(id, Close::AfterFlush);
        self.closed(id, time);
    }

    pub(super) fn cut(&mut self, id: u64, reason: &str, time: Time) {
        tracing::warn!("closing a connection between nodes: {reason}");
        self.outputs.close(id, Close::Now);
        self.closed(id, time);
    }

    pub(super) fn say_hello(&mut self, id: u64) {
        let dialled = self.links.find(id).and_then(|link| link.dialled);
        let birth = self.identity.birth.as_ref();
        let hello = Hello {
            cluster: birth.map(|record| record.cluster_id),
            node: self.identity.node,
            storage: self.identity.storage_id,
            start: self.identity.start,
            lives: self.identity.lives.clone(),
            groups: birth.map_or(self.config.groups, |record| record.groups),
            members: self.peers.voters().ids().to_vec(),
            joins: self.peers.own_address().filter(|_| self.joining.is_joining()).map(str::to_owned),
            versions: self.config.versions,
            to: dialled.filter(|to| !is_contact(*to)),
            announced: self.config.announced.clone(),
            address: self.peers.own_address().map(str::to_owned),
        };
        self.send_alone(id, &NodeMessage::Hello(hello));
    }

    /// A frame of one message, on a connection whose handshake is not done.
    pub(super) fn send_alone(&mut self, id: u64, message: &NodeMessage) {
        let bulk = self.links.find(id).is_some_and(|link| link.bulk);
        let mut frame = FrameWriter::new(if bulk { Purpose::Bulk } else { Purpose::Live });
        frame.message(NODE, message.kind(), |out| message.put(out));
        let mut pieces = Vec::new();
        frame.finish(&mut pieces);
        self.outputs.extend(pieces.into_iter().map(|piece| Output::Frame(id, piece)));
    }

    pub(super) fn tell_positions(&mut self, to: NodeId) {
        let started = self.engine.groups().filter(|group| group.next() > Instance::FIRST);
        let next = started.map(|group| (group.id(), group.next())).collect();
        if let Some(peer) = self.peers.find(to) {
            peer.tell(&NodeMessage::Positions(Positions { next }));
        }
    }

    fn handle_positions(&mut self, from: NodeId, positions: &Positions, time: Time) {
        if let Some(peer) = self.peers.find(from) {
            peer.set_positions(positions, time.mono_ms());
        }
        for (group, next) in &positions.next {
            if self.engine.has(*group) {
                let ahead = |group: &mut groups::Group, effects: &mut Vec<groups::Effect>| {
                    group.note_ahead(from, *next, time.clock(), effects);
                };
                self.step(*group, ahead);
            }
        }
    }

    /// What a peer claims, or whether its word counts, has changed.
    pub(super) fn on_claims(&mut self, from: NodeId, time: Time) {
        let Some(peer) = self.peers.find(from).filter(|peer| peer.link().is_some()) else { return };
        let (claimed, reached) = peer.claims();
        let (claimed, reached) = (claimed.to_vec(), reached.to_vec());
        let mut claimed = claimed.into_iter().peekable();
        self.step_all(|group, effects| {
            while claimed.next_if(|(id, _)| *id < group.id()).is_some() {}
            match claimed.next_if(|(id, _)| *id == group.id()) {
                Some((_, ballot))
                    if ballot.node == from && group.is_quorum(from, &reached) && group.believes_ballot(ballot) =>
                {
                    group.on_claim(ballot, time.clock(), effects);
                }
                _ => group.on_no_claim(from, time.clock()),
            }
        });
    }

    /// A connection of a peer, or an attempt at one, is gone.
    pub(super) fn on_link_cut(&mut self, id: u64, time: Time) {
        if self.upkeep.on_cut(id, time) {
            return;
        }
        self.joining.on_cut(id, time.mono_ms());
        let Some(from) = self.peers.on_connection_gone(id, time.mono_ms()) else { return };
        tracing::info!("the connection to node {from} is gone");
        self.on_relay_cut(from, time);
        self.forget_link(from, true, time);
        self.peers.dismiss_guest(from);
        self.heed_claims(time);
    }

    /// See [`Engine::forget_link`](super::engine::Engine::forget_link).
    pub(super) fn forget_link(&mut self, from: NodeId, is_cut: bool, time: Time) {
        let (engine, mut wires) = self.split();
        engine.forget_link(from, is_cut, &mut wires, time);
    }

    /// Takes silent peers for dead, and cuts connections that must be broken.
    pub(super) fn tick_silence(&mut self, now_ms: u64, time: Time) {
        let (broken, silent) = (self.peers.broken(now_ms), self.peers.take_silent(now_ms));
        silent.into_iter().for_each(|from| self.on_silent(from, time));
        broken.into_iter().for_each(|id| self.cut(id, "nothing was heard on it for too long", time));
    }

    fn on_silent(&mut self, from: NodeId, time: Time) {
        tracing::info!("node {from} is silent");
        // Who waits for its replies is told now: they may come after the client's time.
        self.on_relay_cut(from, time);
        self.forget_link(from, false, time);
        self.heed_claims(time);
    }

    /// A claim that was below a lost leader's counts again.
    pub(super) fn heed_claims(&mut self, time: Time) {
        let others: Vec<NodeId> = self.peers.linked().map(Peer::id).collect();
        others.into_iter().for_each(|id| self.on_claims(id, time));
    }

    /// All connections to and from members, also those whose handshake is not done.
    pub(super) fn links(&self) -> Vec<u64> {
        self.links.iter().map(|(id, _)| id).collect()
    }

    /// Who has not said hello for too long is not waited for.
    pub(super) fn cut_late(&mut self, time: Time) {
        let late = self.links.iter().filter(|(_, link)| link.is_late(time.mono_ms()));
        let late: Vec<u64> = late.map(|(id, _)| id).collect();
        late.into_iter().for_each(|id| self.cut(id, "its handshake takes too long", time));
    }

    pub(super) fn tick_links(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        self.alone.tick(&self.peers, self.identity.birth.is_some() && !self.has_not_begun(), now_ms);
        self.tick_silence(now_ms, time);
        self.cut_late(time);
        self.admit_silent(time);
        let is_born = self.is_born();
        // What becomes of it is noted when it is known: only a failure makes the next delay longer.
        let due = self.peers.take_due_dials(is_born, now_ms).into_iter();
        self.outputs.extend(due.map(|(id, address)| Output::Dial(id, Purpose::Live, address)));
    }
}

/// What a node is told that is no member any more.
pub(super) fn removed(node: NodeId) -> String {
    format!(
        "node {node} was removed from the cluster: its data directory is of no use any more, and its id is never used \
         again; start another node under a new id with an empty directory"
    )
}

/// What a node is told of which it is not known yet whether it is a member.
fn loads(node: NodeId) -> String {
    format!("node {node} is loading its groups: try again")
}

/// What a node is told that is no member, as far as this one knows.
pub(super) fn stranger(node: NodeId) -> String {
    format!("node {node} is not a member of this cluster")
}
