//! Names of files that count 1, 2, 3…: segments of the log, and checkpoints.

/// A kind of numbered file: a prefix, then 16 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered(pub(super) &'static str);

impl Numbered {
    /// Returns the name of the file with this number.
    pub(super) fn name(self, sequence: u64) -> String {
        format!("{}{sequence:016x}", self.0)
    }

    /// Returns the number in a name; `None` for names of other files, such as copies that somebody put aside.
    pub(super) fn sequence(self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(self.0)?;
        let sequence = u64::from_str_radix(digits, 16).ok()?;
        (self.name(sequence) == name).then_some(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_any_other_name_has_no_number() {
        let files = Numbered("log-");
        assert_eq!(files.name(0x1f), "log-000000000000001f");
        assert_eq!(files.sequence("log-000000000000001f"), Some(0x1f));
        for other in ["log-1f", "log-000000000000001F", "log-000000000000001f.new", "log-", "old-000000000000001f"] {
            assert_eq!(files.sequence(other), None, "{other}");
        }
    }
}
