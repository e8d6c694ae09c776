//! Glob patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^x]` and `\` before a literal byte.
//!
//! Only the last `*` is ever tried again, so a match costs at most pattern times text, whatever the pattern
//! (`a*a*a*a*b` on a long row of a's is the classic way to hang a server).

/// Whether the whole of `text` matches `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on after a mismatch: behind the last star, with one more byte of text given to it.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', behind @ ..] = pattern {
            if behind.is_empty() {
                return true;
            }
            retry = Some((behind, text));
            pattern = behind;
            continue;
        }
        let Some((&byte, rest)) = text.split_first() else { return pattern.is_empty() };
        if let Some(behind) = match_one(pattern, byte) {
            (pattern, text) = (behind, rest);
            continue;
        }
        let Some((behind, [_, from @ ..])) = retry else { return false };
        retry = Some((behind, from));
        (pattern, text) = (behind, from);
    }
}

/// What is left of the pattern if its first element, not a star, matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', behind @ ..] => Some(behind),
        [b'[', class @ ..] => {
            let (matched, behind) = match_class(class, byte);
            matched.then_some(behind)
        }
        [b'\\', literal, behind @ ..] => (*literal == byte).then_some(behind),
        [literal, behind @ ..] => (*literal == byte).then_some(behind),
    }
}

/// Whether `byte` is in the class that starts here, and what is behind it. The end of the pattern ends a class too.
fn match_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut class) = match class {
        [b'^', class @ ..] => (true, class),
        class => (false, class),
    };
    let mut found = false;
    loop {
        class = match class {
            [] => return (found != negated, class),
            [b']', behind @ ..] => return (found != negated, behind),
            [b'\\', literal, behind @ ..] => {
                found |= *literal == byte;
                behind
            }
            [from, b'-', to, behind @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                behind
            }
            [literal, behind @ ..] => {
                found |= *literal == byte;
                behind
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

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
            // `[]` never matches and `[a-]` is the range from `a` to `]` with no end: both follow Redis's reading.
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
        ] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let text = vec![b'a'; 100_000];
        assert!(!matches(b"a*a*a*a*a*a*a*a*a*a*b", &text));
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
        fn any_pattern_ends(pattern: Vec<u8>, text: Vec<u8>) {
            let _ = matches(&pattern, &text);
        }
    }
}
