//! The versions of the peer protocol that a node speaks. A hello names the lowest and the highest. Two nodes use the
//! highest version that both speak, or disconnect with a line that says why. So members can be upgraded one by one.
//!
//! ```text
//! 1   the first
//! 2   values that carry the digest of the state before them (version 2 of values)
//! 3   pings that tell the sender's clocks; commands that hold durations, and INCRBYFLOAT with the arithmetic of Redis
//!     (version 3 of values);
//!     commands that another member executes (`relay`); large messages in fragments
//! 4   large commands in parts (version 4 of values)
//! ```
//!
//! Chosen values go to every member and stay in their logs. So a new version of values is proposed only when all
//! members were last seen to speak a version that has it. Other changes depend only on the version of one connection.

use serde::{Deserialize, Serialize};
use std::fmt;

/// All versions from the lowest to the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The lowest.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

impl Versions {
    /// The versions that this program speaks.
    pub const OURS: Versions = Versions { lowest: 1, highest: 4 };
    /// The first version in which pings tell clocks.
    pub const CLOCKS: u16 = 3;
    /// The first version in which large messages travel in fragments.
    pub const FRAGMENTS: u16 = 3;
    /// The first version in which members execute commands for each other.
    pub const RELAYS: u16 = 3;
    /// The versions of a node that does not name any.
    pub const FIRST: Versions = Versions { lowest: 1, highest: 1 };

    /// Returns the version that two nodes use, if both speak one.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest > 0 && highest >= self.lowest.max(other.lowest)).then_some(highest)
    }

    /// Parses `1-2`, or `2` alone. Returns `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Versions> {
        let (lowest, highest) = text.split_once('-').unwrap_or((text, text));
        let versions = Versions { lowest: lowest.parse().ok()?, highest: highest.parse().ok()? };
        (versions.lowest > 0 && versions.lowest <= versions.highest).then_some(versions)
    }

    /// Returns the highest version of values that nodes with these versions can read.
    #[must_use]
    pub fn value_version(self) -> u8 {
        u8::try_from(self.highest).map_or(groups::VALUE_VERSION_MAX, |version| version.min(groups::VALUE_VERSION_MAX))
    }
}

/// Returns the versions of a node that does not name any.
impl Default for Versions {
    fn default() -> Versions {
        Versions::FIRST
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            return write!(f, "version {}", self.lowest);
        }
        write!(f, "versions {} to {}", self.lowest, self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(lowest: u16, highest: u16) -> Versions {
        Versions { lowest, highest }
    }

    #[test]
    fn the_highest_that_both_speak_is_used() {
        for (one, other, common) in [
            (versions(1, 2), versions(1, 1), Some(1)),
            (versions(1, 2), versions(2, 9), Some(2)),
            (versions(2, 3), versions(1, 4), Some(3)),
            (versions(1, 2), versions(3, 4), None),
            // Ranges that no program announces.
            (versions(1, 2), versions(2, 1), None),
            (versions(1, 2), versions(0, 0), None),
            (versions(1, 2), versions(0, u16::MAX), Some(2)),
        ] {
            assert_eq!((one.common(other), other.common(one)), (common, common), "{one} and {other}");
        }
    }

    #[test]
    fn ranges_are_read_as_they_are_written() {
        assert_eq!((Versions::parse("1-2"), Versions::parse("3")), (Some(versions(1, 2)), Some(versions(3, 3))));
        assert!(["", "0", "2-1", "a", "1-", "1-2-3"].into_iter().all(|text| Versions::parse(text).is_none()));
        assert_eq!(
            (versions(1, 2).to_string(), versions(2, 2).to_string()),
            ("versions 1 to 2".into(), "version 2".into())
        );
    }
}
