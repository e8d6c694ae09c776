//! Clusters of real processes of the built program, which are killed, stopped, cut off, wiped and damaged while clients
//! count what was acknowledged.
//!
//! ```text
//! service    what clients of a healthy cluster, of a minority, and of five nodes see
//! faults     kill -9 and SIGSTOP under load; nothing acknowledged is lost, nothing happens twice
//! failover   pause of writes when a leader dies, and return of groups to their preferred leaders
//! backups    backup and restore
//! birth      first starts, wrong starts, wiped and foreign directories
//! clocks     clocks of single nodes that are wrong by hours
//! deadlines  errors come within the client timeout plus one second, whatever fails
//! disk       rotten and torn logs
//! full       no space on the disks of one node or of all
//! memory     maxmemory: which commands are refused, and how well memory is counted
//! local      `paxoi local`
//! members    nodes that join, take the place of others, and leave
//! names      members that move, other nodes at their addresses, and announced addresses
//! process    signals, closed outputs, and a directory that another process still holds
//! placement  groups moved to other leaders, drained nodes, leases
//! histories  recorded histories of clients at all nodes are linearizable, whatever happens to the nodes
//! upgrade    members with different protocol versions, and upgrades one by one
//! workers    nodes with several workers, and with other numbers of them
//! load       the clients of `faults`, and what they check
//! ```

mod backups;
mod birth;
mod clocks;
mod deadlines;
mod disk;
mod failover;
mod faults;
mod full;
#[path = "../harness/mod.rs"]
mod harness;
mod histories;
mod load;
mod local;
mod members;
mod memory;
mod names;
mod placement;
mod process;
mod service;
mod upgrade;
mod workers;
