//! Sizes as operators write them: `512`, `64kb`, `100mb`, `2gb`. As in Redis, `k`, `m` and `g` are powers of 1000, and
//! `kb`, `mb` and `gb` are powers of 1024. Case does not matter.

/// Parses `text` into bytes. Returns `None` if `text` is not a size, or if it exceeds 64 bits.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        for (text, bytes) in
            [("0", 0), ("7b", 7), ("2k", 2_000), ("2KB", 2_048), ("3mb", 3 << 20), ("1g", 1_000_000_000)]
        {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "kb", "-1", "1.5mb", "1tb", "1 kb", "20000000000gb"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
