//! The values of one key, each with a number. Equal contents have equal numbers, however they came about.
//!
//! A value that grew by appending is kept as its parts, so that a thousand such values do not cost a million bytes. It
//! is found by a hash of its content that is computed from the hashes of the parts.

use bytes::Bytes;
use hashbrown::HashTable;
use std::collections::BTreeMap;

/// The number of a value.
pub(super) type ValueId = u32;
/// No value at all.
pub(super) const ABSENT: ValueId = 0;

/// An odd number without a pattern. The hash of a content is a polynomial at this point, modulo 2^64.
const POINT: u64 = 0x9E37_79B9_7F4A_7C15;
/// Maximum length of the text of a 64-bit integer.
const INTEGER_BYTES_MAX: usize = 20;

#[derive(Debug)]
pub(super) struct Values {
    nodes: Vec<Node>,
    by_content: HashTable<ValueId>,
    joined: BTreeMap<(ValueId, ValueId), ValueId>,
}

#[derive(Debug)]
struct Node {
    form: Form,
    bytes: usize,
    hash: u64,
    /// The value as an integer, if it is the text of one (0 for no value).
    number: Option<i64>,
}

#[derive(Clone, Debug)]
enum Form {
    Whole(Bytes),
    Joined { front: ValueId, back: ValueId },
}

impl Values {
    pub(super) fn new() -> Values {
        let absent = Node { form: Form::Whole(Bytes::new()), bytes: 0, hash: 0, number: Some(0) };
        Values { nodes: vec![absent], by_content: HashTable::new(), joined: BTreeMap::new() }
    }

    /// Returns the number of values, with the absent one.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the length of a value; 0 if there is none.
    pub(super) fn bytes(&self, id: ValueId) -> usize {
        self.nodes[id as usize].bytes
    }

    pub(super) fn intern(&mut self, content: &Bytes) -> ValueId {
        let hash = content.iter().fold(0, |hash: u64, byte| {
            hash.wrapping_mul(POINT).wrapping_add(u64::from(*byte) + 1) // zeros count
        });
        self.find_or_add(Node { form: Form::Whole(content.clone()), bytes: content.len(), hash, number: None })
    }

    /// Returns the value `front` (which may be absent) followed by `back`.
    pub(super) fn join(&mut self, front: ValueId, back: ValueId) -> ValueId {
        if front == ABSENT {
            return back;
        }
        if let Some(&id) = self.joined.get(&(front, back)) {
            return id;
        }
        let (first, second) = (&self.nodes[front as usize], &self.nodes[back as usize]);
        let hash = first.hash.wrapping_mul(power(second.bytes)).wrapping_add(second.hash);
        let bytes = first.bytes + second.bytes;
        let id = self.find_or_add(Node { form: Form::Joined { front, back }, bytes, hash, number: None });
        self.joined.insert((front, back), id);
        id
    }

    /// Returns a value as an integer: 0 for no value, `None` if the value is not an integer as Redis writes it.
    pub(super) fn integer(&self, id: ValueId) -> Option<i64> {
        self.nodes[id as usize].number
    }

    pub(super) fn intern_integer(&mut self, number: i64) -> ValueId {
        self.intern(&Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes()))
    }

    /// Compares the value `id` with the part of `content` that begins at `at`. Returns true if the two are equal up to
    /// the end of the shorter one.
    pub(super) fn agrees(&self, id: ValueId, content: &[u8], at: usize) -> bool {
        let rest = content.get(at..).unwrap_or_default();
        let own = self.content(&self.nodes[id as usize]);
        own.iter().zip(rest).all(|(own, other)| own == other)
    }

    fn find_or_add(&mut self, node: Node) -> ValueId {
        let same = |id: &ValueId| {
            let other = &self.nodes[*id as usize];
            (other.hash, other.bytes) == (node.hash, node.bytes) && self.content(other) == self.content(&node)
        };
        if let Some(&id) = self.by_content.find(spread(node.hash), same) {
            return id;
        }
        let (id, hash, number) = (self.nodes.len() as ValueId, node.hash, self.parse(&node));
        self.nodes.push(Node { number, ..node });
        let nodes = &self.nodes;
        self.by_content.insert_unique(spread(hash), id, |id| spread(nodes[*id as usize].hash));
        id
    }

    fn parse(&self, node: &Node) -> Option<i64> {
        if node.bytes > INTEGER_BYTES_MAX {
            return None;
        }
        let content = self.content(node);
        let number: i64 = std::str::from_utf8(&content).ok()?.parse().ok()?;
        (itoa::Buffer::new().format(number).as_bytes() == content).then_some(number)
    }

    /// Returns the content, put together from the back.
    fn content(&self, node: &Node) -> Bytes {
        let (mut front, mut back) = match &node.form {
            Form::Whole(content) => return content.clone(),
            Form::Joined { front, back } => (*front, *back),
        };
        let mut content = vec![0; node.bytes];
        let mut end = node.bytes;
        loop {
            // An appended part is stored whole, so this call does not recurse further.
            let part = self.content(&self.nodes[back as usize]);
            end -= part.len();
            content[end..end + part.len()].copy_from_slice(&part);
            match &self.nodes[front as usize].form {
                Form::Whole(first) => {
                    content[..end].copy_from_slice(first);
                    return content.into();
                }
                Form::Joined { front: next, back: last } => (front, back) = (*next, *last),
            }
        }
    }
}

/// Mixes a hash for the tables. The high and the low bits of a polynomial depend on few of its coefficients, and tables
/// look at both.
fn spread(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(POINT);
    hash ^ (hash >> 29)
}

/// Returns `POINT` to the power of `exponent`.
fn power(mut exponent: usize) -> u64 {
    let (mut square, mut result) = (POINT, 1_u64);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_have_equal_numbers_however_they_came_about() {
        let mut values = Values::new();
        let [a, b, ab, aba] = ["a", "b", "ab", "aba"].map(|text| values.intern(&text.into()));
        let joined = values.join(a, b);
        assert_eq!(joined, ab);
        assert_eq!(values.join(joined, a), aba);
        let ba = values.join(b, a);
        assert_eq!(values.join(ba, b), values.intern(&"bab".into()));
        assert_ne!(ba, ab);
        assert_eq!(values.join(ABSENT, a), a);
        assert_eq!(values.bytes(aba), 3);
        assert_ne!(values.intern(&Bytes::new()), ABSENT);
        assert_ne!(values.intern(&"\0".into()), values.intern(&"\0\0".into()));
    }

    #[test]
    fn integers_are_those_that_redis_takes() {
        let mut values = Values::new();
        let mut integer = |text: &'static str| {
            let id = values.intern(&text.into());
            values.integer(id)
        };
        assert_eq!(["0", "-1", "9223372036854775807"].map(&mut integer), [Some(0), Some(-1), Some(i64::MAX)]);
        for text in ["", "+1", "01", "-0", " 1", "1.0", "9223372036854775808", "x"] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert_eq!(values.integer(ABSENT), Some(0));
        let two = values.intern_integer(2);
        let joined = values.join(two, two);
        assert_eq!(values.integer(joined), Some(22));
    }
}
