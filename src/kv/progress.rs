//! The progress of a command that takes more than one turn: the part that is done, and its results.

use super::directory::KeyPosition;
use super::glob::Pattern;
use super::reply::{Reply, TOO_LARGE};
use super::strings::Strings;
use bytes::Bytes;

/// The state of one command between two turns. A new one is at the command's beginning.
#[derive(Debug, Default)]
pub struct CommandProgress {
    /// True if `Store::begin_command` has run for this command.
    pub(super) begun: bool,
    /// Keys, pairs or commands of the list that are done.
    pub(super) done: usize,
    /// The command's integer result so far, such as the number of keys that DEL has removed.
    pub(super) count: i64,
    /// MSETNX: true if none of the keys exists.
    pub(super) checked: bool,
    /// The position at which a walk over keys continues.
    pub(super) cursor: Option<KeyPosition>,
    pub(super) pattern: Option<Pattern>,
    pub(super) found: Strings,
    /// The replies of a transaction's commands.
    pub(super) replies: Vec<Reply<'static>>,
    /// Bytes of these replies.
    pub(super) reply_bytes: usize,
    /// Steps that a transaction's reads took.
    pub(super) read_steps: u64,
    /// The progress of the command inside a transaction, a ONCE or an upload.
    pub(super) inner: Option<Box<CommandProgress>>,
    /// The whole of an upload (a large command that came in parts).
    pub(super) whole: Option<Bytes>,
    /// The memory of the arguments, if values may share it.
    pub(super) arguments: Option<Bytes>,
}

impl CommandProgress {
    /// Keeps the reply of a transaction's command, which is done. An error replaces it if all replies together exceed
    /// `bytes_max`.
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
