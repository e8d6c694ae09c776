//! Benchmarks of the paths that every command takes, one by one: the cost of a request before and after it is decided.
//!
//! `cargo bench` prints times per command or per batch; compare runs on the same quiet machine only.

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use groups::message::Accept;
use groups::paxos::{Fate, Paxos};
use groups::{Ballot, CommandId, Counter, Instance, Members, Message, Ms, NodeId, Value, ValueBuilder, put_command};
use net::frame::{self, FrameWriter, Purpose};
use net::outbound::Outbound;
use net::resp::Protocol;
use net::resp::request::{RequestLimits, RequestParser};
use paxoi::kv::encode::encode;
use paxoi::kv::reply::Reply;
use paxoi::kv::{ParseContext, Store, StoreLimits, parse, table};
use paxoi::routing;
use std::hint::black_box;

const KEYS: usize = 10_000;
const BATCH: usize = 100;
/// Decided slots of the lab peer whose `tick` is measured.
const DECIDED: u64 = 300_000;

fn key(number: usize) -> String {
    format!("key:{number:012}")
}

/// Returns a value of `BATCH` commands `SET key 64-bytes`.
fn value() -> Value {
    let mut builder = ValueBuilder::default();
    for number in 0..BATCH {
        let id = CommandId { origin: NodeId(1), start: 1, counter: Counter(number as u64 + 1) };
        put_command(builder.commands_mut(), id, |out| set(&key(number * 97 % KEYS), out));
    }
    builder.seal(0, Ms(1), Some(0))
}

fn set(key: &str, out: &mut BytesMut) {
    let words: [&[u8]; 3] = [b"SET", key.as_bytes(), &[b'x'; 64]];
    let spec = table::lookup(&words).expect("SET is a command");
    let command =
        parse(spec, &words, ParseContext { cluster_ms: Ms(1), durations: true, seed: 1 }).expect("it is well formed");
    encode(&command, out);
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    group.throughput(Throughput::Elements(1));
    let request = format!("*3\r\n$3\r\nSET\r\n$16\r\n{}\r\n$64\r\n{}\r\n", key(1), "x".repeat(64));
    let mut parser = RequestParser::new(RequestLimits::default());
    group.bench_function("find the words of SET", |b| b.iter(|| parser.poll(black_box(request.as_bytes()))));
    let (key, mut out) = (key(1), BytesMut::new());
    group.bench_function("look up, parse and encode SET", |b| {
        b.iter(|| {
            out.clear();
            set(black_box(&key), &mut out);
        });
    });
    group.bench_function("slot of a key", |b| b.iter(|| routing::slot(black_box(key.as_bytes()))));
    let mut out = Outbound::new();
    group.bench_function("write a bulk reply", |b| {
        b.iter(|| {
            out.clear();
            Reply::bulk(black_box(&[b'x'; 64])).write(Protocol::Resp2, &mut out);
        });
    });
    group.finish();
}

fn values(c: &mut Criterion) {
    let mut group = c.benchmark_group("value of 100 SETs");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (value, mut store) = (value(), Store::new([7; 16], 0..routing::SLOTS, StoreLimits::default()));
    group.bench_function("apply", |b| {
        b.iter(|| {
            store.begin(Ms(1));
            value.commands().for_each(|command| drop(black_box(store.apply(command.body))));
        });
    });
    group.bench_function("check and chain", |b| {
        b.iter(|| Value::parse(black_box(value.bytes().clone())).map(|value| value.next_chain()));
    });
    let ballot = Ballot { round: 9, node: NodeId(1) };
    let accept = Message::Accept(Accept { ballot, instance: Instance(7), chosen: ballot, value });
    let frame = |accept: &Message| -> Vec<Bytes> {
        let mut writer = FrameWriter::new(Purpose::Live);
        writer.message(3, accept.kind(), |out| accept.encode_head(out));
        let mut pieces = Vec::new();
        writer.finish(&mut pieces);
        pieces
    };
    group.bench_function("into a frame", |b| b.iter(|| frame(black_box(&accept))));
    let bytes = frame(&accept).concat();
    group.bench_function("out of a frame", |b| {
        b.iter_batched(
            || BytesMut::from(&bytes[..]),
            |mut input| {
                let frame = frame::decode(&mut input, 1 << 20).expect("it is sound").expect("it is whole");
                frame.messages().flatten().filter(|m| Message::decode(m.kind, &m.body).is_ok()).count()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Measures `tick` of a peer of the lab's API that holds all decisions, because `done` was never called.
fn lab(c: &mut Criterion) {
    let mut peer = Paxos::new(NodeId(1), Members::new(vec![NodeId(1)]), 1);
    (0..DECIDED).for_each(|seq| peer.start(seq, b"value"));
    let mut now_ms = Ms(0);
    peer.tick(now_ms);
    assert!(matches!(peer.status(DECIDED - 1), Fate::Decided(_)));
    c.bench_function("tick of a lab peer with 300,000 decided slots", |b| {
        b.iter(|| {
            now_ms += Ms(20);
            peer.tick(now_ms);
        });
    });
}

criterion_group!(benches, requests, values, lab);
criterion_main!(benches);
