//! INFO: its sections, and the values that clients read in them.

use super::*;
use crate::admin::client::tests::words;

/// Returns the reply of one of three nodes. The node leads some groups, and one of its peers does not answer.
pub(crate) fn example(command: &str) -> String {
    let mut stats = Stats::new(vec!["get", "set"]);
    stats.called(1, Us(6), false);
    stats.called(1, Us(1), true);
    stats.rejected(0);
    stats.error("ERR value is not an integer or out of range");
    stats.fsyncs.record(Us(130));
    stats.batches.record(3, 100);
    stats.batches.record(2, 50);
    stats.connections_received = 2;
    let peer = |node: u32, reached, silent_ms| PeerView {
        version: 0,
        node: NodeId(node),
        address: format!("127.0.0.1:700{node}"),
        reached,
        rtt_us: Us(90),
        silent_ms,
        clock_ahead_ms: (node == 2).then_some(-7),
    };
    let peers = [peer(2, true, Ms(12)), peer(3, false, Ms(9000))];
    let view = InfoView {
        server: ServerView {
            run_id: "ab",
            port: 7001,
            uptime_s: 90_000,
            log_writable: true,
            cpu_user_us: Us(7_842_134),
            ..ServerView::default()
        },
        clients: ClientsView { connected: 1, max: 10_000, ..ClientsView::default() },
        memory: MemoryView { used_bytes: 1_042_344, resident_bytes: 12_455_936, ..MemoryView::default() },
        keyspace: KeyspaceView { keys: 4, expires: 1, ..KeyspaceView::default() },
        paxos: PaxosView {
            node: NodeId(1),
            start_number: 3,
            cluster_id: "c0ffee",
            groups: 16,
            groups_led: 10,
            groups_leaderless: 1,
            chosen_total: 120,
            applied_total: 100,
            log_bytes: 134_217_728,
            log_segments: 2,
            disk: "ok",
            storage: StorageView::default(),
            peers: &peers,
            clocks: ClocksView { cluster_ms: Ms(1_700_000_000_123), ..ClocksView::default() },
            ..PaxosView::default()
        },
        stats: &stats,
    };
    let Reply::Text(text) = info(&words(command), &view) else { panic!("INFO is text") };
    text.into_owned()
}

fn titles(command: &str) -> Vec<String> {
    example(command).lines().filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect()
}

#[test]
fn sections_are_chosen_as_in_redis() {
    let default = [
        "Server",
        "Clients",
        "Memory",
        "Persistence",
        "Stats",
        "Replication",
        "CPU",
        "Modules",
        "Errorstats",
        "Cluster",
        "Paxos",
        "Keyspace",
    ];
    assert_eq!(titles("INFO"), default);
    assert_eq!(titles("INFO default"), default);
    assert_eq!(titles("INFO all").len(), SECTIONS.len());
    assert_eq!(titles("INFO everything").len(), SECTIONS.len());
    assert_eq!(titles("INFO Keyspace foo SERVER keyspace"), ["Server", "Keyspace"], "in the server's order, once");
    assert_eq!(example("INFO foo"), "");
    assert_eq!(example("INFO keyspace modules"), "# Modules\r\n\r\n# Keyspace\r\ndb0:keys=4,expires=1,avg_ttl=0\r\n");
    assert_eq!(titles("INFO commandstats default").len(), default.len() + 1);
}

#[test]
fn every_line_ends_as_clients_expect() {
    let text = example("INFO everything");
    assert!(text.ends_with("\r\n"));
    for line in text.strip_suffix("\r\n").unwrap_or_default().split("\r\n") {
        assert!(!line.contains(['\r', '\n']));
        assert!(line.is_empty() || line.starts_with("# ") || line.contains(':'), "{line}");
    }
}

#[test]
fn clients_find_what_they_read() {
    let text = example("INFO everything");
    for line in [
        "redis_version:7.0.15",
        "redis_mode:cluster",
        "run_id:ab",
        "tcp_port:7001",
        "uptime_in_seconds:90000",
        "uptime_in_days:1",
        "connected_clients:1",
        "maxclients:10000",
        "used_memory:1042344",
        "used_memory_human:1017.91K",
        "used_memory_rss_human:11.88M",
        "maxmemory:0",
        "mem_fragmentation_ratio:11.95",
        "loading:0",
        "aof_enabled:1",
        "aof_last_write_status:ok",
        "total_commands_processed:2",
        "instantaneous_ops_per_sec:0",
        "total_connections_received:2",
        "role:master",
        "connected_slaves:1",
        "master_repl_offset:100",
        "used_cpu_user:7.842134",
        "cmdstat_get:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0",
        "cmdstat_set:calls=2,usec=7,usec_per_call=3.50,rejected_calls=0,failed_calls=1",
        "errorstat_ERR:count=1",
        "cluster_enabled:1",
    ] {
        assert!(text.split("\r\n").any(|told| told == line), "{line} in {text}");
    }
}

#[test]
fn the_paxos_section_is_whole() {
    let expected = "# Paxos\r\nnode_id:1\r\nstart_number:3\r\ncluster_id:c0ffee\r\ngroups:16\r\ngroups_led:10\r\ngroups_leased:0\r\ndraining:0\r\n\
                    groups_leaderless:1\r\ngroups_behind:0\r\nchosen_total:120\r\napplied_total:100\r\n\
                    loop_busy_percent:0\r\nfsync_count:1\r\n\
                    fsync_mean_us:130\r\nfsync_p99_us:130\r\nturn_p50_us:0\r\nturn_p99_us:0\r\n\
                    turn_p999_us:0\r\nturn_max_us:0\r\n\
                    batch_commands_mean:2.50\r\nbatch_bytes_mean:75.00\r\n\
                    turns:0\r\nsocket_reads:0\r\nsocket_writes:0\r\n\
                    peer_frames_sent:0\r\npeer_messages_sent:0\r\nlog_bytes_written:0\r\n\
                    ballots_lost:0\r\nskipped_unknown_group:0\r\nskipped_unknown_kind:0\r\n\
                    protocol_version:0\r\nvalue_version:0\r\n\
                    cluster_time_ms:1700000000123\r\nclock_ahead_ms:0\r\ngroups_ahead_ms:0\r\n\
                    disk:ok\r\nrelays_to:0\r\ncommands_relayed:0\r\nlog_bytes:134217728\r\nlog_segments:2\r\n\
                    log_bytes_max:0\r\ncheckpoint_files:0\r\n\
                    checkpoint_bytes:0\r\ncheckpoint_in_progress:0\r\ncheckpoints_made:0\r\ncheckpoints_failed:0\r\n\
                    last_checkpoint_error:\r\nlast_checkpoint_time:0\r\nlast_checkpoint_ms:0\r\ntransfers_receiving:0\r\n\
                    transfer_bytes_received:0\r\ntransfer_bytes_sent:0\r\nstates_installed:0\r\n\
                    groups_not_whole:0\r\nscrubs:0\r\n\
                    scrub_damaged_files:0\r\n\
                    peer2:address=127.0.0.1:7002,reached=1,rtt_us=90,silent_ms=12,version=0,clock_ahead_ms=-7\r\n\
                    peer3:address=127.0.0.1:7003,reached=0,rtt_us=90,silent_ms=9000,version=0\r\n";
    assert_eq!(example("INFO paxos"), expected);
}

#[test]
fn sizes_are_abbreviated_as_redis_does() {
    assert_eq!([0, 1023, 1024, 1_042_344].map(human), ["0B", "1023B", "1.00K", "1017.91K"]);
    assert_eq!([12_455_936, 25_276_502_016, 1 << 41].map(human), ["11.88M", "23.54G", "2.00T"]);
}
