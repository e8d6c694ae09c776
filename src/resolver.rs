//! Where members are: names become addresses on a thread of their own, because a resolver that is down takes many
//! seconds to say so, and the event loop would stand still meanwhile.
//!
//! The last answer serves until a newer one comes. Each use of a name asks for a newer one, since a member that moved can be
//! found no other way. A name with several addresses gives them in turn: one that does not answer, or where somebody else
//! answers, is not the only one that is tried. Numbers need no resolver.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;

/// Names that may wait for the resolver; more are not asked for now. One name waits at most once.
const NAMES_QUEUED_MAX: usize = 64;
/// Names that are remembered; beyond, the others are forgotten. Members and contacts are far fewer.
const NAMES_KNOWN_MAX: usize = 1_024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// The addresses that `HOST:PORT` stands for, those of IPv4 first: a name like `localhost` often stands for ::1 as well,
/// where few servers listen.
///
/// # Errors
/// If it has no port, or the name is unknown.
pub fn addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    if found.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "no such host")) } else { Ok(found) }
}

/// What is known of a `HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is, or was when that was last asked, there.
    Known(SocketAddr),
    /// The resolver has been asked.
    Asked,
    /// There is no such name, or too many wait for the resolver.
    Unknown,
}

/// See the module.
pub struct Resolver {
    /// Dropping it ends the thread after the name that it asks for.
    names: SyncSender<String>,
    known: HashMap<String, Name>,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<SocketAddr>,
    /// How often one of them was given.
    given: usize,
    is_asked: bool,
    /// The answer was that there is no such name, and nobody has been told yet.
    is_refused: bool,
}

impl Resolver {
    /// A resolver whose thread calls `answer` with each name and its addresses, none if there is no such name.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(answer: impl FnMut(String, Vec<SocketAddr>) + Send + 'static) -> io::Result<Resolver> {
        Resolver::with(|name| addresses(name).unwrap_or_default(), answer)
    }

    /// The same with a resolver other than the system's.
    fn with(
        mut resolve: impl FnMut(&str) -> Vec<SocketAddr> + Send + 'static,
        mut answer: impl FnMut(String, Vec<SocketAddr>) + Send + 'static,
    ) -> io::Result<Resolver> {
        let (names, asked) = sync_channel::<String>(NAMES_QUEUED_MAX);
        // It is not waited for at the end: it may be in the midst of such a wait itself.
        Builder::new().name("paxoi-names".to_owned()).spawn(move || {
            for name in asked {
                let found = resolve(&name);
                answer(name, found);
            }
        })?;
        Ok(Resolver { names, known: HashMap::new() })
    }

    /// Where that is, as far as it is known without waiting. If it was only asked for, ask again later.
    pub fn look_up(&mut self, name: &str) -> Place {
        if let Ok(address) = name.parse() {
            return Place::Known(address);
        }
        let known = self.entry(name);
        let found = known.addresses.get(known.given % known.addresses.len().max(1)).copied();
        known.given += 1;
        if found.is_none() && std::mem::take(&mut known.is_refused) {
            return Place::Unknown;
        }
        self.ask(name);
        match found {
            Some(address) => Place::Known(address),
            None if self.entry(name).is_asked => Place::Asked,
            None => Place::Unknown,
        }
    }

    /// Asks for a name, unless it waits already.
    pub fn ask(&mut self, name: &str) {
        if !self.entry(name).is_asked {
            self.entry(name).is_asked = self.names.try_send(name.to_owned()).is_ok();
        }
    }

    /// Takes note of what the thread was answered. A name that is no longer there keeps its last addresses.
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

    /// A resolver that says what the test sends, and what it told.
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
        assert_eq!(resolver.look_up("10.0.0.1:7"), Place::Known(at(7)));
        assert_eq!(resolver.look_up("[::1]:7"), Place::Known("[::1]:7".parse().unwrap()));
    }

    #[test]
    fn a_resolver_that_says_nothing_holds_nobody_up() {
        let (mut resolver, script, answers) = scripted();
        for _ in 0..1_000 {
            assert_eq!(resolver.look_up("a:1"), Place::Asked);
        }
        script.send(vec![at(1)]).unwrap();
        let (name, found) = answers.recv().unwrap();
        resolver.on_answer(&name, found);
        assert_eq!(resolver.look_up("a:1"), Place::Known(at(1)));
        // With each use it is asked for again, once at a time; meanwhile the old address serves.
        for _ in 0..1_000 {
            assert_eq!(resolver.look_up("a:1"), Place::Known(at(1)));
        }
        script.send(vec![at(2)]).unwrap();
        let (name, found) = answers.recv().unwrap();
        assert!(answers.try_recv().is_err());
        resolver.on_answer(&name, found);
        assert_eq!(resolver.look_up("a:1"), Place::Known(at(2)));
    }

    #[test]
    fn a_name_that_is_none_is_told_once_and_asked_for_again() {
        let (mut resolver, script, answers) = scripted();
        assert_eq!(resolver.look_up("a:1"), Place::Asked);
        script.send(Vec::new()).unwrap();
        let (name, found) = answers.recv().unwrap();
        resolver.on_answer(&name, found);
        assert_eq!(resolver.look_up("a:1"), Place::Unknown);
        assert_eq!(resolver.look_up("a:1"), Place::Asked);
    }

    #[test]
    fn more_names_than_may_wait_are_unknown() {
        let (mut resolver, _script, _answers) = scripted();
        let places: Vec<Place> = (0..NAMES_QUEUED_MAX + 9).map(|name| resolver.look_up(&format!("{name}:1"))).collect();
        assert_eq!((places[0], places.last()), (Place::Asked, Some(&Place::Unknown)));
    }

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn_until_it_has_others() {
        let (mut resolver, _script, _answers) = scripted();
        resolver.on_answer("a:1", vec![at(1), at(2)]);
        let mut next = || resolver.look_up("a:1");
        assert_eq!([next(), next(), next()], [at(1), at(2), at(1)].map(Place::Known));
        // The same answer again changes nothing, an empty one neither.
        resolver.on_answer("a:1", vec![at(1), at(2)]);
        assert_eq!(resolver.look_up("a:1"), Place::Known(at(2)));
        resolver.on_answer("a:1", Vec::new());
        assert_eq!(resolver.look_up("a:1"), Place::Known(at(1)));
        resolver.on_answer("a:1", vec![at(3)]);
        assert_eq!(resolver.look_up("a:1"), Place::Known(at(3)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut resolver, _script, _answers) = scripted();
        (0..3 * NAMES_KNOWN_MAX).for_each(|name| _ = resolver.look_up(&format!("{name}:1")));
        assert!(resolver.known.len() <= NAMES_KNOWN_MAX, "{}", resolver.known.len());
    }
}
