//! RESP, the Redis serialization protocol, versions 2 and 3.

pub mod request;
pub mod value;

/// The version of RESP that a connection speaks: 2 until `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, the default of every connection.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`: maps, doubles and a null of its own.
    Resp3,
}
