//! Where a node that joins asks to be let in. Only addresses are known: until a contact says who it is it goes by an id that
//! no node has.

use groups::NodeId;
use net::peers::Backoff;

/// A node that waits says so again after so long.
const APPLY_MS: u64 = 3_000;
/// Addresses to join at.
const CONTACTS_MAX: usize = 64;

/// The addresses that this node was told to join at, at most 64.
#[derive(Default)]
pub(super) struct Contacts(Vec<Contact>);

struct Contact {
    address: String,
    backoff: Backoff,
    connection: Option<u64>,
    since_ms: u64,
}

/// The id that contact number `index` goes by.
fn contact_id(index: usize) -> NodeId {
    NodeId(u32::MAX - index as u32)
}

/// Returns true if this is the id of a contact.
pub(in crate::node) fn is_contact(id: NodeId) -> bool {
    id >= contact_id(CONTACTS_MAX)
}

impl Contacts {
    pub(super) fn new(addresses: &[String], seed: u64) -> Contacts {
        let contact = |(index, address): (usize, &String)| Contact {
            address: address.clone(),
            backoff: Backoff::new(seed ^ index as u64),
            connection: None,
            since_ms: 0,
        };
        Contacts(addresses.iter().take(CONTACTS_MAX).enumerate().map(contact).collect())
    }

    /// A connection to a contact is being made, or could not be.
    pub(super) fn on_dialling(&mut self, to: NodeId, connection: Option<u64>, now_ms: u64) {
        let Some(contact) = self.0.get_mut((u32::MAX - to.0) as usize) else { return };
        (contact.connection, contact.since_ms) = (connection, now_ms);
        if connection.is_none() {
            contact.backoff.on_failure(now_ms);
        }
    }

    /// A contact has said who it is.
    pub(super) fn on_hello(&mut self, connection: u64) {
        if let Some(contact) = self.0.iter_mut().find(|contact| contact.connection == Some(connection)) {
            contact.backoff.on_success();
        }
    }

    /// A connection is gone.
    pub(super) fn on_cut(&mut self, connection: u64, now_ms: u64) {
        if let Some(contact) = self.0.iter_mut().find(|contact| contact.connection == Some(connection)) {
            contact.connection = None;
            contact.backoff.on_failure(now_ms);
        }
    }

    /// Connections that are to be made anew, so that this node says again that it waits.
    pub(super) fn late(&self, now_ms: u64) -> Vec<u64> {
        let late = self.0.iter().filter(|contact| now_ms >= contact.since_ms + APPLY_MS);
        late.filter_map(|contact| contact.connection).collect()
    }

    /// The contacts to dial now, and where.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<(NodeId, String)> {
        let due = self.0.iter_mut().enumerate();
        let due = due.filter(|(_, contact)| contact.connection.is_none() && contact.backoff.is_due(now_ms));
        due.map(|(index, contact)| (contact_id(index), contact.address.clone())).collect()
    }
}
