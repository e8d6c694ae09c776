//! How far a command is that takes more than one turn: what it has done, and what that comes to.

use super::directory::Position;
use super::glob::Pattern;
use super::reply::{Reply, TOO_LARGE};
use super::strings::Strings;
use bytes::Bytes;

/// The state of one command between two turns. A new one is at the command's beginning.
#[derive(Debug, Default)]
pub struct Progress {
    /// What comes before the command itself is done.
    pub(super) begun: bool,
    /// Keys, pairs or commands of the list that are done.
    pub(super) done: usize,
    /// What those come to.
    pub(super) count: i64,
    /// MSETNX: none of the keys exists.
    pub(super) checked: bool,
    /// Where a walk over keys goes on.
    pub(super) cursor: Option<Position>,
    pub(super) pattern: Option<Pattern>,
    pub(super) found: Strings,
    /// The replies of a transaction's commands, and what they hold, in bytes.
    pub(super) replies: Vec<Reply<'static>>,
    pub(super) reply_bytes: usize,
    /// Steps that a transaction's reads took.
    pub(super) read_steps: u64,
    /// The command inside, of a transaction of a session, or of an upload.
    pub(super) inner: Option<Box<Progress>>,
    /// A large command that came in parts.
    pub(super) whole: Option<Bytes>,
    /// The memory that the arguments are in, if values may share it.
    pub(super) arguments: Option<Bytes>,
}

impl Progress {
    /// The reply of a transaction's command, which is done, unless all of them together hold too much.
    pub(super) fn keep(&mut self, reply: Reply<'static>, bytes_max: usize) {
        let bytes = self.reply_bytes + reply.bytes();
        let fits = bytes <= bytes_max;
        if fits {
            self.reply_bytes = bytes;
        }
        self.replies.push(if fits { reply } else { TOO_LARGE });
        self.done += 1;
    }
}
