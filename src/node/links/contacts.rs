//! The contacts at which a joining node asks to be added. At first only their addresses are known. Until a contact says
//! its id, this node uses a placeholder for it: an id that no node has.

use groups::{Ms, NodeId};
use net::backoff::Backoff;
use net::event::ConnectionId;

/// Interval at which a waiting node repeats its request to join.
const JOIN_REQUEST_MS: Ms = Ms(3_000);
/// Maximum number of contacts.
const CONTACTS_MAX: usize = 64;

/// The contacts that this node was given with `--join`, at most [`CONTACTS_MAX`].
#[derive(Default)]
pub(super) struct Contacts(Vec<Contact>);

struct Contact {
    address: String,
    backoff: Backoff,
    connection: Option<ConnectionId>,
    since_ms: Ms,
}

/// Returns the id that stands for contact number `index`.
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
            since_ms: Ms(0),
        };
        Contacts(addresses.iter().take(CONTACTS_MAX).enumerate().map(contact).collect())
    }

    /// Notes that a connection to a contact is being made, or could not begin.
    pub(super) fn on_dialling(&mut self, to: NodeId, connection: Option<ConnectionId>, now_ms: Ms) {
        let Some(contact) = self.0.get_mut((u32::MAX - to.0) as usize) else { return };
        (contact.connection, contact.since_ms) = (connection, now_ms);
        if connection.is_none() {
            contact.backoff.on_failure(now_ms.0);
        }
    }

    /// Notes that a contact has said its id.
    pub(super) fn on_hello(&mut self, connection: ConnectionId) {
        if let Some(contact) = self.0.iter_mut().find(|contact| contact.connection == Some(connection)) {
            contact.backoff.on_success();
        }
    }

    /// Notes that a connection is closed.
    pub(super) fn on_cut(&mut self, connection: ConnectionId, now_ms: Ms) {
        if let Some(contact) = self.0.iter_mut().find(|contact| contact.connection == Some(connection)) {
            contact.connection = None;
            contact.backoff.on_failure(now_ms.0);
        }
    }

    /// Returns the connections that must be made again, so that this node repeats its request to join.
    pub(super) fn late(&self, now_ms: Ms) -> Vec<ConnectionId> {
        let late = self.0.iter().filter(|contact| now_ms >= contact.since_ms + JOIN_REQUEST_MS);
        late.filter_map(|contact| contact.connection).collect()
    }

    /// Returns the contacts to dial now, and their addresses.
    pub(super) fn due(&mut self, now_ms: Ms) -> Vec<(NodeId, String)> {
        let due = self.0.iter_mut().enumerate();
        let due = due.filter(|(_, contact)| contact.connection.is_none() && contact.backoff.is_due(now_ms.0));
        due.map(|(index, contact)| (contact_id(index), contact.address.clone())).collect()
    }
}
