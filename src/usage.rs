//! Usage errors: a wrong flag, setting or path. The process ends with code 2 and one line.

/// A wrong flag or setting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Returns the error with this text.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}
