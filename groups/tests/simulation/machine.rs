//! The state machine of the simulated groups: the list of all applied commands. A command consists of its name only.

use groups::{Ms, StateMachine};

/// A command: the node that received it, that node's start number, and a count over the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) origin: u32,
    pub(crate) start: u32,
    pub(crate) count: u64,
}

impl Name {
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.origin.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    fn parse(body: &[u8]) -> Name {
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
        Name { origin: word(0), start: word(4), count: u64::from_le_bytes(body[8..].try_into().unwrap()) }
    }
}

/// The commands applied, in order.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) names: Vec<Name>,
    pub(crate) time_ms: Ms,
    /// CRC-32C of all times and commands so far.
    pub(crate) digest: u32,
}

impl StateMachine for Machine {
    /// Number of applied commands, including this one.
    type Reply<'a> = usize;

    fn begin(&mut self, time_ms: Ms) {
        assert!(time_ms >= self.time_ms, "time went back from {} to {time_ms}", self.time_ms);
        self.time_ms = time_ms;
        self.digest = crc32c::crc32c_append(self.digest, &time_ms.0.to_le_bytes());
    }

    fn digest(&self) -> u64 {
        u64::from(self.digest)
    }

    fn apply(&mut self, body: &[u8]) -> usize {
        let name = Name::parse(body);
        let last = self.names.iter().rev().find(|other| other.origin == name.origin);
        assert!(last.is_none_or(|last| *last < name), "{name:?} was applied after {last:?}");
        self.names.push(name);
        self.digest = crc32c::crc32c_append(self.digest, body);
        self.names.len()
    }
}
