//! `paxoi member`: shows the members of a cluster, and changes them while it serves. The tool sends `PAXOI MEMBER …` to
//! one node, as any Redis client could, and repeats a change until the node answers that it is done. If the tool is
//! stopped earlier, it can be run again.

use crate::client::{Client, resolve};
use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use net::resp::value::Value;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

/// The subcommands of `paxoi member`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum MemberCommand {
    /// Show all members, the nodes that wait to be added, and how far each has caught up
    List {
        /// Any node of the cluster
        #[arg(long, value_name = "HOST:PORT")]
        connect: String,
    },
    /// Let a waiting node (`paxoi serve --join`) learn everything; it does not vote yet
    Add {
        /// The node
        id: u32,
        /// The node at which it waits
        #[arg(long, value_name = "HOST:PORT")]
        connect: String,
    },
    /// Let a member vote once it has caught up
    Promote {
        /// The node
        id: u32,
        /// Any node of the cluster that stays
        #[arg(long, value_name = "HOST:PORT")]
        connect: String,
    },
    /// Take a node out for ever; its id is never used again
    Remove {
        /// The node
        id: u32,
        /// Any node of the cluster that stays
        #[arg(long, value_name = "HOST:PORT")]
        connect: String,
    },
    /// Add a waiting node, let it catch up and vote, and take another out
    Replace {
        /// The node to take out
        old: u32,
        /// The node to add
        new: u32,
        /// The node at which the new node waits
        #[arg(long, value_name = "HOST:PORT")]
        connect: String,
    },
    /// Tell the cluster that a member has another address
    Move {
        /// The node
        id: u32,
        /// Its new address
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// Any node of the cluster
        #[arg(long, value_name = "HOST:PORT")]
        connect: String,
    },
}

/// Time limit for the node's answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between repetitions of a change that goes on.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for which the change is repeated while the node to add does not wait yet: that node may have just started.
const START: Duration = Duration::from_secs(5);
/// Pause between the first LIST and the second. After the first, the node asks the others for their positions, which
/// takes less than this.
const LISTING: Duration = Duration::from_millis(500);

/// Runs a command, and prints its result.
///
/// # Errors
/// If the node does not answer, or refuses; the error has its reason.
pub fn run(command: &MemberCommand) -> anyhow::Result<()> {
    match command {
        MemberCommand::List { connect } => list(connect),
        MemberCommand::Add { id, connect } => {
            change(connect, &["ADD", &id.to_string()], &format!("node {id} is a learner in every group"))
        }
        MemberCommand::Promote { id, connect } => {
            change(connect, &["PROMOTE", &id.to_string()], &format!("node {id} votes in every group"))
        }
        MemberCommand::Remove { id, connect } => {
            change(connect, &["REMOVE", &id.to_string()], &format!("node {id} is in no group any more"))
        }
        MemberCommand::Replace { old, new, connect } => {
            let done = format!("node {new} votes in every group instead of node {old}");
            change(connect, &["REPLACE", &old.to_string(), &new.to_string()], &done)
        }
        MemberCommand::Move { id, address, connect } => {
            change(connect, &["MOVE", &id.to_string(), address], &format!("node {id} has the address {address} now"))
        }
    }
}

struct NodeClient {
    address: String,
    client: Client,
}

impl NodeClient {
    fn connect(address: &str) -> anyhow::Result<NodeClient> {
        let connected = resolve(address).and_then(|resolved| Client::connect(resolved, TIMEOUT));
        let client = connected.with_context(|| format!("cannot reach {address}; is a node running there?"))?;
        Ok(NodeClient { address: address.to_owned(), client })
    }

    fn member(&mut self, words: &[&str]) -> anyhow::Result<Value> {
        let mut arguments: Vec<&[u8]> = vec![b"PAXOI", b"MEMBER"];
        arguments.extend(words.iter().map(|word| word.as_bytes()));
        let answered = self.client.call(&arguments);
        match answered.with_context(|| format!("{} did not answer; run the same command again", self.address))? {
            Value::Error(reason) => bail!("{}", reason.strip_prefix("ERR ").unwrap_or(&reason)),
            reply => Ok(reply),
        }
    }
}

/// Repeats a change until it is done, and prints its progress.
fn change(address: &str, words: &[&str], done: &str) -> anyhow::Result<()> {
    let mut node = NodeClient::connect(address)?;
    let mut shown = String::new();
    let begun = Instant::now();
    loop {
        let reply = match node.member(words) {
            Err(reason) if begun.elapsed() < START && reason.to_string().contains("does not wait here") => {
                thread::sleep(PAUSE);
                continue;
            }
            answered => answered?,
        };
        let Some(progress) = reply.as_bytes() else { bail!("{address} sent an unexpected reply to PAXOI MEMBER") };
        let progress = String::from_utf8_lossy(progress).into_owned();
        if progress == "OK" {
            writeln!(io::stdout(), "{done}").context("cannot write to stdout")?;
            return Ok(());
        }
        if progress != shown && (io::stderr().is_terminal() || shown.is_empty()) {
            let _ = writeln!(io::stderr(), "{progress}");
        }
        shown = progress;
        thread::sleep(PAUSE);
    }
}

fn list(address: &str) -> anyhow::Result<()> {
    let mut node = NodeClient::connect(address)?;
    node.member(&["LIST"])?;
    thread::sleep(LISTING);
    let reply = node.member(&["LIST"])?;
    let Some(text) = render(&reply) else { bail!("{address} sent a malformed reply to PAXOI MEMBER LIST") };
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write to stdout")
}

/// Renders the reply to `PAXOI MEMBER LIST` as a table; `None` if the reply is malformed.
fn render(reply: &Value) -> Option<String> {
    let Value::Array(rows) = reply else { return None };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["node", "address", "state", "groups", "lag", "reached"]);
    for row in rows {
        let Value::Array(cells) = row else { return None };
        let [Value::Int(id), address, state, Value::Int(groups), Value::Int(total), Value::Int(lag), reached] =
            &cells[..]
        else {
            return None;
        };
        let text = |value: &Value| {
            let text = String::from_utf8_lossy(value.as_bytes()?).into_owned();
            // Printed text must not be able to control the terminal.
            text.bytes().all(|byte| byte.is_ascii_graphic()).then_some(text)
        };
        let lag = if *lag < 0 { "?".to_owned() } else { lag.to_string() };
        let reached = if *reached == Value::Int(1) { "yes" } else { "no" };
        let groups = format!("{groups}/{total}");
        table.add_row([id.to_string(), text(address)?, text(state)?, groups, lag, reached.to_owned()]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    Some(table.trim_fmt() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, lag: i64, reached: i64) -> Value {
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        let number = Value::Int;
        Value::Array(vec![number(4), bulk("host:7"), bulk(state), number(3), number(16), number(lag), number(reached)])
    }

    #[test]
    fn a_list_becomes_a_table() {
        let text = render(&Value::Array(vec![row("joining", -1, 1), row("voter", 12, 0)])).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["node", "address", "state", "groups", "lag", "reached"]);
        assert_eq!(lines[1], ["4", "host:7", "joining", "3/16", "?", "yes"]);
        assert_eq!(lines[2], ["4", "host:7", "voter", "3/16", "12", "no"]);
        assert_eq!(render(&Value::Array(vec![row("\x1b[2J", 0, 0)])), None);
    }
}
