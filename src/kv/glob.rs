//! Glob patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^x]` and `\` before a literal byte.
//!
//! A command compiles its pattern once. The stars cut the pattern into segments of fixed length. The first segment is
//! anchored at the start of the text, the last one at its end. Each segment between them takes the leftmost match in
//! the rest of the text, so the matcher never backtracks. A segment of plain bytes is found in linear time (two-way
//! search). A segment with wildcards is found by a bit-parallel automaton: one word operation per text byte and 64
//! pattern bytes. So a match costs at most `pattern + text * WILDCARDS_MAX / 64`.

use memchr::memmem::Finder;
use std::ops::Range;

/// Maximum bytes of a pattern that a client may send.
pub const PATTERN_BYTES_MAX: usize = 64 << 10;
/// Maximum elements (`?`, classes, and plain bytes) of a pattern, summed over its segments between two stars. Segments
/// without a wildcard do not count. A match costs one word operation per text byte for each 64 of these elements.
pub const WILDCARDS_MAX: usize = 4_096;

/// A compiled pattern.
#[derive(Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
    classes: Vec<Class>,
    /// The segments before, between and after the stars. A pattern without a star has one segment.
    segments: Vec<Segment>,
    /// The shortest text that can match, in bytes.
    text_bytes_min: usize,
}

/// An element of a pattern. It matches one byte.
#[derive(Clone, Copy, Debug)]
enum Token {
    Any,
    Byte(u8),
    /// The index of a class.
    Class(u32),
}

/// A set of bytes: one bit for each byte.
type Class = [u64; 4];

/// Tokens without a star between them.
#[derive(Debug)]
struct Segment {
    tokens: Range<usize>,
    search: Search,
}

/// The search method for a segment between two stars.
#[derive(Debug)]
enum Search {
    Literal(Box<Finder<'static>>),
    /// The masks of each byte: bit `n` is set if token `n` matches the byte.
    Automaton(Box<[u64]>),
    /// Compares the segment at each offset of the text in turn. Used for short segments, and if a pattern has more than
    /// [`WILDCARDS_MAX`] elements.
    EachPlace,
}

impl Pattern {
    /// Compiles a pattern. Every sequence of bytes is a pattern. Time and memory are proportional to its length.
    #[must_use]
    pub fn compile(pattern: &[u8]) -> Pattern {
        let (mut tokens, mut classes, mut cuts) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = pattern;
        loop {
            rest = match rest {
                [] => break,
                [b'*', behind @ ..] => {
                    cuts.push(tokens.len());
                    behind
                }
                [b'?', behind @ ..] => {
                    tokens.push(Token::Any);
                    behind
                }
                [b'[', class @ ..] => {
                    let (class, behind) = parse_class(class);
                    tokens.push(token_of(class, &mut classes));
                    behind
                }
                [b'\\', literal, behind @ ..] | [literal, behind @ ..] => {
                    tokens.push(Token::Byte(*literal));
                    behind
                }
            };
        }
        Pattern::of(tokens, classes, &cuts)
    }

    fn of(tokens: Vec<Token>, classes: Vec<Class>, cuts: &[usize]) -> Pattern {
        let text_bytes_min = tokens.len();
        let (first, last) = (cuts.first().copied(), cuts.last().copied());
        let anchored = |tokens| Segment { tokens, search: Search::EachPlace };
        let mut pattern = Pattern { tokens, classes, segments: Vec::new(), text_bytes_min };
        pattern.segments.push(anchored(0..first.unwrap_or(text_bytes_min)));
        let between = cuts.windows(2).map(|cut| cut[0]..cut[1]).filter(|tokens| !tokens.is_empty());
        let between: Vec<Range<usize>> = between.collect();
        let wildcards: usize = between.iter().filter(|tokens| pattern.literal(tokens).is_none()).map(Range::len).sum();
        for tokens in between {
            let search = match pattern.literal(&tokens) {
                Some(bytes) => Search::Literal(Box::new(Finder::new(&bytes).into_owned())),
                // A pattern from an old log may have more wildcards than a client may send.
                None if tokens.len() <= SHORT_TOKENS_MAX || wildcards > WILDCARDS_MAX => Search::EachPlace,
                None => Search::Automaton(pattern.automaton(&tokens)),
            };
            pattern.segments.push(Segment { tokens, search });
        }
        pattern.segments.extend(last.map(|last| anchored(last..text_bytes_min)));
        pattern
    }

    /// Checks whether a client may use this pattern.
    ///
    /// # Errors
    /// If `pattern` is longer than [`PATTERN_BYTES_MAX`], or has more than [`WILDCARDS_MAX`] elements in segments with
    /// wildcards between stars. The error is one line of text for the client.
    pub fn check(pattern: &[u8]) -> Result<(), &'static str> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err("ERR the pattern is longer than 65536 bytes");
        }
        if pattern.len() <= WILDCARDS_MAX {
            return Ok(());
        }
        let compiled = Pattern::compile(pattern);
        let segments = compiled.segments.iter().skip(1).rev().skip(1);
        let wild = segments.filter(|segment| !matches!(segment.search, Search::Literal(_)));
        if wild.map(|segment| segment.tokens.len()).sum::<usize>() > WILDCARDS_MAX {
            return Err("ERR the pattern is too complex: parts with ? or [ between stars have more than 4096 elements");
        }
        Ok(())
    }

    /// Returns true if the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if text.len() < self.text_bytes_min {
            return false;
        }
        let Some((first, rest)) = self.segments.split_first() else { return false };
        let Some((last, between)) = rest.split_last() else {
            return text.len() == self.text_bytes_min && self.fits(first, text);
        };
        let (head, text) = text.split_at(first.tokens.len());
        let (mut text, tail) = text.split_at(text.len() - last.tokens.len());
        if !self.fits(first, head) || !self.fits(last, tail) {
            return false;
        }
        for segment in between {
            let Some(start) = self.find(segment, text) else { return false };
            text = &text[start + segment.tokens.len()..];
        }
        true
    }

    /// Maximum cost of matching a text of `text_bytes` bytes, in steps of [`groups::WorkBudget`].
    #[must_use]
    pub fn steps(&self, text_bytes: usize) -> usize {
        let words = |segment: &Segment| match segment.search {
            Search::Automaton(_) => segment.tokens.len().div_ceil(WORD_BITS),
            _ => 1,
        };
        let words_max = self.segments.iter().take(SEGMENTS_WEIGHED).map(words).max().unwrap_or(1);
        let words_max = if self.segments.len() > SEGMENTS_WEIGHED { WILDCARDS_MAX / WORD_BITS } else { words_max };
        1 + text_bytes.saturating_mul(words_max) / WORDS_PER_STEP
    }

    /// Returns true if `text` matches the segment. `text` must be as long as the segment.
    fn fits(&self, segment: &Segment, text: &[u8]) -> bool {
        self.tokens[segment.tokens.clone()].iter().zip(text).all(|(token, byte)| self.takes(*token, *byte))
    }

    /// The leftmost place of a segment in `text`.
    fn find(&self, segment: &Segment, text: &[u8]) -> Option<usize> {
        match &segment.search {
            Search::Literal(finder) => finder.find(text),
            Search::Automaton(masks) => run(masks, segment.tokens.len(), text),
            Search::EachPlace => text.windows(segment.tokens.len()).position(|window| self.fits(segment, window)),
        }
    }

    fn takes(&self, token: Token, byte: u8) -> bool {
        match token {
            Token::Any => true,
            Token::Byte(literal) => literal == byte,
            Token::Class(index) => contains(&self.classes[index as usize], byte),
        }
    }

    /// The bytes of a segment without wildcards.
    fn literal(&self, tokens: &Range<usize>) -> Option<Vec<u8>> {
        let byte = |token: &Token| if let Token::Byte(byte) = token { Some(*byte) } else { None };
        self.tokens[tokens.clone()].iter().map(byte).collect()
    }

    /// Builds the masks of an automaton: the words of byte 0, then those of byte 1, and so on.
    fn automaton(&self, tokens: &Range<usize>) -> Box<[u64]> {
        let words = tokens.len().div_ceil(WORD_BITS);
        let mut masks = vec![0; 256 * words].into_boxed_slice();
        for (place, token) in self.tokens[tokens.clone()].iter().enumerate() {
            let (word, bit) = (place / WORD_BITS, 1 << (place % WORD_BITS));
            match token {
                Token::Byte(byte) => masks[usize::from(*byte) * words + word] |= bit,
                token => {
                    let taken = (0..=u8::MAX).filter(|byte| self.takes(*token, *byte));
                    taken.for_each(|byte| masks[usize::from(byte) * words + word] |= bit);
                }
            }
        }
        masks
    }
}

/// Shift-And search. Returns the leftmost place. Bit `n` of the state is set if the tokens up to `n` match the bytes up
/// to the current one.
fn run(masks: &[u64], tokens: usize, text: &[u8]) -> Option<usize> {
    let words = masks.len() / 256;
    let last = 1_u64 << ((tokens - 1) % WORD_BITS);
    let mut state = vec![0_u64; words];
    for (at, byte) in text.iter().enumerate() {
        let mask = &masks[usize::from(*byte) * words..][..words];
        let mut carry = 1;
        for (word, mask) in state.iter_mut().zip(mask) {
            let shifted = *word << 1 | carry;
            carry = *word >> (WORD_BITS - 1);
            *word = shifted & mask;
        }
        if state[words - 1] & last != 0 {
            return Some(at + 1 - tokens);
        }
    }
    None
}

/// Parses the class at the start of `class`. Returns it, and the rest of the pattern. The end of the pattern ends a
/// class too.
fn parse_class(class: &[u8]) -> (Class, &[u8]) {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut class = [0; 4];
    let behind = loop {
        rest = match rest {
            [] => break rest,
            [b']', behind @ ..] => break behind,
            [b'\\', literal, behind @ ..] => {
                insert(&mut class, *literal);
                behind
            }
            [from, b'-', to, behind @ ..] => {
                (*from.min(to)..=*from.max(to)).for_each(|byte| insert(&mut class, byte));
                behind
            }
            [literal, behind @ ..] => {
                insert(&mut class, *literal);
                behind
            }
        }
    };
    if negated {
        class.iter_mut().for_each(|word| *word = !*word);
    }
    (class, behind)
}

/// The token for a class: a class of one byte becomes that byte, and a class of all bytes becomes `?`.
fn token_of(class: Class, classes: &mut Vec<Class>) -> Token {
    let bytes: u32 = class.iter().map(|word| word.count_ones()).sum();
    let only = || (0..=u8::MAX).find(|byte| contains(&class, *byte)).unwrap_or_default();
    match bytes {
        1 => Token::Byte(only()),
        256 => Token::Any,
        _ => {
            classes.push(class);
            Token::Class(classes.len() as u32 - 1)
        }
    }
}

fn insert(class: &mut Class, byte: u8) {
    class[usize::from(byte) / WORD_BITS] |= 1 << (usize::from(byte) % WORD_BITS);
}

fn contains(class: &Class, byte: u8) -> bool {
    class[usize::from(byte) / WORD_BITS] >> (usize::from(byte) % WORD_BITS) & 1 == 1
}

const WORD_BITS: usize = 64;
/// Maximum tokens of a segment that is compared at each offset of the text. For so short a segment this costs less than
/// an automaton.
const SHORT_TOKENS_MAX: usize = 8;
/// Word operations that cost one step: about the time of looking at one key.
const WORDS_PER_STEP: usize = 128;
/// Maximum segments of a pattern whose cost [`Pattern::steps`] computes. For more segments it assumes the highest cost.
const SEGMENTS_WEIGHED: usize = 16;

#[cfg(test)]
#[path = "tests/glob.rs"]
mod tests;
