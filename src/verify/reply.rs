//! Conversion of a server's replies to outcomes.

use super::Outcome;
use net::resp::value::Value;

impl Outcome {
    /// Returns the outcome that a reply to any of the actions tells. None: the command may or may not have been
    /// executed.
    ///
    /// An error leaves nothing changed unless its first word says otherwise. Paxoi promises that, and it is true of
    /// Redis.
    #[must_use]
    pub fn of_reply(reply: &Value) -> Option<Outcome> {
        match reply {
            Value::Null => Some(Outcome::Nil),
            Value::Int(number) => Some(Outcome::Integer(*number)),
            Value::Error(line) => Outcome::of_error(line.as_bytes()),
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) => Some(Outcome::Value(bytes.clone().into())),
            // `+OK`, and replies that no action gets.
            _ => Some(Outcome::Done),
        }
    }

    /// Returns the outcome of an error reply, given as its line without the `-`. None as for [`Outcome::of_reply`].
    #[must_use]
    pub fn of_error(line: &[u8]) -> Option<Outcome> {
        let says = |text: &[u8]| line.starts_with(text);
        if says(b"UNCERTAIN") || says(b"ONCEEXPIRED") {
            return None;
        }
        let is_wrong_value = says(b"ERR value is not an integer") || says(b"ERR increment or decrement would overflow");
        Some(if is_wrong_value { Outcome::WrongValue } else { Outcome::Refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_uncertain_error_leaves_the_fate_open() {
        let outcome = |line: &str| Outcome::of_reply(&Value::Error(line.to_owned()));
        assert_eq!(outcome("UNCERTAIN the command may or may not have been executed"), None);
        assert_eq!(outcome("ONCEEXPIRED the command was not executed now, but may have been executed before"), None);
        for line in ["CLUSTERDOWN Hash slot not served", "LOADING wait", "MISCONF full", "ERR syntax error"] {
            assert_eq!(outcome(line), Some(Outcome::Refused));
        }
        assert_eq!(outcome("ERR value is not an integer or out of range"), Some(Outcome::WrongValue));
        assert_eq!(Outcome::of_reply(&Value::Simple("OK".to_owned())), Some(Outcome::Done));
        assert_eq!(Outcome::of_reply(&Value::Bulk(b"a".to_vec())), Some(Outcome::Value("a".into())));
    }
}
