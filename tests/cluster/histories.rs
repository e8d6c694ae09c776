//! What clients at all nodes see is linearizable, whatever happens to the nodes meanwhile.

use crate::harness::recorder::Recorder;
use crate::harness::{Cluster, turn};
use std::time::Duration;

const CLIENTS: usize = 8;
const KEYS: usize = 9;
/// Between two blows, so that they hit different moments.
const OPERATIONS: u64 = 1500;
/// Longer than the others wait for a silent leader.
const PAUSE: Duration = Duration::from_millis(1500);

#[test]
fn clients_of_killed_and_paused_nodes_see_a_linearizable_history() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 8, &[]);
    let recorder = Recorder::start(&cluster.addresses(), CLIENTS, KEYS, 1);
    for id in cluster.ids() {
        recorder.wait_for_more(OPERATIONS);
        cluster.kill9(id);
        recorder.wait_for_more(OPERATIONS);
        cluster.restart(id);
        recorder.wait_for_more(OPERATIONS);
        cluster.pause(id);
        std::thread::sleep(PAUSE);
        cluster.resume(id);
    }
    let summary = recorder.stop_and_check();
    assert!(summary.operations as u64 > 9 * OPERATIONS && summary.open > 0, "{summary:?}");
}
