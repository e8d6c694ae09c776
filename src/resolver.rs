//! Resolves the names of members to addresses, on a thread of its own. A resolver that is down takes many seconds to
//! report that, and would stop the event loop meanwhile.
//!
//! The last answer for a name is used until a newer one comes. Each use of the name asks for a newer answer, because a
//! member that moved can be found no other way. The addresses of a name are used in turn: one of them may not answer,
//! or another server may answer there. Numeric addresses need no resolver.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;

/// Maximum number of names that wait for the resolver. Beyond it, a name is not asked for now. Each name waits at most
/// once.
const NAMES_QUEUED_MAX: usize = 64;
/// Maximum number of remembered names. Beyond it, all names that do not wait for the resolver are forgotten. Members
/// and contacts are far fewer.
const NAMES_KNOWN_MAX: usize = 1_024;
/// Maximum number of addresses that are tried for one name.
const ADDRESSES_MAX: usize = 16;

/// Resolves `HOST:PORT`, IPv4 addresses first. A name like `localhost` often stands for ::1 as
/// well, where few servers listen.
///
/// # Errors
/// If `address` has no port, or its name is unknown.
pub fn addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    if found.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "no such host")) } else { Ok(found) }
}

/// The result of looking a `HOST:PORT` up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The address, as of the last answer.
    Known(SocketAddr),
    /// The resolver has been asked, and has not answered yet.
    Asked,
    /// There is no such name, or too many names wait for the resolver.
    Unknown,
}

/// See the module.
pub struct Resolver {
    /// The queue of the thread. Dropping it ends the thread after the names in the queue.
    names: SyncSender<String>,
    known: HashMap<String, Name>,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<SocketAddr>,
    /// Number of look-ups of these addresses. It selects the next address.
    given: usize,
    is_asked: bool,
    /// The last answer was that there is no such name, and no caller has been told yet.
    is_refused: bool,
}

impl Resolver {
    /// Starts the thread. It calls `answer` with each name and its addresses, or with no address if there is no such
    /// name.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start(answer: impl FnMut(String, Vec<SocketAddr>) + Send + 'static) -> io::Result<Resolver> {
        Resolver::with(|name| addresses(name).unwrap_or_default(), answer)
    }

    /// As [`Resolver::start`], with `resolve` in place of the system's resolver.
    fn with(
        mut resolve: impl FnMut(&str) -> Vec<SocketAddr> + Send + 'static,
        mut answer: impl FnMut(String, Vec<SocketAddr>) + Send + 'static,
    ) -> io::Result<Resolver> {
        let (names, asked) = sync_channel::<String>(NAMES_QUEUED_MAX);
        // The thread is not joined at the end: it may be waiting for the system's resolver.
        Builder::new().name("paxoi-names".to_owned()).spawn(move || {
            for name in asked {
                let found = resolve(&name);
                answer(name, found);
            }
        })?;
        Ok(Resolver { names, known: HashMap::new() })
    }

    /// Looks a name up without waiting. After [`Lookup::Asked`] the caller looks it up again later.
    pub fn look_up(&mut self, name: &str) -> Lookup {
        if let Ok(address) = name.parse() {
            return Lookup::Known(address);
        }
        let known = self.entry(name);
        let found = known.addresses.get(known.given % known.addresses.len().max(1)).copied();
        known.given += 1;
        if found.is_none() && std::mem::take(&mut known.is_refused) {
            return Lookup::Unknown;
        }
        self.ask(name);
        match found {
            Some(address) => Lookup::Known(address),
            None if self.entry(name).is_asked => Lookup::Asked,
            None => Lookup::Unknown,
        }
    }

    /// Puts a name into the resolver's queue, unless it is there already or the queue is full.
    pub fn ask(&mut self, name: &str) {
        if !self.entry(name).is_asked {
            self.entry(name).is_asked = self.names.try_send(name.to_owned()).is_ok();
        }
    }

    /// Stores the resolver's answer. A name that no longer exists keeps its last addresses.
    pub fn on_answer(&mut self, name: &str, addresses: Vec<SocketAddr>) {
        let known = self.entry(name);
        (known.is_asked, known.is_refused) = (false, addresses.is_empty());
        if !addresses.is_empty() && known.addresses != addresses {
            (known.addresses, known.given) = (addresses, 0);
        }
    }

    fn entry(&mut self, name: &str) -> &mut Name {
        if self.known.len() >= NAMES_KNOWN_MAX && !self.known.contains_key(name) {
            self.known.retain(|_, known| known.is_asked);
        }
        self.known.entry(name.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    type Answer = (String, Vec<SocketAddr>);

    /// A resolver that answers with the addresses that the test sends, and a receiver of the answers that it has passed
    /// on.
    fn scripted() -> (Resolver, std::sync::mpsc::Sender<Vec<SocketAddr>>, Receiver<Answer>) {
        let (script, said) = channel();
        let (told, answers) = channel();
        let resolve = move |_: &str| said.recv().unwrap_or_default();
        let resolver = Resolver::with(resolve, move |name, address| _ = told.send((name, address))).unwrap();
        (resolver, script, answers)
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_number_needs_no_resolver() {
        let (mut resolver, ..) = scripted();
        assert_eq!(resolver.look_up("10.0.0.1:7"), Lookup::Known(at(7)));
        assert_eq!(resolver.look_up("[::1]:7"), Lookup::Known("[::1]:7".parse().unwrap()));
    }

    #[test]
    fn a_resolver_that_says_nothing_holds_nobody_up() {
        let (mut resolver, script, answers) = scripted();
        for _ in 0..1_000 {
            assert_eq!(resolver.look_up("a:1"), Lookup::Asked);
        }
        script.send(vec![at(1)]).unwrap();
        let (name, found) = answers.recv().unwrap();
        resolver.on_answer(&name, found);
        assert_eq!(resolver.look_up("a:1"), Lookup::Known(at(1)));
        // Each use asks for the name again, with one question at a time. Meanwhile the old address is used.
        for _ in 0..1_000 {
            assert_eq!(resolver.look_up("a:1"), Lookup::Known(at(1)));
        }
        script.send(vec![at(2)]).unwrap();
        let (name, found) = answers.recv().unwrap();
        assert!(answers.try_recv().is_err());
        resolver.on_answer(&name, found);
        assert_eq!(resolver.look_up("a:1"), Lookup::Known(at(2)));
    }

    #[test]
    fn a_name_that_is_none_is_told_once_and_asked_for_again() {
        let (mut resolver, script, answers) = scripted();
        assert_eq!(resolver.look_up("a:1"), Lookup::Asked);
        script.send(Vec::new()).unwrap();
        let (name, found) = answers.recv().unwrap();
        resolver.on_answer(&name, found);
        assert_eq!(resolver.look_up("a:1"), Lookup::Unknown);
        assert_eq!(resolver.look_up("a:1"), Lookup::Asked);
    }

    #[test]
    fn more_names_than_may_wait_are_unknown() {
        let (mut resolver, _script, _answers) = scripted();
        let lookups: Vec<Lookup> =
            (0..NAMES_QUEUED_MAX + 9).map(|name| resolver.look_up(&format!("{name}:1"))).collect();
        assert_eq!((lookups[0], lookups.last()), (Lookup::Asked, Some(&Lookup::Unknown)));
    }

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn_until_it_has_others() {
        let (mut resolver, _script, _answers) = scripted();
        resolver.on_answer("a:1", vec![at(1), at(2)]);
        let mut next = || resolver.look_up("a:1");
        assert_eq!([next(), next(), next()], [at(1), at(2), at(1)].map(Lookup::Known));
        // The same answer again changes nothing, nor does an empty answer.
        resolver.on_answer("a:1", vec![at(1), at(2)]);
        assert_eq!(resolver.look_up("a:1"), Lookup::Known(at(2)));
        resolver.on_answer("a:1", Vec::new());
        assert_eq!(resolver.look_up("a:1"), Lookup::Known(at(1)));
        resolver.on_answer("a:1", vec![at(3)]);
        assert_eq!(resolver.look_up("a:1"), Lookup::Known(at(3)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut resolver, _script, _answers) = scripted();
        (0..3 * NAMES_KNOWN_MAX).for_each(|name| _ = resolver.look_up(&format!("{name}:1")));
        assert!(resolver.known.len() <= NAMES_KNOWN_MAX, "{}", resolver.known.len());
    }
}
