//! Maps keys to slots, and slots to groups. Slots are those of Redis Cluster, so that cluster clients compute the same
//! ones: CRC16 (XMODEM) of the key or of its `{tag}`, modulo 16384. A group owns one contiguous range of slots.

use groups::GroupId;
use std::ops::Range;

/// Number of slots in a cluster, as in Redis Cluster.
pub const SLOTS: u16 = 16384;

/// Returns the slot of a key. Only the text between the first `{` and the next `}` counts, if that is not empty.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

/// Returns the group that owns `slot` when there are `groups` groups (1 to 16384).
#[must_use]
pub fn group_of(slot: u16, groups: u32) -> GroupId {
    GroupId(u32::from(slot) * groups / u32::from(SLOTS))
}

/// Returns the slots that `group` owns when there are `groups` groups.
#[must_use]
pub fn slots_of(group: GroupId, groups: u32) -> Range<u16> {
    // The first slot s with s * groups / SLOTS >= g is ceil(g * SLOTS / groups).
    let first = |g: u32| (g * u32::from(SLOTS)).div_ceil(groups) as u16;
    first(group.0)..first(group.0 + 1)
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    match memchr::memchr(b'}', &key[open + 1..]) {
        None | Some(0) => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

/// Takes eight bytes at a time: a key may be megabytes long.
fn crc16(bytes: &[u8]) -> u16 {
    let (blocks, rest) = bytes.as_chunks::<8>();
    let of_block = |crc: u16, block: &[u8; 8]| {
        let first = crc ^ u16::from_be_bytes([block[0], block[1]]);
        let head = [(first >> 8) as u8, first as u8];
        let bytes = head.iter().chain(&block[2..]);
        CRC16.iter().rev().zip(bytes).fold(0, |crc, (table, byte)| crc ^ table[usize::from(*byte)])
    };
    let crc = blocks.iter().fold(0, of_block);
    rest.iter().fold(crc, |crc, &byte| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)])
}

/// The tables of the polynomial x^16 + x^12 + x^5 + 1, most significant bit first, initial value 0. Table `n` is for a
/// byte with `n` other bytes after it.
static CRC16: [[u16; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        let mut i = 0;
        while i < 256 {
            let crc = tables[behind - 1][i];
            tables[behind][i] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            i += 1;
        }
        behind += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_is_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        let by_bit = |bytes: &[u8]| {
            bytes.iter().fold(0_u16, |crc, byte| {
                let shift = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| shift(crc))
            })
        };
        let bytes: Vec<u8> = (0..100_u32).map(|n| ((n * n) >> 3) as u8).collect();
        (0..bytes.len()).for_each(|start| assert_eq!(crc16(&bytes[start..]), by_bit(&bytes[start..]), "{start}"));
    }

    #[test]
    fn only_the_first_whole_tag_counts() {
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }

    #[test]
    fn every_slot_belongs_to_the_group_whose_range_holds_it() {
        for groups in [1, 2, 3, 16, 100, 1000, 16384] {
            let mut next = 0;
            for g in 0..groups {
                let range = slots_of(GroupId(g), groups);
                assert_eq!(range.start, next);
                assert!(range.clone().all(|s| group_of(s, groups) == GroupId(g)));
                next = range.end;
            }
            assert_eq!(next, SLOTS);
        }
    }
}
