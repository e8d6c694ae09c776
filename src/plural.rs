//! Plural endings in texts for people: `1 frame`, `2 frames`.

/// Returns the ending for the name of `count` things: nothing for one, an `s` for any other number.
#[must_use]
pub fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        let told = [0, 1, 2].map(|count| format!("{count} frame{}", plural(count)));
        assert_eq!(told, ["0 frames", "1 frame", "2 frames"]);
    }
}
