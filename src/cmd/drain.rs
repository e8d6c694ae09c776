//! `paxoi drain`: moves a node's groups to the other nodes before maintenance, so that no client waits for an election
//! when the node stops. The tool sends what any Redis client could send: `PAXOI DRAIN`, then INFO until the node leads
//! no group.

use crate::nodes::{Connection, ask, identity, look, number};
use crate::plural::plural;
use anyhow::{Context, bail};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Arguments of `paxoi drain`.
#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// The node, or with --node any node of its cluster
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: String,
    /// The id of the node to drain [default: the one connected to]
    #[arg(long, value_name = "N")]
    pub node: Option<u32>,
    /// Let the node lead groups again; it gets its preferred groups back when it has been healthy for 10 s
    #[arg(long)]
    pub undo: bool,
}

const INFO: &[&[u8]] = &[b"INFO", b"paxos"];
/// Interval between polls of the node's led groups.
const LOOK: Duration = Duration::from_millis(100);
/// Time after which the drain is given up if the number of led groups has not fallen.
const STUCK_MAX: Duration = Duration::from_secs(30);

/// Drains a node and waits until it leads no group, or ends the drain with `--undo`. Prints one line.
///
/// # Errors
/// If the node does not answer or is not a Paxoi node, or if no other node can take its groups.
pub fn run(args: &DrainArgs) -> anyhow::Result<()> {
    let (id, mut node) = connect(args)?;
    let (command, what): (&[u8], _) = if args.undo { (b"UNDRAIN", "end the drain of") } else { (b"DRAIN", "drain") };
    node.ask(&[b"PAXOI", command]).with_context(|| format!("cannot {what} node {id}"))?;
    let (mut led, mut since) = (u64::MAX, Instant::now());
    loop {
        let info = node.ask(INFO).with_context(|| format!("node {id} does not answer any more"))?;
        let now_led = number(&info, "groups_led");
        if args.undo || now_led == 0 {
            let text = if args.undo { "may lead groups again" } else { "leads no group any more: it can be stopped" };
            return writeln!(std::io::stdout().lock(), "node {id} {text}").context("cannot write to stdout");
        }
        if now_led < led {
            (led, since) = (now_led, Instant::now());
        } else if since.elapsed() > STUCK_MAX {
            bail!(
                "node {id} still leads {now_led} group{}, which no other node can take; paxoi status shows which are up",
                plural(now_led)
            );
        }
        std::thread::sleep(LOOK);
    }
}

/// Connects to the node to drain, and checks by its INFO that it is that node. Returns its id and the connection.
fn connect(args: &DrainArgs) -> anyhow::Result<(u32, Connection)> {
    let address = &args.connect;
    let no_answer = || format!("cannot drain a node through {address}: is a node running there?");
    let mut contact = Connection::open(address).with_context(no_answer)?;
    let info = contact.ask(INFO).with_context(no_answer)?;
    let (found, _) = identity(&info).with_context(|| format!("{address} is not a Paxoi node"))?;
    match args.node {
        Some(id) if id != found => {
            let connection = look(address, &mut ask)?.connect(id).with_context(|| format!("cannot drain node {id}"))?;
            Ok((id, connection))
        }
        _ => Ok((found, contact)),
    }
}
