//! Letters between the workers of a process: messages, and connections that move. Each takes some time, and letters of a
//! pair of workers arrive in order.

use crate::process::{Input, Letter, RunningProcess};
use crate::world::{Event, World};
use net::event::ConnectionId;
use paxoi::workers::WorkerId;

/// Maximum time that a letter takes from one worker of a node to another.
const LETTER_US_MAX: u64 = 300;

impl World {
    /// Sends a letter from one worker of a node to another. Letters of a pair of workers arrive in order.
    pub(crate) fn send_letter(
        &mut self,
        node: usize,
        life: &mut RunningProcess,
        (from, to): (usize, usize),
        letter: Letter,
    ) {
        let us = self.random.below(LETTER_US_MAX);
        let (letters, last_us) = &mut life.letters[to][from];
        letters.push_back(letter);
        *last_us = (*last_us).max(self.now_us + us);
        let at_us = *last_us;
        self.at(at_us, Event::Letter { node, life: life.number, from, to });
    }

    /// Delivers the oldest letter of one worker to another.
    pub(crate) fn deliver_letter(&mut self, node: usize, from: usize, to: usize) {
        let Some(life) = &mut self.processes[node].life else { return };
        match life.letters[to][from].0.pop_front() {
            Some(Letter::Message(message)) => self.push_to(node, to, Input::Told(WorkerId(from as u32), message)),
            Some(Letter::Connection(handle)) => self.adopt(node, handle),
            None => {}
        }
    }

    /// Gives a worker a connection that was handed over to it, with everything that has happened to it meanwhile.
    fn adopt(&mut self, node: usize, handle: ConnectionId) {
        let Some(life) = &mut self.processes[node].life else { return };
        let Some(found) = life.handles.get_mut(&handle) else { return };
        found.moves = false;
        let mut late = life.late.remove(&handle).unwrap_or_default();
        if life.ended.contains(&handle) {
            late.insert(0, Input::Eof(handle));
        }
        [Input::Adopted(handle), Input::Bytes(handle)].into_iter().chain(late).for_each(|input| self.push(node, input));
    }
}
