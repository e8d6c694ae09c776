//! Benchmark of writing a group to a checkpoint while commands go on: the longest steps, and the throughput. A mean
//! hides the longest steps, so this prints percentiles: `cargo bench --bench freezing`, with `PAXOI_KEYS` for another
//! number of keys. It first measures blocks in memory, then checkpoint files, which it writes to the system's
//! directory for temporary files.

use bytes::BytesMut;
use groups::{Ballot, DedupTable, GroupId, Instance, Membership, Ms, NodeId, Snapshot};
use hdrhistogram::Histogram;
use paxoi::kv::encode::encode;
use paxoi::kv::{BlockCheck, Installation, ParseContext, Store, StoreLimits, parse, table};
use paxoi::rng::Rng;
use paxoi::routing::SLOTS;
use paxoi::storage::checkpoint::{
    CheckpointSequence, CheckpointWriter, Header, Packing, SectionHead, checkpoint_name, verify,
};
use paxoi::storage::disk::{Disk, FileDisk};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 64;
const BLOCK_BYTES: usize = 64 << 10;
/// Overwrites of random keys between two blocks.
const BATCH: u64 = 100;
const HASH_KEY: [u8; 16] = [7; 16];

fn main() -> io::Result<()> {
    let keys = std::env::var("PAXOI_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(KEYS);
    let mut out = io::stdout().lock();
    let (mut store, mut rng) = (Store::new(HASH_KEY, 0..SLOTS, StoreLimits::default()), Rng::new(1));
    (0..keys).for_each(|number| set(&mut store, number, b'a'));

    let mut calm = Times::new();
    for _ in 0..2_000 {
        calm.take(|| (0..BATCH).for_each(|_| set(&mut store, rng.below(keys), b'b')));
    }
    calm.print("100 SETs, not frozen", &mut out)?;

    let started = Instant::now();
    store.freeze();
    writeln!(out, "{:<28}{:>10.1} us", "freeze", micros(started.elapsed()))?;
    let (mut writes, mut cuts, mut blocks, mut aside_max) = (Times::new(), Times::new(), Vec::new(), 0);
    while let Some(block) = cuts.take(|| store.next_block(BLOCK_BYTES)) {
        blocks.push(block);
        writes.take(|| (0..BATCH).for_each(|_| set(&mut store, rng.below(keys), b'c')));
        aside_max = aside_max.max(store.aside_bytes());
    }
    let started = Instant::now();
    store.thaw();
    writeln!(out, "{:<28}{:>10.1} us", "thaw", micros(started.elapsed()))?;
    writes.print("100 SETs, frozen", &mut out)?;
    cuts.print("a block of 64 KiB", &mut out)?;
    let bytes: usize = blocks.iter().map(Vec::len).sum();
    rate("blocks out", bytes, cuts.total, &mut out)?;
    writeln!(out, "{:<28}{:>10} KiB of {} KiB", "put aside at most", aside_max >> 10, bytes >> 10)?;

    let (mut installation, started) = (Installation::new(HASH_KEY, 0..SLOTS, StoreLimits::default()), Instant::now());
    for block in &blocks {
        installation.install_block(block).map_err(io::Error::other)?;
    }
    rate("blocks in", bytes, started.elapsed(), &mut out)?;
    black_box(installation.finish());
    for packing in [Packing::Plain, Packing::Lz4] {
        files(packing, &blocks, bytes, &mut out)?;
    }
    Ok(())
}

/// Writes a checkpoint of one group and verifies it. The rates count the bytes of its blocks, not of the file.
fn files(packing: Packing, blocks: &[Vec<u8>], bytes: usize, out: &mut dyn Write) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::existing(folder.path())?);
    let header = Header { groups: 1, cluster_id: [1; 16], hash_key: HASH_KEY, sequence: CheckpointSequence(1) };
    let (instance, chosen, dedup) = (Instance(1), Ballot::ZERO, DedupTable::default());
    let membership = Membership::of_ids([NodeId(1)].into_iter());
    let state = Snapshot { instance, chosen, chain: 0, time_ms: Ms(0), digest: 0, dedup, membership };
    let head = SectionHead { group: GroupId(0), state };
    let mut check = BlockCheck::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
    blocks.iter().try_for_each(|block| check.check(block)).map_err(io::Error::other)?;
    let digest = check.digest().unwrap_or(0);
    let started = Instant::now();
    let write = || {
        let mut writer = CheckpointWriter::create(Arc::clone(&disk), header, packing)?;
        writer.begin(&head)?;
        blocks.iter().try_for_each(|block| writer.block(block))?;
        writer.end(digest)?;
        writer.finish()
    };
    let file_bytes = write().map_err(io::Error::other)?;
    rate(&format!("write a file, {packing:?}"), bytes, started.elapsed(), out)?;
    let started = Instant::now();
    verify(&*disk, &checkpoint_name(CheckpointSequence(1))).map_err(io::Error::other)?;
    rate(&format!("verify a file, {packing:?}"), bytes, started.elapsed(), out)?;
    writeln!(out, "{:<28}{:>10} KiB", format!("size of a file, {packing:?}"), file_bytes >> 10)
}

fn set(store: &mut Store, number: u64, fill: u8) {
    let key = format!("key:{number:012}");
    let words: [&[u8]; 3] = [b"SET", key.as_bytes(), &[fill; VALUE_BYTES]];
    let spec = table::lookup(&words).expect("SET is a command");
    let command =
        parse(spec, &words, ParseContext { cluster_ms: Ms(1), durations: true, seed: 1 }).expect("it is well formed");
    let mut body = BytesMut::new();
    encode(&command, &mut body);
    black_box(store.apply(&body));
}

/// Returns the CPU time of this thread. With wall-clock time on a busy machine, the longest step would merely be one
/// that had waited for a processor.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// CPU times of steps, in nanoseconds.
struct Times {
    histogram: Histogram<u64>,
    total: Duration,
}

impl Times {
    fn new() -> Times {
        let histogram = Histogram::new_with_max(60_000_000_000, 3).expect("three digits are valid");
        Times { histogram, total: Duration::ZERO }
    }

    fn take<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let started = cpu_time();
        let result = step();
        let took = cpu_time() - started;
        self.total += took;
        self.histogram.saturating_record(took.as_nanos() as u64);
        result
    }

    fn print(&self, what: &str, out: &mut dyn Write) -> io::Result<()> {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        writeln!(
            out,
            "{what:<28}{:>10.1} us p50 {:>10.1} us p99 {:>10.1} us max, of {}",
            at(0.5),
            at(0.99),
            self.histogram.max() as f64 / 1_000.0,
            self.histogram.len()
        )
    }
}

fn rate(what: &str, bytes: usize, took: Duration, out: &mut dyn Write) -> io::Result<()> {
    let mib = bytes as f64 / f64::from(1 << 20);
    writeln!(out, "{what:<28}{:>10.0} MiB/s ({mib:.0} MiB)", mib / took.as_secs_f64())
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}
