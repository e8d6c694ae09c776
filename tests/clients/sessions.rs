//! Exactly once: a command that is repeated at any node gets its first reply, and is not executed again.

use super::cluster::Cluster;
use super::wire::ask;

/// Size of the window: numbers of a session whose replies a group keeps.
const WINDOW: u64 = 64;

#[test]
fn a_repetition_at_another_node_gets_the_first_reply() {
    let cluster = Cluster::start();
    let [a, b, c] = cluster.nodes[..] else { panic!("three nodes") };
    let new = |node| ask(node, "SESSION NEW").trim_matches('"').to_owned();
    let session = new(a);
    for node in [a, b, c, a] {
        assert_eq!(ask(node, &format!("ONCE {session} 1 INCR counter")), "1");
        assert_eq!(ask(node, &format!("ONCE {session} 2 APPEND text xyz")), "3");
        assert_eq!(ask(node, &format!("ONCE {session} 3 INCR text")), "-ERR value is not an integer or out of range");
        assert_eq!(
            ask(node, &format!("ONCE {session} 4 SET timed 1 EX 100")),
            "OK",
            "the same words are the same command"
        );
    }
    assert_eq!(ask(b, "MGET counter text"), "[\"1\" \"xyz\"]");
    let other = ask(c, &format!("ONCE {session} 1 INCR other"));
    assert!(other == "1" || other.starts_with("-ERR"), "numbers count for each group: {other}");
    let changed = ask(b, &format!("ONCE {session} 1 INCRBY counter 5"));
    assert!(changed.starts_with("-ERR"), "{changed}");
    assert_eq!(ask(a, "GET counter"), "\"1\"");

    for number in 5..=WINDOW + 1 {
        assert_eq!(ask(a, &format!("ONCE {session} {number} INCR counter")), (number - 3).to_string());
    }
    let too_old = ask(b, &format!("ONCE {session} 1 INCR counter"));
    assert_eq!(too_old, "-ONCEEXPIRED the command was not executed now, but may have been executed before");
    assert_eq!(ask(c, &format!("ONCE {session} 5 INCR counter")), "2", "still in the window");
    assert_eq!(ask(c, "GET counter"), (WINDOW - 2).to_string().escape_quotes());
}

#[test]
fn what_cannot_be_once_is_refused() {
    let cluster = Cluster::start();
    let node = cluster.nodes[1];
    let session = ask(node, "SESSION NEW").trim_matches('"').to_owned();
    assert_ne!(ask(cluster.nodes[2], "SESSION NEW").trim_matches('"'), session);
    let forged: String = session.chars().rev().collect();
    for (command, start) in [
        (format!("ONCE {forged} 1 INCR a"), "-"),
        ("ONCE nonsense 1 INCR a".to_owned(), "-"),
        (format!("ONCE {session} 0 INCR a"), "-ERR"),
        (format!("ONCE {session} 1 MSET a 1 b 2"), "-CROSSSLOT"),
        (format!("ONCE {session} 1 ONCE {session} 2 INCR a"), "-ERR"),
        (format!("ONCE {session} 1 MULTI"), "-ERR"),
        (format!("ONCE {session} 1 CLIENT ID"), "-ERR"),
        (format!("ONCE {session} 1 INCR"), "-ERR wrong number of arguments for 'incr' command"),
        (format!("ONCE {session} 1 FOO a"), "-ERR unknown command"),
    ] {
        let reply = ask(node, &command);
        assert!(reply.starts_with(start), "{command}: {reply}");
    }
    assert_eq!(ask(node, "DBSIZE"), "0", "none of them was executed");
}

trait Quoted {
    fn escape_quotes(&self) -> String;
}

impl Quoted for String {
    fn escape_quotes(&self) -> String {
        format!("\"{self}\"")
    }
}
