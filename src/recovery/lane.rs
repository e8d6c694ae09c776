//! Lanes: some of the groups each, with their checkpoints and their records in order.

use super::Progress;
use crate::background;
use crate::checkpoint::Shelf;
use crate::log::{Record, RecordKind};
use crate::shard::{self, Cell};
use bytes::Bytes;
use groups::{Clock, Effect, GroupId, Instance};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{Builder, scope};

/// Some of the groups.
pub(super) struct Lane<'s> {
    /// In ascending order; every so many-th group is here.
    cells: Vec<(GroupId, &'s mut Cell)>,
    clock: Clock,
    value_version: u8,
    effects: Vec<Effect>,
    found: Found,
}

/// What a lane found beside the state of its groups.
#[derive(Default)]
pub(super) struct Found {
    pub(super) kept: Vec<(GroupId, Instance, u64)>,
    pub(super) damaged: Vec<u64>,
    pub(super) bytes: u64,
    /// The first record that cannot be.
    pub(super) refused: Option<String>,
}

impl<'s> Lane<'s> {
    pub(super) fn new(clock: Clock, value_version: u8) -> Lane<'s> {
        Lane { cells: Vec::new(), clock, value_version, effects: Vec::new(), found: Found::default() }
    }

    pub(super) fn add(&mut self, group: GroupId, cell: &'s mut Cell) {
        self.cells.push((group, cell));
    }

    /// Takes the newest states out of the checkpoints.
    fn load(&mut self, shelf: Option<&Shelf>, progress: &Progress) {
        let Some(shelf) = shelf else { return };
        for (group, cell) in &mut self.cells {
            if let Some((loaded, bytes)) = shelf.newest(*group, &mut self.found.damaged) {
                self.found.kept.push((*group, loaded.state.instance, loaded.sequence));
                self.found.bytes += bytes;
                cell.restore_checkpoint(loaded.state, loaded.store, self.clock);
            }
            progress.advance(shelf.bytes(*group));
        }
    }

    /// Takes one record back, if none before was refused.
    fn take(&mut self, lsn: u64, record: Record, lanes: usize) {
        if self.found.refused.is_none() {
            self.found.refused = self.restore(lsn, record, lanes).err();
        }
    }

    fn restore(&mut self, lsn: u64, record: Record, lanes: usize) -> Result<(), String> {
        let (group, instance) = (record.group, record.instance);
        if matches!(record.kind, RecordKind::Accept | RecordKind::Learned)
            && let Some(&version) = record.payload.first()
            && version > self.value_version
        {
            return Err(format!(
                "the log has a value of version {version} in group {group}, which this version of the program cannot \
                 read: start the one that wrote it, or a later one"
            ));
        }
        let Some(record) = shard::unlogged(record) else {
            return Err(format!("the log's value of group {group} at instance {instance} is not one"));
        };
        let (_, cell) = &mut self.cells[group.index() / lanes];
        cell.restore(lsn, record, self.clock, &mut self.effects).map_err(|error| format!("group {group}: {error}"))
    }
}

/// One lane, on the calling thread.
pub(super) fn in_line<R>(
    mut lane: Lane<'_>,
    shelf: Option<&Shelf>,
    progress: &Progress,
    sort: &mut dyn FnMut(&Record) -> Option<usize>,
    feed: impl FnOnce(&mut dyn FnMut(u64, Record)) -> R,
) -> (R, Vec<Found>) {
    lane.load(shelf, progress);
    let fed = feed(&mut |lsn, record| {
        if sort(&record).is_some() {
            lane.take(lsn, record, 1);
        }
    });
    (fed, vec![lane.found])
}

/// A thread for each lane, beside the calling one.
///
/// # Errors
/// If the system gives no thread.
pub(super) fn side_by_side<R>(
    lanes: Vec<Lane<'_>>,
    shelf: Option<&Shelf>,
    progress: &Progress,
    sort: &mut dyn FnMut(&Record) -> Option<usize>,
    feed: impl FnOnce(&mut dyn FnMut(u64, Record)) -> R,
) -> io::Result<(R, Vec<Found>)> {
    let count = lanes.len();
    let queued = Queued::default();
    scope(|scope| {
        let mut threads = Vec::new();
        let mut dealer = Dealer { parcels: Vec::new(), queued: &queued };
        for mut lane in lanes {
            let (sender, parcels) = channel::<Parcel>();
            dealer.parcels.push((sender, Parcel::default()));
            let queued = &queued;
            let work = move || {
                background::give_way();
                lane.load(shelf, progress);
                for parcel in parcels {
                    let bytes = parcel.bytes;
                    parcel.open(|lsn, record| lane.take(lsn, record, count));
                    queued.done(bytes);
                }
                lane.found
            };
            threads.push(Builder::new().name("paxoi-lane".to_owned()).spawn_scoped(scope, work)?);
        }
        let fed = feed(&mut |lsn, record| {
            if let Some(lane) = sort(&record) {
                dealer.deal(lane, lsn, record);
            }
        });
        dealer.finish();
        let found = threads.into_iter().map(|thread| match thread.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok((fed, found.collect()))
    })
}

/// Hands records to the lanes' threads, many at a time.
struct Dealer<'q> {
    parcels: Vec<(Sender<Parcel>, Parcel)>,
    queued: &'q Queued,
}

/// Records with their lsn, in order, and the payloads of most of them one behind the other.
#[derive(Default)]
struct Parcel {
    /// With how much of `payloads` is theirs: nothing, if it is long, and then they have it themselves.
    records: Vec<(u64, Record, usize)>,
    payloads: Vec<u8>,
    bytes: usize,
}

impl Parcel {
    fn add(&mut self, lsn: u64, mut record: Record) {
        self.bytes += record.payload.len() + size_of::<(u64, Record, usize)>();
        let mut length = 0;
        if (1..PAYLOAD_BYTES_MAX).contains(&record.payload.len()) {
            self.payloads.reserve(if self.payloads.is_empty() { PARCEL_BYTES + PAYLOAD_BYTES_MAX } else { 0 });
            self.payloads.extend_from_slice(&record.payload);
            length = std::mem::take(&mut record.payload).len();
        }
        self.records.push((lsn, record, length));
    }

    /// Each payload is copied by the thread that needs it, just before it does: into that thread's own memory, and into its
    /// processor's cache, which has none of what another one read.
    fn open(self, mut take: impl FnMut(u64, Record)) {
        let mut rest = &self.payloads[..];
        for (lsn, mut record, length) in self.records {
            if length > 0 {
                let (payload, behind) = rest.split_at(length);
                (record.payload, rest) = (Bytes::copy_from_slice(payload), behind);
            }
            take(lsn, record);
        }
    }
}

impl Dealer<'_> {
    fn deal(&mut self, lane: usize, lsn: u64, record: Record) {
        let (_, parcel) = &mut self.parcels[lane];
        parcel.add(lsn, record);
        if parcel.bytes >= PARCEL_BYTES {
            self.send(lane);
        }
    }

    fn send(&mut self, lane: usize) {
        let (sender, parcel) = &mut self.parcels[lane];
        self.queued.add(parcel.bytes);
        // A lane that is gone has panicked, which is noticed when it is joined.
        if let Err(unsent) = sender.send(std::mem::take(parcel)) {
            self.queued.done(unsent.0.bytes);
        }
    }

    fn finish(mut self) {
        (0..self.parcels.len()).for_each(|lane| self.send(lane));
    }
}

/// Bytes of records that wait for lanes, or are being taken by them.
#[derive(Default)]
struct Queued {
    bytes: Mutex<usize>,
    fewer: Condvar,
}

impl Queued {
    /// Waits until there is room for so many bytes; if they are more than may be there in all, until nothing else is.
    fn add(&self, bytes: usize) {
        let now = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |now: &mut usize| *now > 0 && *now + bytes > QUEUED_BYTES_MAX;
        let mut now = self.fewer.wait_while(now, is_full).unwrap_or_else(PoisonError::into_inner);
        *now += bytes;
    }

    fn done(&self, bytes: usize) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        self.fewer.notify_one();
    }
}

/// Records are handed over when so many bytes of them are together.
const PARCEL_BYTES: usize = 96 << 10;
/// A payload that is not shorter is handed over as it is: it is worth no copy.
const PAYLOAD_BYTES_MAX: usize = 24 << 10;
/// So many bytes may wait for all lanes together, or one value that is longer: then the log is read no further.
const QUEUED_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::{PAYLOAD_BYTES_MAX, Parcel, QUEUED_BYTES_MAX, Queued};
    use crate::log::{Record, RecordKind};
    use bytes::Bytes;
    use groups::{Ballot, GroupId, Instance};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{scope, yield_now};

    #[test]
    fn a_parcel_gives_what_it_was_given() {
        let lengths = [0, 5, PAYLOAD_BYTES_MAX, 0, PAYLOAD_BYTES_MAX - 1, 300_000, 1, 0];
        let records: Vec<(u64, Record)> = (1..)
            .zip(lengths)
            .map(|(lsn, length)| {
                let (kind, payload) = (RecordKind::Learned, Bytes::from(vec![lsn as u8; length]));
                let (group, ballot, chosen) = (GroupId(lsn as u32), Ballot::ZERO, Ballot::ZERO);
                (lsn, Record { kind, group, instance: Instance(lsn), ballot, chosen, payload })
            })
            .collect();
        let mut parcel = Parcel::default();
        records.iter().for_each(|(lsn, record)| parcel.add(*lsn, record.clone()));
        assert!(parcel.bytes > lengths.iter().sum());
        let mut given = Vec::new();
        parcel.open(|lsn, record| given.push((lsn, record)));
        assert_eq!(given, records);
    }

    #[test]
    fn the_log_is_read_no_further_while_the_lanes_have_enough() {
        const PARCEL: usize = 1 << 20;
        const PARCELS: usize = 2_000;
        let (queued, ended) = (Queued::default(), AtomicBool::new(false));
        let waiting = || *queued.bytes.lock().expect("nobody panics with it");
        let most = scope(|scope| {
            // A lane that is so slow that there is always as much as there may be.
            scope.spawn(|| {
                for _ in 0..PARCELS {
                    while waiting() + PARCEL <= QUEUED_BYTES_MAX && !ended.load(Ordering::Relaxed) {
                        yield_now();
                    }
                    queued.done(PARCEL);
                }
            });
            let mut most = 0;
            for _ in 0..PARCELS {
                queued.add(PARCEL);
                most = most.max(waiting());
            }
            ended.store(true, Ordering::Relaxed);
            most
        });
        assert_eq!(most, QUEUED_BYTES_MAX);
        assert_eq!(waiting(), 0);
        // One that is longer than all that may wait goes alone.
        queued.add(2 * QUEUED_BYTES_MAX);
        queued.done(2 * QUEUED_BYTES_MAX);
        assert_eq!(waiting(), 0);
    }
}
