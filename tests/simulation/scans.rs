//! Iterations with SCAN, page by page, at changing nodes. An iteration must return every key that exists from its
//! beginning to its end, and only keys that clients have named in requests.

use crate::client::{Call, Kind};
use crate::world::World;
use bytes::Bytes;
use net::resp::value::Value;
use std::collections::BTreeSet;

/// The iteration of a client.
#[derive(Debug)]
pub(crate) struct Scan {
    cursor: Vec<u8>,
    /// Keys that existed at the beginning and were not returned yet.
    missing: BTreeSet<Bytes>,
    /// A request for a page is in flight.
    waits: bool,
}

impl World {
    /// Returns the request for the next page, or a GET while a page is in flight. The first page begins an iteration.
    pub(crate) fn scan(&mut self, index: usize) -> Call {
        let lasting = &self.record.lasting;
        let client = &mut self.clients[index];
        let begin = || Scan { cursor: b"0".to_vec(), missing: lasting.clone(), waits: false };
        let scan = client.scan.get_or_insert_with(begin);
        if std::mem::replace(&mut scan.waits, true) {
            return self.read();
        }
        let cursor = scan.cursor.clone();
        let count = self.random.between(1, 30).to_string();
        self.call(Kind::Scan, Vec::new(), 0, &[&[b"SCAN", &cursor, b"COUNT", count.as_bytes()]])
    }

    pub(crate) fn page(&mut self, index: usize, items: &[Value]) {
        let [Value::Bulk(cursor), Value::Array(keys)] = items else {
            return self.oracle.fail(&format!("SCAN was answered by {items:?}"));
        };
        let Some(mut scan) = self.clients[index].scan.take() else { return };
        for key in keys {
            let key = Bytes::copy_from_slice(key.as_bytes().unwrap_or_default());
            if !self.record.named.contains(&key) {
                self.oracle.fail(&format!("SCAN found {}, which no request has named", key.escape_ascii()));
            }
            scan.missing.remove(&key);
        }
        scan.cursor.clone_from(cursor);
        scan.waits = false;
        if cursor != b"0" {
            self.clients[index].scan = Some(scan);
            return;
        }
        self.record.scans += 1;
        if let Some(key) = scan.missing.first() {
            let (key, count) = (key.escape_ascii(), scan.missing.len());
            self.oracle.fail(&format!("SCAN passed over {key} and {} other keys that are there", count - 1));
        }
    }

    /// Notes that the page was refused or lost. The client asks for it again.
    pub(crate) fn page_failed(&mut self, index: usize) {
        if let Some(scan) = &mut self.clients[index].scan {
            scan.waits = false;
        }
    }
}
