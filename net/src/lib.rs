//! The event loop: listener, connections, peer frames and the RESP codec. It never says "Paxos".

pub mod resp;
