//! What can go wrong for a user, and the exit code each kind has.

/// An error with one line for the user: what, where, expected and found, and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong flags, configuration values, or combinations of them.
    #[error("{0}")]
    Usage(String),
    /// Images, labels, shards, statistics.
    #[error("{0}")]
    Data(String),
    /// Checkpoints and weight files.
    #[error("{0}")]
    Checkpoint(String),
    /// GPUs, drivers, device memory, peer copies.
    #[error("{0}")]
    Device(String),
    /// NaN, infinity, explosion.
    #[error("{0}")]
    Numeric(String),
    /// Stopped by this signal (2: SIGINT, 15: SIGTERM) after the state was saved.
    #[error("stopped by {}", if *.0 == 2 { "SIGINT" } else { "SIGTERM" })]
    Interrupted(i32),
}

impl Error {
    /// The process exit code: 2 usage, 3 data, 4 checkpoint, 5 device, 6 numeric, 128 + signal.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Data(_) => 3,
            Error::Checkpoint(_) => 4,
            Error::Device(_) => 5,
            Error::Numeric(_) => 6,
            Error::Interrupted(signal) => 128u8.wrapping_add(*signal as u8),
        }
    }
}

/// A result whose error has a fitting exit code.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident => $kind:ident),*) => {
        $(
            #[doc = concat!("An [`Error::", stringify!($kind), "`] with this message.")]
            pub fn $name(message: impl Into<String>) -> Error {
                Error::$kind(message.into())
            }
        )*
    };
}
constructors!(usage => Usage, data => Data, checkpoint => Checkpoint, device => Device, numeric => Numeric);

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
}
