//! The program's own client. Commands are texts, and replies are texts that tests can compare.

use net::resp::value::Value;
use paxoi::client::Client;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Time limit of a reply: longer than any node lets a client wait.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to a node.
pub(crate) fn connect(address: SocketAddr) -> io::Result<Client> {
    Client::connect(address, TIMEOUT)
}

/// Sends a command, its words divided by single spaces.
pub(crate) fn call(client: &mut Client, command: &str) -> io::Result<Value> {
    client.call(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

/// Sends a command and returns its reply as a text: `OK`, `12`, `(nil)`, `-ERR …`, the bytes of a string.
///
/// # Panics
/// If the connection fails.
pub(crate) fn ask(client: &mut Client, command: &str) -> String {
    let reply = call(client, command).unwrap_or_else(|error| panic!("{command}: {error}"));
    text(&reply)
}

/// Like [`ask`], but repeats the command while the reply is `-CLUSTERDOWN` (no leader) or `-LOADING`.
pub(crate) fn ask_until_served(client: &mut Client, command: &str) -> String {
    super::wait_for(command, super::READY_MAX, || {
        Some(ask(client, command))
            .filter(|reply| !["-CLUSTERDOWN", "-LOADING"].iter().any(|not_yet| reply.starts_with(not_yet)))
    })
}

/// Returns a reply as a text.
pub(crate) fn text(reply: &Value) -> String {
    match reply {
        Value::Error(text) => format!("-{text}"),
        Value::Int(number) => number.to_string(),
        Value::Null => "(nil)".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        other => match other.as_bytes() {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => format!("{other:?}"),
        },
    }
}

/// Fields of `INFO`.
#[derive(Debug)]
pub(crate) struct Info(HashMap<String, String>);

impl Info {
    /// Returns a field that is a number.
    ///
    /// # Panics
    /// If there is no such field.
    pub(crate) fn number(&self, field: &str) -> u64 {
        let found = self.0.get(field).and_then(|value| value.parse().ok());
        found.unwrap_or_else(|| panic!("INFO has no number {field}: {:?}", self.0))
    }

    /// Returns a field, if there is one.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// Returns true if the node still loads its data directory.
    pub(crate) fn is_loading(&self) -> bool {
        self.0.contains_key("loading_total_bytes")
    }
}

/// Returns the fields of a node's INFO in the sections server, memory, persistence and paxos.
pub(crate) fn info(address: SocketAddr) -> io::Result<Info> {
    let reply = call(&mut Client::connect(address, Duration::from_secs(2))?, "INFO server memory persistence paxos")?;
    let text = text(&reply);
    let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    Ok(Info(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
}

/// Returns a key that belongs to `group` of `groups`.
pub(crate) fn key_of(group: u32, groups: u32, prefix: &str) -> String {
    let belongs = |key: &String| paxoi::routing::group_of(paxoi::routing::slot(key.as_bytes()), groups).0 == group;
    (0..).map(|number| format!("{prefix}{number}")).find(belongs).expect("every group has keys")
}
