//! Which versions of the peer protocol a node speaks. A hello names the lowest and the highest; two nodes use the highest
//! that both speak, or part with a line that says why. So members are upgraded one by one.
//!
//! ```text
//! 1   the first
//! 2   values that carry the digest of the state before them (version 2 of values)
//! 3   pings that tell the sender's clocks; commands that hold durations, or count as Redis does (version 3 of values);
//!     commands that another member executes (`relay`); large messages in fragments
//! 4   large commands in parts (version 4 of values)
//! ```
//!
//! What is chosen goes to every member and stays in their logs, so a new version of values is proposed only when all
//! members were last seen to speak a version that has it; other news concern one connection only, and its version.

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
    /// What this program speaks.
    pub const OURS: Versions = Versions { lowest: 1, highest: 4 };
    /// The first in which pings tell clocks.
    pub const CLOCKS: u16 = 3;
    /// The first in which large messages travel in fragments.
    pub const FRAGMENTS: u16 = 3;
    /// The first in which members carry commands out for each other.
    pub const RELAYS: u16 = 3;
    /// What those speak who do not say.
    pub const FIRST: Versions = Versions { lowest: 1, highest: 1 };

    /// The version that two nodes use.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest > 0 && highest >= self.lowest.max(other.lowest)).then_some(highest)
    }

    /// `1-2`, or `2` alone; `None` if it is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Versions> {
        let (lowest, highest) = text.split_once('-').unwrap_or((text, text));
        let versions = Versions { lowest: lowest.parse().ok()?, highest: highest.parse().ok()? };
        (versions.lowest > 0 && versions.lowest <= versions.highest).then_some(versions)
    }

    /// The highest version of values that nodes which speak these can read.
    #[must_use]
    pub fn value_version(self) -> u8 {
        u8::try_from(self.highest).map_or(groups::VALUE_VERSION_MAX, |version| version.min(groups::VALUE_VERSION_MAX))
    }
}

/// Of those who do not say.
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
            // What nobody can mean.
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
