//! Tests of the store as clients see it: words in, exact replies out.

mod commands;
mod docs;
mod encoding;
mod expiry;
mod fanout;
mod frozen;
mod large;
mod long_values;
mod pieces;
mod rolling;
mod scan;
mod sessions;
mod uploads;

use super::command::Command;
use super::encode::{decode, encode};
use super::reply::Reply;
use super::table::lookup;
use super::{ExpiryPending, ParseContext, Store, StoreLimits, parse};
use crate::routing::SLOTS;
use bytes::BytesMut;
use groups::Ms;

pub(super) const HASH_KEY: [u8; 16] = *b"0123456789abcdef";
pub(super) const START_MS: Ms = Ms(1_700_000_000_000);

/// A store that owns every slot, and the clock of the node that asks it.
pub(super) struct Db {
    pub(super) store: Store,
    pub(super) now_ms: Ms,
}

impl Db {
    pub(super) fn new() -> Db {
        Db::with(StoreLimits::default())
    }

    pub(super) fn with(limits: StoreLimits) -> Db {
        let mut store = Store::new(HASH_KEY, 0..SLOTS, limits);
        store.begin(START_MS);
        Db { store, now_ms: START_MS }
    }

    /// Applies a request of space-separated words as the log does. Returns the reply.
    pub(super) fn ask(&mut self, request: &str) -> String {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        self.ask_words(&words)
    }

    pub(super) fn ask_words(&mut self, words: &[&[u8]]) -> String {
        match self.body(words) {
            Ok(body) => show(&self.store.apply(&body)),
            Err(error) => show(&error),
        }
    }

    /// Returns the reply to a request that only reads.
    pub(super) fn read(&self, request: &str) -> Result<String, ExpiryPending> {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let body = self.body(&words).expect("a valid request");
        self.store.read(&body, self.now_ms).map(|reply| show(&reply))
    }

    pub(super) fn body(&self, words: &[&[u8]]) -> Result<BytesMut, Reply<'static>> {
        let context = ParseContext { cluster_ms: self.now_ms, durations: true, seed: 7 };
        let command = parse(lookup(words)?, words, context)?;
        Ok(encoded(&command))
    }

    /// Advances the clock of the node and the time of the log.
    pub(super) fn pass(&mut self, ms: Ms) {
        self.now_ms += ms;
        self.store.begin(self.now_ms);
    }

    /// Asserts each request's reply; a line is `request -> reply`.
    #[track_caller]
    pub(super) fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (request, expected) = line.split_once(" -> ").expect("request -> reply");
            assert_eq!(self.ask(request.trim()), expected.trim(), "{request}");
        }
    }
}

/// Returns the encoding of a command, after checking that it decodes to the same command.
pub(super) fn encoded(command: &Command<'_>) -> BytesMut {
    let mut body = BytesMut::new();
    encode(command, &mut body);
    assert_eq!(decode(&body).as_ref(), Ok(command));
    body
}

/// Returns a reply in short: `OK`, `5`, `"text"`, `nil`, `[…]`, or the error.
pub(super) fn show(reply: &Reply<'_>) -> String {
    let list = |items: &[Reply<'_>]| format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "));
    match reply {
        Reply::Ok => "OK".to_owned(),
        Reply::Simple(text) => (*text).to_owned(),
        Reply::Int(number) => number.to_string(),
        Reply::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Reply::Long(value) => {
            format!("\"{}\"", value.slices().map(|slice| slice.escape_ascii().to_string()).collect::<String>())
        }
        Reply::Text(text) => format!("={text}"),
        Reply::Status(text) => text.clone(),
        Reply::Null => "nil".to_owned(),
        Reply::NullArray => "nil[]".to_owned(),
        Reply::Array(items) | Reply::Set(items) => list(items),
        Reply::Strings(strings) => list(&strings.iter().map(Reply::bulk).collect::<Vec<_>>()),
        Reply::Map(pairs) => {
            list(&pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect::<Vec<_>>())
        }
        Reply::Error(text) => text.to_string(),
    }
}
