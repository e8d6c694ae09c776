//! A cursor over untrusted bytes. Every read checks the bytes that are left, and no memory is allocated for a length
//! that is only claimed.

use thiserror::Error;

/// The reason why bytes are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end too soon.
    #[error("the command ends too soon")]
    Truncated,
    /// Something follows the command.
    #[error("bytes follow the command")]
    Trailing,
    /// The command is for another state machine.
    #[error("the command is for another state machine")]
    OtherMachine,
    /// The op number is unknown.
    #[error("the command's op number is unknown")]
    UnknownOp,
    /// An argument is out of range.
    #[error("an argument of the command is out of range")]
    BadValue,
    /// A command that must stand alone stands inside another.
    #[error("a session command or transaction stands inside another command")]
    Nested,
}

/// The bytes that are left to read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(left: &'a [u8]) -> Reader<'a> {
        Reader { left }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.left.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, left) = self.left.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.left = left;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        self.choice(&[false, true])
    }

    /// Reads one of the choices, by its index in a byte.
    pub(super) fn choice<T: Copy>(&mut self, choices: &[T]) -> Result<T, DecodeError> {
        choices.get(usize::from(self.u8()?)).copied().ok_or(DecodeError::BadValue)
    }

    /// Reads bytes behind their u32 length.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        let (bytes, left) = self.left.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.left = left;
        Ok(bytes)
    }

    /// Reads items behind their u32 count. Each item takes at least the four bytes of a length, so a count that cannot
    /// fit is refused at once. Memory grows as items are read.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.left.len() / 4 {
            return Err(DecodeError::Truncated);
        }
        let mut items = Vec::with_capacity(count.min(ITEMS_AT_ONCE));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Maximum items for which a list's count alone reserves memory.
const ITEMS_AT_ONCE: usize = 1024;
