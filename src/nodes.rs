//! The nodes of a cluster as the tools see them. A tool identifies a node by its id. It trusts the server at an address
//! only after the INFO from there has shown the id and the cluster: a name or an address can be another node's by now.

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::resolver::addresses;
use anyhow::{Context, bail};
use net::resp::value::Value;
use std::io;
use std::time::Duration;

/// Time limit for a node's answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A function that sends commands to the node at an address (`HOST:PORT`), over one connection, and returns the texts
/// of its replies. Error replies and broken connections are errors.
pub(crate) type Ask<'a> = dyn FnMut(&str, &[&[&[u8]]]) -> io::Result<Vec<String>> + 'a;

const INFO: &[&[u8]] = &[b"INFO"];
const NODES: &[&[u8]] = &[b"CLUSTER", b"NODES"];

/// A connection to the server at an address, which need not be the expected node.
pub(crate) struct Connection {
    client: Client,
}

impl Connection {
    pub(crate) fn open(address: &str) -> io::Result<Connection> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses(address)? {
            match Client::connect(address, TIMEOUT) {
                Ok(client) => return Ok(Connection { client }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends one command, and returns the text of its reply.
    pub(crate) fn ask(&mut self, command: &[&[u8]]) -> io::Result<String> {
        match self.client.call(command)? {
            Value::Error(text) => Err(io::Error::other(text)),
            reply => {
                let text = reply.as_bytes().ok_or(io::ErrorKind::InvalidData)?;
                Ok(String::from_utf8_lossy(text).into_owned())
            }
        }
    }
}

/// Implements [`Ask`] over the network.
pub(crate) fn ask(address: &str, commands: &[&[&[u8]]]) -> io::Result<Vec<String>> {
    let mut connection = Connection::open(address)?;
    commands.iter().map(|command| connection.ask(command)).collect()
}

/// A cluster, as one of its nodes knows it.
#[derive(Debug)]
pub(crate) struct Known {
    /// INFO of the node that was asked.
    pub(crate) info: String,
    pub(crate) nodes: Vec<Node>,
}

/// One line of CLUSTER NODES.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: u32,
    /// Addresses at which it may be reached, the preferred one first: by its name, by its IP address.
    pub(crate) addresses: Vec<String>,
    pub(crate) myself: bool,
    /// True if the node that was asked does not reach it.
    pub(crate) failed: bool,
    pub(crate) slots: String,
}

/// The answer to a question to a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The node itself answered, with its INFO.
    Itself(String),
    /// Another server answered, or none did; the text says which.
    None(String),
}

/// Asks the node at an address for its cluster.
///
/// # Errors
/// If no server answers there, or one that is not a Paxoi node.
pub(crate) fn look(address: &str, ask: &mut Ask<'_>) -> anyhow::Result<Known> {
    let mut told = ask(address, &[INFO]).map_err(|error| anyhow::anyhow!("{error}; is a node running there?"))?;
    let info = told.pop().unwrap_or_default();
    if identity(&info).is_none() {
        bail!("{address} is not a Paxoi node: its INFO has no Paxos section");
    }
    // Both commands go over one connection: two connections could reach two nodes.
    let mut told = ask(address, &[INFO, NODES]).with_context(|| format!("no CLUSTER NODES from {address}"))?;
    let (lines, info) = (told.pop().unwrap_or_default(), told.pop().unwrap_or(info));
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let lines = lines.lines().filter(|line| !line.is_empty());
    let parse =
        |line| parse_node(line, host).with_context(|| format!("{address} sent a malformed line in CLUSTER NODES"));
    let nodes = lines.map(parse).collect::<anyhow::Result<Vec<Node>>>()?;
    Ok(Known { info, nodes })
}

impl Known {
    /// Asks a node for its INFO, at each of its addresses until the node itself answers.
    pub(crate) fn info_of(&self, node: &Node, ask: &mut Ask<'_>) -> Answer {
        if node.myself {
            return Answer::Itself(self.info.clone());
        }
        let mut reasons = Vec::new();
        for address in &node.addresses {
            match ask(address, &[INFO]).map(|mut told| told.pop().unwrap_or_default()) {
                Ok(info) => match self.stranger(node.id, &info) {
                    None => return Answer::Itself(info),
                    Some(who) => reasons.push(format!("{who} answers at {address}")),
                },
                Err(error) => reasons.push(format!("{error} at {address}")),
            }
        }
        Answer::None(if reasons.is_empty() { "it has no address".to_owned() } else { reasons.join("; ") })
    }

    /// Connects to a node of this cluster.
    ///
    /// # Errors
    /// If there is no such member, or it does not answer; the error says which server does instead, or why none does.
    pub(crate) fn connect(&self, id: u32) -> anyhow::Result<Connection> {
        let node =
            self.nodes.iter().find(|node| node.id == id).with_context(|| format!("node {id} is not a member"))?;
        let mut found = None;
        let answer = self.info_of(&Node { myself: false, ..node.clone() }, &mut |address, commands| {
            let mut connection = Connection::open(address)?;
            let told = commands.iter().map(|command| connection.ask(command)).collect();
            found = Some(connection);
            told
        });
        match (answer, found) {
            (Answer::Itself(_), Some(connection)) => Ok(connection),
            (Answer::None(reason), _) => bail!("node {id} does not answer: {reason}"),
            (Answer::Itself(_), None) => bail!("node {id} does not answer"),
        }
    }

    /// Returns a description of the server that sent this INFO, if it is not node `id` of this cluster.
    fn stranger(&self, id: u32, info: &str) -> Option<String> {
        match (identity(info), identity(&self.info)) {
            (None, _) => Some("another server".to_owned()),
            (Some((_, cluster)), Some((_, ours))) if cluster != ours => Some("a node of another cluster".to_owned()),
            (Some((found, _)), _) => (found != id).then(|| format!("node {found}")),
        }
    }
}

impl Node {
    /// Returns its preferred address.
    pub(crate) fn address(&self) -> &str {
        self.addresses.first().map_or("?", |address| address)
    }
}

/// Returns the node id and the cluster id in an INFO, if a Paxoi node sent it.
pub(crate) fn identity(info: &str) -> Option<(u32, &str)> {
    Some((field(info, "node_id")?.parse().ok()?, field(info, "cluster_id")?))
}

/// Parses `id40 ip:port@cport[,name] flags master ping pong epoch link slots…`; the epoch of a Paxoi node is its id. A
/// node that does not know its host is at the `host` that was asked.
pub(crate) fn parse_node(line: &str, host: &str) -> Option<Node> {
    // Text that is printed later must not be able to control the terminal.
    if !line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return None;
    }
    let mut words = line.split(' ').skip(1);
    let (address, bus) = words.next()?.split_once('@')?;
    let (ip, port) = address.rsplit_once(':')?;
    let name = bus.split(',').nth(1);
    let flags: Vec<&str> = words.next()?.split(',').collect();
    let id = words.nth(3)?.parse().ok()?;
    let link = words.next()?;
    let slots: Vec<_> = words.collect();
    let hosts = [name, Some(ip)].into_iter().flatten().map(|text| if text.is_empty() { host } else { text });
    let mut addresses: Vec<String> = Vec::new();
    for host in hosts.filter(|host| *host != "?") {
        let address = format!("{host}:{port}");
        let address = Endpoint::parse(&address).map_or(address, |endpoint| endpoint.to_string());
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let failed = flags.contains(&"fail") || link == "disconnected";
    Some(Node { id, addresses, myself: flags.contains(&"myself"), failed, slots: slots.join(" ") })
}

/// Returns the value of a field of INFO.
pub(crate) fn field<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Returns the value of a numeric field of INFO; 0 without it.
pub(crate) fn number(info: &str, name: &str) -> u64 {
    field(info, name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::cluster::{ClusterView, NodeView, cluster};
    use crate::admin::info::tests::example;
    use crate::kv::reply::Reply;
    use groups::NodeId;

    #[test]
    fn what_the_cluster_command_writes_can_be_read() {
        let node = |n: u32, address: &str, connected| NodeView {
            node: NodeId(n),
            id40: n.to_string().repeat(40),
            endpoint: Endpoint::parse(address),
            resolved: Some("10.0.0.1".parse().unwrap()),
            connected,
        };
        let nodes =
            [node(1, "one:7001", true), node(2, "[::1]:7002", true), node(3, "x:7003", false), node(4, "?", true)];
        let view = ClusterView { me: NodeId(1), groups: 2, leaders: &[Some(NodeId(2)), None], nodes: &nodes };
        let Reply::Text(text) = cluster(&[b"CLUSTER", b"NODES"], &view) else { panic!("NODES is text") };
        let read: Vec<Node> = text.lines().map(|line| parse_node(line, "here").expect("a node")).collect();
        let told = read.iter().map(|n| (n.id, n.addresses.join(" "), n.myself, n.failed, n.slots.as_str()));
        let expected = [
            (1, "one:7001 10.0.0.1:7001".to_owned(), true, false, "8192-16383"),
            (2, "[::1]:7002".to_owned(), false, false, "0-8191"),
            (3, "x:7003 10.0.0.1:7003".to_owned(), false, true, ""),
            (4, String::new(), false, false, ""),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        let old = parse_node("1111 :7001@7001 myself,master - 0 0 1 connected 0-5", "here").expect("a node");
        assert_eq!(old.addresses, ["here:7001"]);
    }

    #[test]
    fn only_the_node_itself_is_believed_wherever_it_is() {
        let info = example("INFO").replace("node_id:1", "node_id:2");
        let other = info.replace("cluster_id:", "cluster_id:ffff");
        let known = Known { info: info.clone(), nodes: Vec::new() };
        let node = |addresses: &[&str]| Node {
            id: 2,
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
            myself: false,
            failed: false,
            slots: String::new(),
        };
        let mut ask = |address: &str, _: &[&[&[u8]]]| match address {
            "two" => Ok(vec![info.clone()]),
            "one" => Ok(vec![example("INFO")]),
            "redis" => Ok(vec!["redis_version:7.0.15\r\n".to_owned()]),
            "others" => Ok(vec![other.clone()]),
            _ => Err(io::Error::other("refused")),
        };
        assert_eq!(known.info_of(&node(&["one", "two"]), &mut ask), Answer::Itself(info.clone()));
        let told = known.info_of(&node(&["one", "redis", "others", "none"]), &mut ask);
        let expected = "node 1 answers at one; another server answers at redis; a node of another cluster answers at \
                        others; refused at none";
        assert_eq!(told, Answer::None(expected.to_owned()));
        assert_eq!(known.info_of(&node(&[]), &mut ask), Answer::None("it has no address".to_owned()));
    }
}
