//! A node's answers about itself: connections, configuration, statistics, the cluster.
//!
//! The functions here take views of the node and return a [`Reply`] or an action for the node. They change at most the
//! caller's counters and client state, and use no sockets and no clocks. The replies are those of Redis
//! [`REDIS_VERSION`], because clients match on their texts and shapes. Newer commands (CLIENT SETINFO,
//! WAITAOF) reply as in the version that introduced them. In every function `args[0]` is the name of the command as the
//! client sent it.

pub mod client;
pub mod cluster;
pub mod config;
pub mod hello;
pub mod info;
pub mod kept;
pub mod stats;

use crate::kv::number::integer;
use crate::kv::reply::Reply;

/// The version of Redis that HELLO and INFO name. Clients decide by it which commands they try.
pub const REDIS_VERSION: &str = "7.0.15";

/// Maximum bytes of a client's text that an error repeats, as in Redis.
const ECHOED_BYTES_MAX: usize = 128;

/// Returns the error for too few or too many arguments of a command or `container|subcommand`.
fn wrong_arity(name: &str) -> Reply<'static> {
    Reply::Error(format!("ERR wrong number of arguments for '{name}' command").into())
}

/// Returns the error for a subcommand that its container (in capitals) does not have.
fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Reply<'static> {
    Reply::Error(format!("ERR unknown subcommand '{}'. Try {container} HELP.", echo(subcommand)).into())
}

fn syntax_error() -> Reply<'static> {
    Reply::error("ERR syntax error")
}

fn not_an_integer() -> Reply<'static> {
    Reply::error("ERR value is not an integer or out of range")
}

/// Returns the part of a client's argument that an error message repeats.
fn echo(argument: &[u8]) -> String {
    String::from_utf8_lossy(&argument[..argument.len().min(ECHOED_BYTES_MAX)]).into_owned()
}

/// Returns a HELP reply: the line that every container starts with, then the container's lines, then those about HELP.
fn help(first: &'static str, lines: &[&'static str]) -> Reply<'static> {
    let end = ["HELP", "    Prints this help."];
    Reply::Array([first].iter().chain(lines).chain(&end).map(|line| Reply::Simple(line)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_only_the_start_of_what_was_sent() {
        let Reply::Error(text) = unknown_subcommand("CLIENT", &[b'x'; 1000]) else { panic!("not an error") };
        assert_eq!(text, format!("ERR unknown subcommand '{}'. Try CLIENT HELP.", "x".repeat(ECHOED_BYTES_MAX)));
    }
}
