//! Clients that send garbage, that reach the limits, and that take too much.

use crate::harness::client::{ask, text};
use crate::harness::{Cluster, turn, wait_for};
use paxoi::config::LINGER_MS_MAX;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `request`, and reads until the server closes the connection or has sent `bytes` bytes.
fn exchange(address: SocketAddr, request: &[u8], bytes: usize) -> Vec<u8> {
    let mut stream = open(address);
    // The server may close before it has read everything.
    let _ = stream.write_all(request);
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while answer.len() < bytes {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no answer to {:?}: {error}", String::from_utf8_lossy(request)),
        }
    }
    answer
}

fn expect_served(address: SocketAddr) {
    assert_eq!(exchange(address, b"PING\r\n", 7), b"+PONG\r\n");
}

/// Resident memory of a process, in KiB.
fn resident_kib(process: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn what_is_no_request_gets_an_error_and_the_connection_is_closed() {
    let _turn = turn();
    let cluster = Cluster::start(1, 2, &[]);
    let address = cluster.address(1);
    let nested = b"*1\r\n".repeat(100_000);
    let endless = vec![b'a'; 200 << 10];
    let cases: [(&[u8], &str); 10] = [
        (b"*1\r\n$99999999999999999999\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$9223372036854775808\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*9999999999\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*2147483647\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*x\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n+PING\r\n", "-ERR Protocol error: expected '$', got '+'"),
        (&nested, "-ERR Protocol error: expected '$', got '*'"),
        (&endless, "-ERR Protocol error: too big inline request"),
        (b"SET a \"unbalanced\r\n", "-ERR Protocol error: unbalanced quotes in request"),
    ];
    for (request, error) in cases {
        let answer = exchange(address, request, usize::MAX);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(error) && answer.matches("\r\n").count() == 1, "{answer:?}, not {error:?}");
        expect_served(address);
    }
}

#[test]
fn an_http_request_and_a_tls_greeting_are_closed() {
    let _turn = turn();
    let cluster = Cluster::start(1, 2, &[]);
    let address = cluster.address(1);
    assert_eq!(exchange(address, b"POST /x HTTP/1.1\r\nHost: a\r\n\r\nSET a 1\r\n", usize::MAX), b"");
    assert_eq!(exchange(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nSET a 1\r\n", usize::MAX), b"");
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[7; 500]].concat();
    assert_eq!(exchange(address, &tls, usize::MAX), b"-ERR TLS is not supported\r\n");
    assert_eq!(exchange(address, b"EXISTS a\r\n", 4), b":0\r\n");
}

#[test]
fn a_value_beyond_the_limit_is_refused_and_one_at_the_limit_is_on_every_node() {
    let _turn = turn();
    let cluster = Cluster::start(3, 2, &["--value-bytes-max", "4mb"]);
    let set =
        |bytes: usize| [format!("*3\r\n$3\r\nSET\r\n$1\r\nv\r\n${bytes}\r\n").as_bytes(), &vec![b'x'; bytes]].concat();
    let mut whole = set(4 << 20);
    whole.extend_from_slice(b"\r\n");
    assert_eq!(exchange(cluster.address(1), &whole, 5), b"+OK\r\n");
    let refused = exchange(cluster.address(1), &set((4 << 20) + 1), usize::MAX);
    assert!(refused.starts_with(b"-ERR Protocol error: invalid bulk length"), "{refused:?}");
    for address in cluster.addresses() {
        assert_eq!(exchange(address, b"STRLEN v\r\n", 10), b":4194304\r\n");
        let grown = exchange(address, b"APPEND v y\r\n", 60);
        assert!(grown.starts_with(b"-ERR string exceeds maximum allowed size"), "{grown:?}");
    }
}

#[test]
fn replies_that_nobody_reads_take_bounded_memory_and_come_in_order_at_last() {
    const REQUESTS: usize = 100_000;
    let _turn = turn();
    let cluster = Cluster::start(3, 4, &[]);
    let address = cluster.address(1);
    let value = "v".repeat(1_000);
    assert_eq!(exchange(address, format!("SET key {value}\r\n").as_bytes(), 5), b"+OK\r\n");
    let info = String::from_utf8(exchange(address, b"INFO server\r\n", 200)).unwrap();
    let process = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().parse().unwrap();
    let before = resident_kib(process);
    let mut greedy = open(address);
    let mut writer = greedy.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        (0..REQUESTS).for_each(|number| writer.write_all(format!("ECHO {number}\r\nGET key\r\n").as_bytes()).unwrap());
    });
    // Wait until the server reads no more. The remaining requests are in the sockets, or have not been sent yet.
    let input_bytes =
        |text: &str| text.lines().find_map(|line| line.strip_prefix("total_net_input_bytes:")?.parse().ok());
    let mut seen = (0, 0);
    wait_for("the server to read no more of the client", PATIENCE, || {
        let stats = String::from_utf8(exchange(address, b"INFO stats\r\n", 300)).ok()?;
        let taken: u64 = input_bytes(&stats)?;
        // The INFO request itself adds a few bytes.
        seen = if taken < seen.0 + 100 { (taken, seen.1 + 1) } else { (taken, 0) };
        (seen.1 >= 10).then_some(())
    });
    for _ in 0..50 {
        expect_served(address);
        let grown = resident_kib(process).saturating_sub(before);
        assert!(grown < 64 << 10, "{grown} KiB for replies that nobody reads");
    }
    let mut expected = Vec::new();
    for number in 0..REQUESTS {
        let digits = number.to_string();
        expected.clear();
        expected
            .extend_from_slice(format!("${}\r\n{digits}\r\n${}\r\n{value}\r\n", digits.len(), value.len()).as_bytes());
        let mut answer = vec![0; expected.len()];
        greedy.read_exact(&mut answer).unwrap();
        assert!(answer == expected, "wrong reply to request {number}");
    }
    sender.join().unwrap();
}

#[test]
fn clients_that_send_a_byte_at_a_time_are_served_and_disturb_nobody() {
    let _turn = turn();
    let cluster = Cluster::start(1, 2, &[]);
    let address = cluster.address(1);
    let request = b"*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$2\r\nok\r\n";
    let mut slow: Vec<TcpStream> = (0..50).map(|_| open(address)).collect();
    for byte in request {
        slow.iter_mut().for_each(|stream| stream.write_all(&[*byte]).unwrap());
        expect_served(address);
    }
    for stream in &mut slow {
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    }
}

#[test]
fn commands_with_very_many_parts_are_carried_out() {
    const PAIRS: usize = 50_000;
    let _turn = turn();
    let cluster = Cluster::start(3, 16, &[]);
    let request = |name: &str, words: usize, word: &dyn Fn(usize) -> String| {
        let mut request = format!("*{}\r\n${}\r\n{name}\r\n", words + 1, name.len());
        (0..words).map(word).for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        request
    };
    let mset = request("MSET", 2 * PAIRS, &|at| format!("k{}", at / 2));
    assert_eq!(exchange(cluster.address(2), mset.as_bytes(), 5), b"+OK\r\n");
    assert_eq!(exchange(cluster.address(3), b"DBSIZE\r\n", 8), b":50000\r\n");
    let del = request("DEL", PAIRS, &|at| format!("k{at}"));
    assert_eq!(exchange(cluster.address(1), del.as_bytes(), 8), b":50000\r\n");
    let long_key = format!("SET {} 1\r\n", "k".repeat(60_000));
    assert_eq!(exchange(cluster.address(1), long_key.as_bytes(), 5), b"+OK\r\n");
}

#[test]
fn a_client_that_goes_may_take_its_time_to_read_but_not_for_ever() {
    const VALUE_BYTES: usize = 24 << 20;
    const PIECE: usize = 128 << 10;
    /// Pause between two reads. All reads together take longer than `LINGER_MS_MAX`, the time for
    /// which a client may read nothing.
    const BETWEEN: Duration = Duration::from_millis(40);
    let _turn = turn();
    let cluster = Cluster::start(1, 1, &[]);
    let reply = cluster.client(1).call(&[b"SET", b"large", &vec![b'v'; VALUE_BYTES]]).unwrap();
    assert_eq!(text(&reply), "OK");
    let ask_and_go = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(PIECE).unwrap();
        socket.connect(&cluster.address(1).into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET large\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    };
    let (mut slow, _idle) = (ask_and_go(), ask_and_go());
    let (began, mut answer, mut piece) = (Instant::now(), Vec::new(), vec![0; PIECE]);
    loop {
        let read = slow.read(&mut piece).unwrap();
        answer.extend_from_slice(&piece[..read]);
        if read == 0 {
            break;
        }
        thread::sleep(BETWEEN);
    }
    assert!(began.elapsed() > Duration::from_millis(LINGER_MS_MAX.0), "it took only {:?}", began.elapsed());
    assert_eq!(answer.len(), format!("${VALUE_BYTES}\r\n").len() + VALUE_BYTES + b"\r\n".len());
    let mut client = cluster.client(1);
    wait_for("the end of the client that reads nothing", PATIENCE, || {
        ask(&mut client, "INFO clients").contains("connected_clients:1\r\n").then_some(())
    });
}
