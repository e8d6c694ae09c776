//! `paxoi drain`: before a node is stopped for maintenance its groups go to the others, so that nobody waits for an
//! election when it stops. It says what any Redis client could say: `PAXOI DRAIN`, then INFO until nothing is led there.

use crate::nodes::{Connection, ask, identity, look, number};
use crate::plural::plural;
use anyhow::{Context, bail};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Which node to drain.
#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// The node, or with --node any node of its cluster
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: String,
    /// The id of the node to drain [default: the one connected to]
    #[arg(long, value_name = "N")]
    pub node: Option<u32>,
    /// Let it lead groups again; it gets those that it should lead back when it has been healthy for ten seconds
    #[arg(long)]
    pub undo: bool,
}

const INFO: &[&[u8]] = &[b"INFO", b"paxos"];
/// How often it is looked whether the node still leads something.
const LOOK: Duration = Duration::from_millis(100);
/// A node that leads as many groups for so long as before will not come to lead none.
const STUCK_MAX: Duration = Duration::from_secs(30);

/// Drains a node and waits until it leads nothing, or ends that; prints one line.
///
/// # Errors
/// If the node does not answer or is none of Paxoi's, or if its groups do not go: nobody else can take them.
pub fn run(args: &DrainArgs) -> anyhow::Result<()> {
    let (id, mut node) = connect(args)?;
    let command: &[u8] = if args.undo { b"UNDRAIN" } else { b"DRAIN" };
    node.ask(&[b"PAXOI", command]).with_context(|| format!("cannot drain node {id}"))?;
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

/// A connection to the node that is meant, which has said that it is that node.
fn connect(args: &DrainArgs) -> anyhow::Result<(u32, Connection)> {
    let address = &args.connect;
    let no_answer = || format!("cannot drain a node by {address}: is a node running there?");
    let mut asked = Connection::open(address).with_context(no_answer)?;
    let info = asked.ask(INFO).with_context(no_answer)?;
    let (found, _) = identity(&info).with_context(|| format!("{address} is not a Paxoi node"))?;
    match args.node {
        Some(id) if id != found => {
            let connection = look(address, &mut ask)?.connect(id).with_context(|| format!("cannot drain node {id}"))?;
            Ok((id, connection))
        }
        _ => Ok((found, asked)),
    }
}
