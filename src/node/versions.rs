//! How members of two versions get along: the version that two nodes speak, and the version of values that this node may
//! propose. [`crate::versions`] has the table.

use super::Node;
use super::wire::Hello;

impl Node {
    /// The version to speak with a node that has said hello.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn common_version(&self, hello: &Hello) -> Result<u16, String> {
        let (me, own, from, theirs) = (self.identity.node, self.config.versions, hello.node, hello.versions);
        own.common(theirs).ok_or_else(|| {
            format!(
                "node {from} speaks {theirs} of the peer protocol, but node {me} speaks {own}: \
                 upgrade through a version that speaks both"
            )
        })
    }

    /// The version of values that this node may propose: the highest that every member can read, as far as is known. One
    /// that was not seen since this node started counts as the oldest.
    pub(super) fn value_version(&self) -> u8 {
        self.peers.value_version(self.config.versions.value_version())
    }

    /// A member may speak another version now: its groups learn what they can propose.
    pub(super) fn settle_value_version(&mut self) {
        let tell = self.value_version() >= 2;
        self.step_all(|group, _| group.tell_digest(tell));
    }
}
