//! Commands, from words to state. A command that parses means the same after it is encoded and decoded. Two stores
//! apply the same bytes, valid or not. One of them applies each command over as many turns as possible. Both must give
//! equal replies and end in equal states.

use super::{choice, piece};
use bytes::BytesMut;
use groups::{Ms, WorkBudget};
use paxoi::kv::command::Command;
use paxoi::kv::encode::{decode, encode};
use paxoi::kv::reply::Reply;
use paxoi::kv::table::lookup;
use paxoi::kv::{ParseContext, Store, StoreLimits, parse};
use paxoi::routing::SLOTS;

const HASH_KEY: [u8; 16] = *b"0123456789abcdef";
const START_MS: Ms = Ms(1_700_000_000_000);
/// Maximum bytes of a value: small, so that no command costs much, and limits are reached.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// Runs a sequence of steps. The first byte of each step chooses its kind: a line of words separated by spaces, a body
/// as another node might send it, or an advance of the clock.
pub fn run(mut data: &[u8]) {
    let (mut one, mut other, mut now_ms) = (store(), store(), START_MS);
    while !data.is_empty() {
        let chosen = choice(&mut data);
        if chosen & 0x80 != 0 {
            now_ms += Ms(u64::from(chosen & 0x7f) * 100);
            one.begin(now_ms);
            other.begin(now_ms);
            continue;
        }
        let raw = chosen == 0;
        let length = if raw { usize::from(choice(&mut data)) } else { line_length(data) };
        let bytes = piece(&mut data, length);
        piece(&mut data, usize::from(!raw));
        let body = if raw { Some(BytesMut::from(bytes)) } else { parsed(bytes, now_ms) };
        let Some(body) = body else { continue };
        if let Ok(command) = decode(&body) {
            expect_same(&command);
            // A read changes nothing, and must not panic either.
            let _ = (!command.is_write()).then(|| one.read(&body, now_ms).is_ok());
        }
        assert_eq!(one.apply(&body), in_pieces(&mut other, &body), "two answers to {body:?}");
    }
    assert_eq!(one.digest(), other.digest(), "two states");
    assert_eq!((one.len(), one.bytes()), (other.len(), other.bytes()));
}

/// Applies a command over as many turns as possible.
fn in_pieces(store: &mut Store, body: &[u8]) -> Reply<'static> {
    loop {
        if let Some(reply) = store.apply_some(body, true, &mut WorkBudget::steps(1)) {
            return reply.into_owned();
        }
    }
}

fn store() -> Store {
    let mut store =
        Store::new(HASH_KEY, 0..SLOTS, StoreLimits { value_bytes_max: VALUE_BYTES_MAX, ..StoreLimits::default() });
    store.begin(START_MS);
    store
}

fn line_length(data: &[u8]) -> usize {
    data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len())
}

/// Returns the encoding of the command in a line of words, if it parses.
fn parsed(line: &[u8], unix_ms: Ms) -> Option<BytesMut> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let command =
        parse(lookup(&words).ok()?, &words, ParseContext { cluster_ms: unix_ms, durations: true, seed: 7 }).ok()?;
    Some(expect_same(&command))
}

/// Returns the encoding of a command, which must decode to the same command.
fn expect_same(command: &Command<'_>) -> BytesMut {
    let mut body = BytesMut::new();
    encode(command, &mut body);
    assert_eq!(decode(&body).as_ref(), Ok(command), "not what was encoded");
    body
}
