//! Tests of glob patterns: the matches, compared with a matcher that tries everything, and the cost of a match.

use super::{PATTERN_BYTES_MAX, Pattern, WILDCARDS_MAX};

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    Pattern::compile(pattern).matches(text)
}

#[test]
fn patterns_match_as_in_redis() {
    for (pattern, text) in [
        ("", ""),
        ("*", ""),
        ("*", "abc"),
        ("a*", "a"),
        ("a*c", "abbc"),
        ("*b*", "abc"),
        ("a?c", "abc"),
        ("**", "x"),
        ("h[ae]llo", "hello"),
        ("h[^e]llo", "hallo"),
        ("h[a-b]llo", "hbllo"),
        ("h[b-a]llo", "hallo"),
        ("\\*", "*"),
        ("a\\?c", "a?c"),
        ("[\\]]", "]"),
        ("[a", "a"),
        ("x[a-]", "xb]"),
        ("\\", "\\"),
        ("[^]", "x"),
        ("a[]b", "ab"),
        ("*[0-9]*", "ab7cd"),
        ("a*b*c*d", "aXbXcXbXcXd"),
    ] {
        // As in Redis, `[]` never matches, and `[a-]` is an unterminated class with the range from `a` to `]`.
        let expected = !matches!(pattern, "a[]b" | "x[a-]");
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
    }
    for (pattern, text) in [
        ("", "a"),
        ("a", ""),
        ("?", ""),
        ("a*c", "abbd"),
        ("h[ae]llo", "hillo"),
        ("h[^e]llo", "hello"),
        ("\\*", "x"),
        ("abc", "abcd"),
        ("abcd", "abc"),
        ("A", "a"),
        ("*b", "abc"),
        ("ab*ba", "aba"),
    ] {
        assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
    }
}

/// The pattern of issue 13. A comparison byte by byte at each position of the text took 9.6 s.
#[test]
fn a_class_of_16_000_bytes_costs_one_step_per_text_byte() {
    let pattern = [b"*[".as_slice(), &[b'z'; 16_000], b"]"].concat();
    let compiled = Pattern::compile(&pattern);
    assert_eq!(compiled.tokens.len(), 1);
    let text = vec![b'a'; 100_000];
    assert!(!compiled.matches(&text));
    assert!(compiled.steps(text.len()) <= text.len() / 100, "{}", compiled.steps(text.len()));
    let last = [&text[1..], b"z"].concat();
    assert!(compiled.matches(&last));
}

/// No pattern that a client may send costs more than 64 word operations per text byte.
#[test]
fn the_worst_patterns_have_a_bounded_cost() {
    let text = vec![b'a'; 100_000];
    for part in ["a", "?", "[ab]", "[^b]a"] {
        let many = part.repeat(WILDCARDS_MAX / 2 / part.len());
        for pattern in
            [format!("*{many}b*"), format!("{many}*b*{many}*c"), format!("*{}b", format!("{part}*").repeat(99))]
        {
            assert_eq!(Pattern::check(pattern.as_bytes()), Ok(()));
            let compiled = Pattern::compile(pattern.as_bytes());
            assert!(!compiled.matches(&text), "{part}");
            assert!(compiled.steps(text.len()) <= 1 + text.len() / 2, "{}", compiled.steps(text.len()));
        }
    }
}

#[test]
fn patterns_that_would_cost_more_are_refused() {
    assert_eq!(Pattern::check(&vec![b'a'; PATTERN_BYTES_MAX]), Ok(()));
    assert!(Pattern::check(&vec![b'a'; PATTERN_BYTES_MAX + 1]).is_err());
    // Anchored segments, and segments without a wildcard, cost one comparison each.
    for pattern in [vec![b'?'; 60_000], [vec![b'?'; 30_000], b"*".to_vec(), vec![b'?'; 30_000]].concat()] {
        assert_eq!(Pattern::check(&pattern), Ok(()));
    }
    assert_eq!(Pattern::check(&[b"*".as_slice(), &[b'x'; 60_000], b"*"].concat()), Ok(()));
    assert!(Pattern::check(&[b"*".as_slice(), &[b'?'; WILDCARDS_MAX + 1], b"*"].concat()).is_err());
    assert!(Pattern::check("*?a".repeat(4_000).as_bytes()).is_err());
    // An old log may hold a refused pattern. The pattern matches all the same.
    let refused = Pattern::compile(&[b"*".as_slice(), &[b'?'; WILDCARDS_MAX + 1], b"*"].concat());
    assert!(refused.matches(&vec![b'x'; WILDCARDS_MAX + 1]) && !refused.matches(&vec![b'x'; WILDCARDS_MAX]));
}

/// Returns true if the pattern matches. Tries everything, byte by byte.
fn naive(pattern: &[u8], text: &[u8]) -> bool {
    let one = |behind: &[u8], taken: bool| taken && naive(behind, &text[1..]);
    match (pattern, text.first()) {
        ([], first) => first.is_none(),
        ([b'*', behind @ ..], _) => (0..=text.len()).any(|skip| naive(behind, &text[skip..])),
        (_, None) => false,
        ([b'?', behind @ ..], Some(_)) => one(behind, true),
        ([b'[', class @ ..], Some(byte)) => {
            let (taken, behind) = naive_class(class, *byte);
            one(behind, taken)
        }
        ([b'\\', literal, behind @ ..] | [literal, behind @ ..], Some(byte)) => one(behind, literal == byte),
    }
}

fn naive_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut rest) = class.strip_prefix(b"^").map_or((false, class), |rest| (true, rest));
    let mut found = false;
    loop {
        let (hit, behind) = match rest {
            [] => return (found != negated, rest),
            [b']', behind @ ..] => return (found != negated, behind),
            [b'\\', literal, behind @ ..] => (*literal == byte, behind),
            [from, b'-', to, behind @ ..] => ((*from.min(to)..=*from.max(to)).contains(&byte), behind),
            [literal, behind @ ..] => (*literal == byte, behind),
        };
        (found, rest) = (found | hit, behind);
    }
}

fn bytes_of(alphabet: &'static [u8], count: usize) -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(alphabet), 0..count)
}

proptest::proptest! {
    #[test]
    fn a_text_matches_itself_escaped_and_between_stars(text: Vec<u8>) {
        let escaped: Vec<u8> = text.iter().flat_map(|&byte| [b'\\', byte]).collect();
        assert!(matches(&escaped, &text));
        let starred = [b"*".as_slice(), &escaped, b"*"].concat();
        assert!(matches(&starred, &[b"xx".as_slice(), &text, b"yy"].concat()));
    }

    #[test]
    fn any_pattern_compiles_and_ends(pattern: Vec<u8>, text: Vec<u8>) {
        let _ = matches(&pattern, &text);
    }

    #[test]
    fn what_matches_is_what_trying_everything_finds(
        pattern in bytes_of(b"ab*?[]^-\\", 14), text in bytes_of(b"ab]-", 12)
    ) {
        assert_eq!(matches(&pattern, &text), naive(&pattern, &text));
    }

    /// Segments long enough for the automaton, across the borders of its words.
    #[test]
    fn long_segments_are_found_where_they_are(
        text in bytes_of(b"ab", 300), start in 0_usize..200, length in 9_usize..150, wild in 0_usize..150
    ) {
        let Some(part) = text.get(start..start + length) else { return Ok(()) };
        let mut part = part.to_vec();
        let at = wild % part.len();
        part[at] = b'?';
        let pattern = [b"*".as_slice(), &part, b"*"].concat();
        assert!(matches(&pattern, &text));
        part[(at + 1) % length] = b'c';
        assert!(!matches(&[b"*".as_slice(), &part, b"*"].concat(), &text));
    }
}
