//! Where members are: names become addresses on a thread of their own, because a resolver that is down takes many
//! seconds to say so, and the event loop would stand still meanwhile.
//!
//! What a name was last is used until something else is known; it is asked for again with every use, since a member that
//! moved can be found no other way. Numbers need no resolver.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;

/// Names that may wait for the resolver; more are not asked for now. One name waits at most once.
const NAMES_QUEUED_MAX: usize = 64;

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
    address: Option<SocketAddr>,
    is_asked: bool,
    /// It was answered since it was last looked at.
    is_answered: bool,
}

impl Resolver {
    /// A resolver whose thread calls `answer` with each name and its address, if it has one.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(answer: impl FnMut(String, Option<SocketAddr>) + Send + 'static) -> std::io::Result<Resolver> {
        Resolver::with(|name| name.to_socket_addrs().ok()?.next(), answer)
    }

    /// The same with a resolver other than the system's.
    fn with(
        mut resolve: impl FnMut(&str) -> Option<SocketAddr> + Send + 'static,
        mut answer: impl FnMut(String, Option<SocketAddr>) + Send + 'static,
    ) -> std::io::Result<Resolver> {
        let (names, asked) = sync_channel::<String>(NAMES_QUEUED_MAX);
        // It is not waited for at the end: it may be in the midst of such a wait itself.
        Builder::new().name("paxoi-names".to_owned()).spawn(move || {
            for name in asked {
                let address = resolve(&name);
                answer(name, address);
            }
        })?;
        Ok(Resolver { names, known: HashMap::new() })
    }

    /// Where that is, as far as it is known without waiting. If it was only asked for, ask again later.
    pub fn look_up(&mut self, name: &str) -> Place {
        if let Ok(address) = name.parse() {
            return Place::Known(address);
        }
        let known = self.known.entry(name.to_owned()).or_default();
        let (is_new, address) = (std::mem::take(&mut known.is_answered), known.address);
        // An answer that nobody has used yet is as good as another one.
        if !is_new && !known.is_asked {
            known.is_asked = self.names.try_send(name.to_owned()).is_ok();
        }
        match address {
            Some(address) => Place::Known(address),
            None if known.is_asked => Place::Asked,
            None => Place::Unknown,
        }
    }

    /// Takes note of what the thread was answered. A name that is no longer there keeps its last address.
    pub fn on_answer(&mut self, name: &str, address: Option<SocketAddr>) {
        let known = self.known.entry(name.to_owned()).or_default();
        known.address = address.or(known.address);
        (known.is_asked, known.is_answered) = (false, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    type Answer = (String, Option<SocketAddr>);

    /// A resolver that says what the test sends, and what it told.
    fn scripted() -> (Resolver, std::sync::mpsc::Sender<Option<SocketAddr>>, Receiver<Answer>) {
        let (script, said) = channel();
        let (told, answers) = channel();
        let resolve = move |_: &str| said.recv().ok().flatten();
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
        script.send(Some(at(1))).unwrap();
        let (name, address) = answers.recv().unwrap();
        resolver.on_answer(&name, address);
        assert_eq!(resolver.look_up("a:1"), Place::Known(at(1)));
        // From the next use on it is asked for again, once at a time; meanwhile the old address serves.
        for _ in 0..1_000 {
            assert_eq!(resolver.look_up("a:1"), Place::Known(at(1)));
        }
        script.send(Some(at(2))).unwrap();
        let (name, address) = answers.recv().unwrap();
        assert!(answers.try_recv().is_err());
        resolver.on_answer(&name, address);
        assert_eq!(resolver.look_up("a:1"), Place::Known(at(2)));
    }

    #[test]
    fn a_name_that_is_none_is_told_once_and_asked_for_again() {
        let (mut resolver, script, answers) = scripted();
        assert_eq!(resolver.look_up("a:1"), Place::Asked);
        script.send(None).unwrap();
        let (name, address) = answers.recv().unwrap();
        resolver.on_answer(&name, address);
        assert_eq!(resolver.look_up("a:1"), Place::Unknown);
        assert_eq!(resolver.look_up("a:1"), Place::Asked);
    }

    #[test]
    fn more_names_than_may_wait_are_unknown() {
        let (mut resolver, _script, _answers) = scripted();
        let places: Vec<Place> = (0..NAMES_QUEUED_MAX + 9).map(|name| resolver.look_up(&format!("{name}:1"))).collect();
        assert_eq!((places[0], places.last()), (Place::Asked, Some(&Place::Unknown)));
    }
}
