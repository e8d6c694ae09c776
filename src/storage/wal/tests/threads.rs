//! The log behind its threads. Tests wait for callbacks or poll for a state, never for a fixed time.

use super::*;
use crate::storage::wal::{Lsn, SegmentSequence};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

struct Opened {
    handle: LogHandle,
    durable: Receiver<Lsn>,
    fatal: Receiver<String>,
    seen: Vec<(Lsn, Record)>,
}

const PATIENCE: Duration = Duration::from_secs(20);

fn start(disk: &MemoryDisk) -> Opened {
    let (on_durable, durable) = channel();
    let (on_fatal, fatal) = channel();
    let hooks = Hooks {
        on_durable: Box::new(move |_, synced| on_durable.send(synced.lsn).unwrap_or(())),
        on_fatal: Box::new(move |error| on_fatal.send(error.to_string()).unwrap_or(())),
        on_progress: Box::new(|_, _| {}),
    };
    let mut seen = Vec::new();
    let visit = &mut |lsn, record| seen.push((lsn, record));
    let (handle, _) =
        Log::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), STORAGE_ID, secret(), options(), hooks, visit).unwrap();
    Opened { handle, durable, fatal, seen }
}

impl Opened {
    fn append(&mut self, records: Vec<Record>) -> Lsn {
        let lsn = self.handle.next_lsn();
        self.handle.append(Batch { lsn, records });
        lsn
    }

    fn append_and_wait(&mut self, records: Vec<Record>) {
        let lsn = self.append(records);
        assert_eq!(self.durable.recv_timeout(PATIENCE), Ok(lsn));
    }
}

#[test]
fn batches_become_durable_in_order_and_come_back() {
    let disk = MemoryDisk::new();
    let mut log = start(&disk);
    for instance in 1..=100 {
        log.append(vec![accept(1, instance, vec![1; 3000])]);
        if instance > 1 {
            assert_eq!(log.durable.recv_timeout(PATIENCE), Ok(Lsn(instance - 1)));
        }
    }
    assert_eq!(log.durable.recv_timeout(PATIENCE), Ok(Lsn(100)));
    assert_eq!((log.handle.status().lsn(), log.handle.status().syncs()), (Lsn(100), 100));
    assert_eq!(open(&disk.crash(3)).unwrap().2.len(), 100, "on_durable means durable");
    drop(log);
    let log = start(&disk.crash(4));
    assert_eq!(log.seen.len(), 100);
    assert!(log.handle.next_lsn() > Lsn(100));
}

#[test]
fn what_is_queued_when_the_handle_is_dropped_is_written() {
    let disk = MemoryDisk::new();
    let mut log = start(&disk);
    for instance in 1..=BATCHES_QUEUED_MAX as u64 {
        log.append(vec![accept(1, instance, "v")]);
    }
    drop(log);
    let (_, recovered, seen) = open(&disk.crash(0)).unwrap();
    assert_eq!(seen.len(), BATCHES_QUEUED_MAX);
    assert!(recovered.frames >= seen.len() as u64);
}

#[test]
fn a_batch_is_one_write_and_one_sync() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let (writes, syncs) = (disk.writes(), disk.syncs());
    for instance in 1..=10 {
        append(&mut writer, vec![accept(1, instance, "a"), accept(2, instance, "b"), promise(3, instance)]).unwrap();
    }
    assert_eq!((disk.writes() - writes, disk.syncs() - syncs), (10, 10));
    writer.write_durability_marker().unwrap();
    assert!(!writer.wants_durability_marker());
    assert_eq!((disk.writes() - writes, disk.syncs() - syncs), (11, 10), "a marker is not synced");
}

#[test]
fn a_failed_write_or_sync_ends_the_log_and_is_not_tried_again() {
    for writes in [true, false] {
        let disk = MemoryDisk::new();
        let mut log = start(&disk);
        log.append_and_wait(vec![accept(1, 1, "v")]);
        if writes {
            disk.fail_writes("log-", 0);
        } else {
            disk.fail_syncs("log-", 0);
        }
        log.append(vec![accept(1, 2, "v")]);
        let error = log.fatal.recv_timeout(PATIENCE).unwrap();
        let doing = if writes { "write" } else { "sync" };
        assert_eq!(error, format!("log file {FIRST}: cannot {doing} it: injected {doing} error"));
        let before = disk.content(FIRST);
        log.append(vec![accept(1, 3, "v")]);
        // The log thread is gone, and with it the sender of this channel.
        assert_eq!(log.durable.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        assert_eq!(disk.content(FIRST), before);
        drop(log);
        assert_eq!(disk.content(FIRST), before);
    }
}

#[test]
fn writing_goes_on_by_itself_when_there_is_space_again() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(2 * (64 << 10) + 100));
    let mut log = start(&disk);
    log.append_and_wait(vec![accept(1, 1, vec![1; 60_000])]);
    log.append_and_wait(vec![accept(1, 2, vec![2; 40_000])]);
    let held = log.append(vec![accept(1, 3, vec![3; 40_000])]);
    let started = Instant::now();
    while !log.handle.status().full() {
        assert!(started.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert!(log.durable.try_recv().is_err(), "there is no space");
    disk.set_capacity(None);
    assert_eq!(log.durable.recv_timeout(PATIENCE), Ok(held));
    assert!(log.fatal.try_recv().is_err(), "a full disk is no failure");
}

#[test]
fn a_log_that_waits_for_space_can_be_closed() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(100_000));
    let mut log = start(&disk);
    log.append_and_wait(vec![accept(1, 1, vec![1; 50_000])]);
    log.append(vec![accept(1, 2, vec![2; 60_000])]);
    log.append(vec![accept(1, 3, vec![2; 100_000])]);
    drop(log);
    assert_eq!(open(&disk.crash(0)).unwrap().2.len(), 1);
}

#[test]
fn a_quiet_log_says_that_its_last_frame_is_durable() {
    let disk = MemoryDisk::new();
    let mut log = start(&disk);
    log.append_and_wait(vec![accept(1, 1, "v")]);
    drop(log);
    let (_, recovered, seen) = open(&disk).unwrap();
    assert_eq!((seen.len(), recovered.frames), (1, 2));
    assert_eq!(recovered.rewritten_bytes, FRAME_HEADER_BYTES as u64, "only the marker is unsure");
}

#[test]
fn a_reader_thread_answers_with_the_range() {
    let disk = MemoryDisk::new();
    let mut log = start(&disk);
    for instance in 1..=50 {
        log.append_and_wait(vec![accept(1, instance, vec![1; 3000])]);
    }
    let (sender, answers) = channel();
    let reader = log
        .handle
        .start_reader(move |range, values| {
            let values = values.map(|values| values.iter().map(|value| value.instance.0).collect::<Vec<_>>());
            sender.send((range.tag, values.ok())).unwrap_or(());
        })
        .unwrap();
    for tag in 1..=5 {
        let (group, below, last_chosen) = (GroupId(1), Instance(51), ballot(1, 1));
        let range = ReadRange { tag, group, from: Instance(tag * 10), below, last_chosen, bytes_max: 9000 };
        assert!(reader.request(range));
    }
    for tag in 1..=5 {
        let wanted = (tag * 10..=50).take(3).collect::<Vec<_>>();
        assert_eq!(answers.recv_timeout(PATIENCE), Ok((tag, Some(wanted))));
    }
}

#[test]
fn a_segment_that_cannot_be_removed_is_tried_again_without_another_order() {
    let disk = MemoryDisk::new();
    let mut log = start(&disk);
    for instance in 1..=4 {
        log.append_and_wait(vec![accept(0, instance, vec![1; 60_000])]);
    }
    log.append_and_wait(vec![Record::Trimmed { below: SegmentSequence(3) }]);
    disk.fail_removes("log-", 0);
    log.handle.drop_below(SegmentSequence(3));
    let end = Instant::now() + PATIENCE;
    while disk.list().unwrap().iter().any(|name| name == FIRST || name == SECOND) {
        assert!(Instant::now() < end, "not removed in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}
