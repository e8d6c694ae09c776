//! Nodes that want to join. A new one dials any member, says hello as one that joins, and waits there; it is a member when
//! the groups say so. Then it is handed the birth record and where the others are, keeps both, and begins as a learner.

use super::links::removed;
use super::wire::{Admission, Hello, NodeMessage};
use super::{Close, Node, Output, Time};
use crate::endpoint::Endpoint;
use crate::identity::Identity;
use groups::NodeId;
use groups::membership::Place;
use net::frame::Purpose;
use net::peers::Backoff;

/// Nodes that can wait at one member.
const WAITING_MAX: usize = 64;
/// A node that has not said for so long that it waits does so no longer.
const WAITING_MS_MAX: u64 = 10_000;
/// A node that waits says so again after so long.
const APPLY_MS: u64 = 3_000;
/// Addresses to join at.
pub(super) const CONTACTS_MAX: usize = 64;

/// Both sides of joining.
#[derive(Default)]
pub(super) struct Joining {
    /// At a node that joins: whom it asks.
    contacts: Vec<Contact>,
    storing: bool,
    /// At a member: who waits.
    waiting: Vec<Waiting>,
}

/// Somebody to ask. Only its address is known: until it says who it is it goes by an id that no node has.
struct Contact {
    address: String,
    backoff: Backoff,
    connection: Option<u64>,
    since_ms: u64,
}

/// A node that waits to be added.
struct Waiting {
    place: Place,
    connection: Option<u64>,
    seen_ms: u64,
}

/// The id that contact number `index` goes by.
fn contact_id(index: usize) -> NodeId {
    NodeId(u32::MAX - index as u32)
}

/// Whether this is the id of a contact.
pub(super) fn is_contact(id: NodeId) -> bool {
    id >= contact_id(CONTACTS_MAX)
}

impl Joining {
    pub(super) fn new(addresses: &[String], seed: u64) -> Joining {
        let contact = |(index, address): (usize, &String)| Contact {
            address: address.clone(),
            backoff: Backoff::new(seed ^ index as u64),
            connection: None,
            since_ms: 0,
        };
        let contacts = addresses.iter().take(CONTACTS_MAX).enumerate().map(contact).collect();
        Joining { contacts, ..Joining::default() }
    }

    /// Whether this node was told to join a cluster.
    pub(super) fn is_joining(&self) -> bool {
        !self.contacts.is_empty()
    }

    /// A connection to a contact is being made, or could not be.
    pub(super) fn dialling(&mut self, to: NodeId, connection: Option<u64>, now_ms: u64) {
        let Some(contact) = self.contacts.get_mut((u32::MAX - to.0) as usize) else { return };
        (contact.connection, contact.since_ms) = (connection, now_ms);
        if connection.is_none() {
            contact.backoff.on_failure(now_ms);
        }
    }

    /// A connection is gone.
    pub(super) fn on_cut(&mut self, connection: u64, now_ms: u64) {
        if let Some(contact) = self.contacts.iter_mut().find(|contact| contact.connection == Some(connection)) {
            contact.connection = None;
            contact.backoff.on_failure(now_ms);
        }
        self.waiting.iter_mut().filter(|waiting| waiting.connection == Some(connection)).for_each(|waiting| {
            waiting.connection = None;
        });
    }

    /// Those that wait, by id.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Place> {
        self.waiting.iter().map(|waiting| &waiting.place)
    }

    /// What this node waits for, for those who ask.
    pub(super) fn waits_for(&self, me: NodeId) -> String {
        let at: Vec<&str> = self.contacts.iter().map(|contact| &*contact.address).collect();
        format!("this node waits to be added: run `paxoi member add {me} --connect {}`", at.join(" or "))
    }
}

impl Node {
    /// A node that joins dials those it was told, and says again now and then that it waits; a member forgets those that
    /// do so no longer.
    pub(super) fn tick_joining(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        self.joining.waiting.retain(|waiting| now_ms < waiting.seen_ms + WAITING_MS_MAX);
        if self.is_born() || self.joining.storing {
            return;
        }
        let late = |contact: &&Contact| now_ms >= contact.since_ms + APPLY_MS;
        let late: Vec<u64> =
            self.joining.contacts.iter().filter(late).filter_map(|contact| contact.connection).collect();
        for connection in late {
            self.outputs.close(connection, Close::Now);
            self.closed(connection, time);
        }
        for (index, contact) in self.joining.contacts.iter_mut().enumerate() {
            if contact.connection.is_none() && contact.backoff.is_due(now_ms) {
                self.outputs.push(Output::Dial(contact_id(index), Purpose::Live, contact.address.clone()));
            }
        }
    }

    /// At a node that joins: a contact has said who it is.
    pub(super) fn on_contact_hello(&mut self, id: u64, hello: &Hello, time: Time) {
        let from = hello.node;
        if hello.cluster.is_none() {
            return self.refuse(
                id,
                false,
                format!("node {from} belongs to no cluster yet: there is nothing to join"),
                time,
            );
        }
        let Some(link) = self.links.find(id) else { return };
        link.on_peer(from);
        if let Some(contact) = self.joining.contacts.iter_mut().find(|contact| contact.connection == Some(id)) {
            contact.backoff.on_success();
        }
    }

    /// At a member: somebody wants to join.
    pub(super) fn on_applicant(&mut self, id: u64, hello: &Hello, address: &str, time: Time) {
        let from = hello.node;
        let place = Place { node: from, storage: hello.storage, address: address.to_owned() };
        if hello.versions.value_version() < self.config.versions.value_version() {
            let (theirs, needed) = (hello.versions, self.config.versions.value_version());
            let text = format!(
                "node {from} speaks {theirs} of the peer protocol, and cannot read the values of version {needed} that \
                 this cluster has: start it with a newer program"
            );
            return self.refuse(id, true, text, time);
        }
        if let Err(text) = self.judge_applicant(&place) {
            return self.refuse(id, true, text, time);
        }
        if self.joining.waiting.len() >= WAITING_MAX {
            return self.refuse(id, false, format!("{WAITING_MAX} nodes wait to join already"), time);
        }
        if let Some(link) = self.links.find(id) {
            link.on_peer(from);
        }
        let waiting = Waiting { place, connection: Some(id), seen_ms: time.mono_ms() };
        match self.joining.waiting.iter_mut().find(|known| known.place.node == from) {
            Some(known) => *known = waiting,
            None => {
                tracing::info!("node {from} at {address} waits to be added");
                self.joining.waiting.push(waiting);
                self.joining.waiting.sort_by_key(|waiting| waiting.place.node);
            }
        }
        self.admit();
    }

    fn judge_applicant(&self, place: &Place) -> Result<(), String> {
        let from = place.node;
        let roster = self.peers.roster();
        if roster.was_removed(from) || (roster.has_left(from) && roster.place(from).is_none()) {
            return Err(removed(from));
        }
        let taken =
            || format!("there is a node {from} already: start this one under another id, with an empty directory");
        if from == self.identity.node || from.0 == 0 || is_contact(from) {
            return Err(taken());
        }
        if roster.place(from).is_some_and(|known| known.storage != place.storage) {
            return Err(taken());
        }
        if self.joining.waiting().any(|known| known.node == from && known.storage != place.storage) {
            return Err(format!(
                "another node waits under the id {from}: start this one under another, with an empty directory"
            ));
        }
        if Endpoint::parse(&place.address).is_none() {
            return Err("its address is not one".to_owned());
        }
        Ok(())
    }

    /// Those of the nodes that wait which are members by now are handed what they need.
    pub(super) fn admit(&mut self) {
        let Some(record) = self.identity.birth.clone() else { return };
        let roster = self.peers.roster();
        let mut admitted = Vec::new();
        self.joining.waiting.retain(|waiting| {
            let is_member =
                roster.place(waiting.place.node).is_some_and(|known| known.storage == waiting.place.storage);
            admitted.extend(waiting.connection.filter(|_| is_member));
            !is_member || waiting.connection.is_none()
        });
        let admission = || Admission { birth: record.clone(), members: roster.places().to_vec() };
        let messages: Vec<(u64, NodeMessage)> =
            admitted.into_iter().map(|id| (id, NodeMessage::Admission(admission()))).collect();
        for (id, message) in messages {
            self.send_alone(id, &message);
        }
    }

    /// At a node that joins: it is a member now. What it was handed is kept, so that a restart needs nothing else.
    ///
    /// # Errors
    /// If no cluster can have sent this.
    pub(super) fn handle_admission(&mut self, admission: Admission) -> Result<(), String> {
        let Admission { birth, members } = admission;
        if self.is_born() || self.joining.storing || !self.joining.is_joining() {
            return Ok(());
        }
        let me = Place { node: self.identity.node, storage: self.identity.storage_id, ..Place::default() };
        if !members.iter().any(|place| (place.node, place.storage) == (me.node, me.storage)) {
            return Err("it admits another node than this one".to_owned());
        }
        if !self.accepts_record(&birth)? {
            return Ok(());
        }
        self.joining.storing = true;
        let identity = Identity { birth: Some(birth), joined: members, ..self.identity.clone() };
        self.identity.joined.clone_from(&identity.joined);
        self.outputs.push(Output::StoreIdentity(Box::new(identity)));
        Ok(())
    }
}
