//! Lanes: some of the groups each, with their checkpoints and their records in order.

use super::Progress;
use crate::checkpoint::Shelf;
use crate::log::{Record, RecordKind};
use crate::shard::{self, Cell};
use groups::{Clock, Effect, GroupId, Instance};
use std::sync::mpsc::{SyncSender, sync_channel};
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
pub(super) fn side_by_side<R>(
    lanes: Vec<Lane<'_>>,
    shelf: Option<&Shelf>,
    progress: &Progress,
    sort: &mut dyn FnMut(&Record) -> Option<usize>,
    feed: impl FnOnce(&mut dyn FnMut(u64, Record)) -> R,
) -> (R, Vec<Found>) {
    let count = lanes.len();
    scope(|scope| {
        let mut threads = Vec::new();
        let mut dealer = Dealer { parcels: Vec::new() };
        for mut lane in lanes {
            let (sender, parcels) = sync_channel::<Records>(PARCELS_QUEUED_MAX);
            dealer.parcels.push((sender, Parcel::default()));
            let work = move || {
                lane.load(shelf, progress);
                for (lsn, record) in parcels.into_iter().flatten() {
                    lane.take(lsn, record, count);
                }
                lane.found
            };
            let thread = Builder::new().name("paxoi-lane".to_owned()).spawn_scoped(scope, work);
            threads.push(thread.expect("a start has few threads"));
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
        (fed, found.collect())
    })
}

/// Hands records to the lanes' threads, many at a time.
struct Dealer {
    parcels: Vec<(SyncSender<Records>, Parcel)>,
}

/// With their lsn, in order.
type Records = Vec<(u64, Record)>;

#[derive(Default)]
struct Parcel {
    records: Records,
    bytes: usize,
}

impl Dealer {
    fn deal(&mut self, lane: usize, lsn: u64, record: Record) {
        let (sender, parcel) = &mut self.parcels[lane];
        parcel.bytes += record.payload.len();
        parcel.records.push((lsn, record));
        if parcel.bytes >= PARCEL_BYTES || parcel.records.len() >= PARCEL_RECORDS_MAX {
            parcel.send(sender);
        }
    }

    fn finish(mut self) {
        self.parcels.iter_mut().for_each(|(sender, parcel)| parcel.send(sender));
    }
}

impl Parcel {
    /// A lane that is gone has panicked, which is noticed when it is joined.
    fn send(&mut self, sender: &SyncSender<Records>) {
        let _ = sender.send(std::mem::take(&mut self.records));
        self.bytes = 0;
    }
}

/// Records are handed over when so many bytes of values, or so many records, are together.
const PARCEL_BYTES: usize = 256 << 10;
const PARCEL_RECORDS_MAX: usize = 256;
/// So many parcels may wait for a lane: then the log is read no further.
const PARCELS_QUEUED_MAX: usize = 16;
