//! Little-endian numbers at fixed places of a header. The formats of the log and of checkpoints are made of these.

/// Writes `value` at byte `at`.
///
/// # Panics
/// If `bytes` is shorter than `at + N`.
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Returns the `N` bytes at byte `at`.
///
/// # Panics
/// If `bytes` is shorter than `at + N`.
pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

/// Returns the number in the 4 bytes at byte `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

/// Returns the number in the 8 bytes at byte `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}
