//! Nodes that want to join. A new node dials any member, asks in its hello to join, and waits there. It is a member
//! once the groups have added it. Then a member hands it the birth record and the members' addresses. The node stores
//! both, and begins as a learner.

use super::ClusterContext;
use super::birth::accepts;
use crate::endpoint::Endpoint;
use crate::identity::Identity;
use crate::node::Output;
use crate::node::links::{is_contact, removed, send_alone};
use crate::node::peers::Roster;
use crate::node::wire::{Admission, Hello, NodeMessage, Refusal};
use groups::membership::MemberInfo;
use groups::{Ms, NodeId};
use net::event::ConnectionId;

/// Maximum number of nodes that wait to join at one member.
const WAITING_MAX: usize = 64;
/// Time after which a waiting node that has not repeated its hello is forgotten.
const WAITING_MS_MAX: Ms = Ms(10_000);

/// State of joining, on both sides.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// At the joining node: true while the node stores its admission.
    storing: bool,
    /// At a member: the nodes that wait to join.
    waiting: Vec<Waiting>,
}

/// A node that waits to be added.
#[derive(Debug)]
struct Waiting {
    info: MemberInfo,
    connection: Option<ConnectionId>,
    seen_ms: Ms,
}

impl Joining {
    /// Returns true while a joining node stores its admission.
    pub(super) fn is_storing(&self) -> bool {
        self.storing
    }

    /// Notes that the connection of a waiting node is closed.
    pub(super) fn on_cut(&mut self, connection: ConnectionId) {
        self.waiting.iter_mut().filter(|waiting| waiting.connection == Some(connection)).for_each(|waiting| {
            waiting.connection = None;
        });
    }

    /// Returns the waiting nodes, by id.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &MemberInfo> {
        self.waiting.iter().map(|waiting| &waiting.info)
    }

    /// At a member: forgets the nodes that have not repeated their hello in time.
    pub(super) fn tick(&mut self, now_ms: Ms) {
        self.waiting.retain(|waiting| now_ms < waiting.seen_ms + WAITING_MS_MAX);
    }

    /// At a member: takes the request of a node at `address` to join.
    ///
    /// # Errors
    /// The reason why the node cannot join.
    pub(super) fn handle_join_request(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        address: &str,
        cx: &mut ClusterContext<'_>,
    ) -> Result<(), Refusal> {
        let from = hello.node;
        let refuse = |fatal, text: String| Err(Refusal { fatal, text });
        let info = MemberInfo { node: from, storage: hello.storage, address: address.to_owned() };
        let (theirs, needed) = (hello.versions, cx.config.versions.value_version());
        if theirs.value_version() < needed {
            let text = format!(
                "node {from} speaks {theirs} of the peer protocol, and cannot read the values of version {needed} that \
                 this cluster has: start it with a newer program"
            );
            return refuse(true, text);
        }
        self.check(&info, cx.ports.peers.roster(), cx.identity.node).map_err(|text| Refusal { fatal: true, text })?;
        if self.waiting.len() >= WAITING_MAX {
            return refuse(false, format!("{WAITING_MAX} nodes wait to join already"));
        }
        let waiting = Waiting { info, connection: Some(id), seen_ms: cx.time.mono_ms() };
        match self.waiting.iter_mut().find(|known| known.info.node == from) {
            Some(known) => *known = waiting,
            None => {
                tracing::info!("node {from} at {address} waits to be added");
                self.waiting.push(waiting);
                self.waiting.sort_by_key(|waiting| waiting.info.node);
            }
        }
        self.admit(cx);
        Ok(())
    }

    fn check(&self, info: &MemberInfo, roster: &Roster, me: NodeId) -> Result<(), String> {
        let from = info.node;
        if roster.was_removed(from) || (roster.has_left(from) && roster.info(from).is_none()) {
            return Err(removed(from));
        }
        let taken =
            || format!("there is a node {from} already: start this one under another id, with an empty directory");
        if from == me || from.0 == 0 || is_contact(from) {
            return Err(taken());
        }
        if roster.info(from).is_some_and(|known| known.storage != info.storage) {
            return Err(taken());
        }
        if self.waiting().any(|known| known.node == from && known.storage != info.storage) {
            return Err(format!(
                "another node waits under the id {from}: start this one under another, with an empty directory"
            ));
        }
        if Endpoint::parse(&info.address).is_none() {
            return Err("the address of the joining node is not HOST:PORT".to_owned());
        }
        Ok(())
    }

    /// Sends an admission to each waiting node that is a member by now.
    pub(super) fn admit(&mut self, cx: &mut ClusterContext<'_>) {
        let Some(birth) = &cx.identity.birth else { return };
        let roster = cx.ports.peers.roster();
        let mut admitted = Vec::new();
        self.waiting.retain(|waiting| {
            let is_member = roster.info(waiting.info.node).is_some_and(|known| known.storage == waiting.info.storage);
            admitted.extend(waiting.connection.filter(|_| is_member));
            !is_member || waiting.connection.is_none()
        });
        let admission = || Admission { birth: birth.clone(), members: roster.infos().to_vec() };
        for id in admitted {
            send_alone(id, false, &NodeMessage::Admission(admission()), cx.ports.outputs);
        }
    }

    /// At a joining node: takes its admission as a member, and stores the birth record and the members. A restart needs
    /// nothing else.
    ///
    /// # Errors
    /// If no cluster can have sent this admission.
    pub(super) fn handle_admission(&mut self, admission: Admission, cx: &mut ClusterContext<'_>) -> Result<(), String> {
        let Admission { birth, members } = admission;
        if cx.is_born || self.storing || !cx.is_joining() {
            return Ok(());
        }
        let me = (cx.identity.node, cx.identity.storage_id);
        if !members.iter().any(|info| (info.node, info.storage) == me) {
            return Err("the admission is for another node".to_owned());
        }
        if !accepts(&birth, cx)? {
            return Ok(());
        }
        self.storing = true;
        let identity = Identity { birth: Some(birth), joined: members, ..cx.identity.clone() };
        cx.identity.joined.clone_from(&identity.joined);
        cx.ports.outputs.push(Output::StoreIdentity(Box::new(identity)));
        Ok(())
    }
}
