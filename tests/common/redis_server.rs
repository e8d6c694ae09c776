//! A redis-server of our own, for tests that compare with it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running redis-server. Dropping it ends the process.
pub(crate) struct RedisServer {
    pub(crate) address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl RedisServer {
    /// Starts a redis-server; `None` if it is not installed.
    pub(crate) fn start() -> Option<RedisServer> {
        RedisServer::with(&[])
    }

    /// Starts a redis-server with more arguments; `None` if it is not installed.
    pub(crate) fn with(arguments: &[&str]) -> Option<RedisServer> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let mut process = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut log = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("its log"), 0, "redis-server ended at once");
        }
        Some(RedisServer { address, process, _folder: folder })
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
