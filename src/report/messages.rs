//! Lines beside the progress bars: messages on stderr, results on stdout.
//!
//! All bars of the process belong to one `MultiProgress`, so that a line is written above the
//! bars instead of through them: give [`messages`] to the tracing subscriber and print results
//! with [`result`].

use std::io::{self, IsTerminal, Write};
use std::sync::{LazyLock, OnceLock};

use crate::error::{Result, data};
use indicatif::MultiProgress;
use tracing_subscriber::fmt::MakeWriter;

/// The bars of this process.
pub(super) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether messages on stderr may use colours: on a terminal that is not dumb, unless NO_COLOR
/// is set. For the tracing subscriber's `with_ansi`.
pub fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    on_terminal() && !refused
}

/// Whether stderr is a terminal that can move its cursor.
pub(super) fn on_terminal() -> bool {
    let dumb = std::env::var("TERM").is_ok_and(|terminal| terminal == "dumb");
    io::stderr().is_terminal() && !dumb
}

/// Why a result could not be written, where one could not: see [`written`].
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// Prints a result to stdout, above the bars if there are any. What cannot be written is told by
/// [`written`], at the end of the command.
pub fn result(text: &str) {
    BARS.suspend(|| {
        let mut stdout = io::stdout().lock();
        note_unwritten(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
    });
}

/// Remembers why something could not be written to stdout. A reader that has gone away (`| head`)
/// is no error.
pub fn note_unwritten(outcome: io::Result<()>) {
    if let Some(error) = outcome
        .err()
        .filter(|e| e.kind() != io::ErrorKind::BrokenPipe)
    {
        UNWRITTEN.get_or_init(|| error.to_string());
    }
}

/// Whether all results have reached stdout.
///
/// # Errors
/// `Data`, with what the system said.
pub fn written() -> Result<()> {
    match UNWRITTEN.get() {
        None => Ok(()),
        Some(why) => Err(data(format!(
            "the result cannot be written to stdout: {why}"
        ))),
    }
}

/// Prints the error a command ends with to stderr, in one line, above the bars.
pub fn error(text: &str) {
    BARS.suspend(|| {
        let label = if colours() {
            "\x1b[1;31merror:\x1b[0m"
        } else {
            "error:"
        };
        let _ = writeln!(io::stderr().lock(), "{label} {}", text.replace('\n', " "));
    });
}

/// Where the tracing subscriber writes: stderr, above the bars.
///
/// ```
/// use alexnet_mp::report::messages::{colours, messages};
/// let subscriber = tracing_subscriber::fmt().with_ansi(colours()).with_writer(messages());
/// ```
pub fn messages() -> Messages {
    Messages { _private: () }
}

/// See [`messages`].
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    _private: (),
}

impl<'a> MakeWriter<'a> for Messages {
    type Writer = Above<'a>;

    fn make_writer(&'a self) -> Above<'a> {
        Above::new(&BARS, Box::new(io::stderr()))
    }
}

/// Collects one message and writes it above the bars when dropped.
pub struct Above<'a> {
    bars: &'a MultiProgress,
    sink: Box<dyn Write>,
    message: Vec<u8>,
}

impl<'a> Above<'a> {
    pub(super) fn new(bars: &'a MultiProgress, sink: Box<dyn Write>) -> Self {
        Above {
            bars,
            sink,
            message: Vec::new(),
        }
    }
}

impl Write for Above<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.message.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let message = std::mem::take(&mut self.message);
        self.bars.suspend(|| self.sink.write_all(&message))
    }
}

impl Drop for Above<'_> {
    fn drop(&mut self) {
        if !self.message.is_empty() {
            let _ = self.flush();
        }
    }
}
