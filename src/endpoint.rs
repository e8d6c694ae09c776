//! `HOST:PORT`, the address of a node. The host is an IP address or a name. Nothing is looked up here.

use groups::membership::ADDRESS_BYTES_MAX;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A host with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// An IP address without brackets, or a name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// Parses `10.0.0.1:7000`, `[::1]:7000`, `::1:7000` or `name:7000`. A name has letters, digits, `-`, `.` and `_`,
    /// because other characters separate the parts of a CLUSTER NODES line. Returns `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Endpoint> {
        if text.len() > ADDRESS_BYTES_MAX {
            return None;
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Endpoint { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':')?;
        let is_name = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let fits = !host.is_empty() && (is_name(host) || host.parse::<Ipv6Addr>().is_ok());
        // The number parser would also take `+7000`.
        let port = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        fits.then(|| Endpoint { host: host.to_owned(), port })
    }

    /// Returns the IP address, if the host is not a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Writes the endpoint so that [`Endpoint::parse`] reads it, an IPv6 address in brackets.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_read_and_written() {
        for (text, host, written) in [
            ("127.0.0.1:7000", "127.0.0.1", "127.0.0.1:7000"),
            ("[::1]:7000", "::1", "[::1]:7000"),
            ("::1:7000", "::1", "[::1]:7000"),
            ("localhost:7000", "localhost", "localhost:7000"),
            ("paxoi-0.paxoi_x.svc.:7000", "paxoi-0.paxoi_x.svc.", "paxoi-0.paxoi_x.svc.:7000"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, 7000));
            assert_eq!(endpoint.to_string(), written);
            assert_eq!(endpoint.ip().is_none(), host.contains('o'));
        }
    }

    #[test]
    fn what_would_break_a_line_of_cluster_nodes_is_no_host() {
        let long = format!("{}:1", "a".repeat(ADDRESS_BYTES_MAX));
        for text in ["", "a", ":1", "a:", "a:x", "a:65536", "a:+1", "a b:1", "a,b:1", "a@b:1", "a\n:1", "ü:1", &*long]
        {
            assert_eq!(Endpoint::parse(text), None, "{text:?}");
        }
    }
}
