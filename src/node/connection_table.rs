//! A table by connection number. The low 32 bits of a number are a small position; the high bits differ from one
//! connection to the next at that position. So a lookup is one array access, and an old number finds nothing.

use net::event::ConnectionId;

/// Values by the connections of one kind.
pub(super) struct ConnectionTable<T>(Vec<Option<(ConnectionId, T)>>);

impl<T> Default for ConnectionTable<T> {
    fn default() -> ConnectionTable<T> {
        ConnectionTable(Vec::new())
    }
}

impl<T> ConnectionTable<T> {
    /// Adds a connection. It replaces an older one at the same position.
    pub(super) fn insert(&mut self, id: ConnectionId, value: T) {
        let position = id.index();
        if self.0.len() <= position {
            self.0.resize_with(position + 1, || None);
        }
        self.0[position] = Some((id, value));
    }

    /// Removes a connection and returns its value, if it is here.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<T> {
        let slot = self.0.get_mut(id.index())?;
        slot.take_if(|(held, _)| *held == id).map(|(_, value)| value)
    }

    pub(super) fn find(&mut self, id: ConnectionId) -> Option<&mut T> {
        let (held, value) = self.0.get_mut(id.index())?.as_mut()?;
        (*held == id).then_some(value)
    }

    pub(super) fn has(&self, id: ConnectionId) -> bool {
        matches!(self.0.get(id.index()), Some(Some((held, _))) if *held == id)
    }

    /// Returns all values with their connections' numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &T)> {
        self.0.iter().flatten().map(|(id, value)| (*id, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_number_does_not_find_the_next_connection_at_its_position() {
        let (old, new) = (ConnectionId(7), ConnectionId(1 << 32 | 7));
        let mut table = ConnectionTable::default();
        table.insert(old, "old");
        table.insert(new, "new");
        assert!(table.find(old).is_none() && table.remove(old).is_none() && !table.has(old));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(new, &"new")]);
        assert_eq!((table.remove(new), table.has(new)), (Some("new"), false));
    }
}
