//! The command line: one file per command.

mod bench;
mod compare;
mod device_choice;
mod devices;
mod draw;
mod evaluate;
mod export;
mod import;
mod inference;
mod model;
mod open;
mod pictures;
mod plan;
mod predict;
mod prepare;
mod roofline;
mod similar;
mod step;
mod train;
mod verify;

use crate::error::{Error, Result, panic_text};
use crate::fault;
use crate::report::messages;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Exit code of a bug of this program, as Rust has it.
const PANICKED: u8 = 101;

/// AlexNet split over two GPUs, as it was first trained.
///
/// Two columns, one per GPU: conv2, conv4 and conv5 see only the maps of their own column, conv3
/// and the fully connected layers read both. Without GPUs the columns run on CPU devices.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Start with: alexnet-mp train"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Only results and warnings, no progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Train),
    Step(step::Step),
    Plan(plan::Plan),
    Verify(verify::Verify),
    Devices(devices::Devices),
    Bench(bench::Bench),
    Evaluate(evaluate::Evaluate),
    Predict(predict::Predict),
    Prepare(prepare::Prepare),
    Similar(similar::Similar),
    Draw(draw::Draw),
    Export(export::Export),
    Import(import::Import),
    Compare(compare::Compare),
}

/// Parses the process's arguments, runs the command, and prints its error, if any, in one line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, errors to stderr with clap's code 2.
            let code = if error.use_stderr() { 2 } else { 0 };
            messages::note_unwritten(error.print());
            return match messages::written() {
                Err(error) if code == 0 => {
                    messages::error(&error.to_string());
                    ExitCode::from(error.exit_code())
                }
                _ => ExitCode::from(code),
            };
        }
    };
    log_to_stderr(cli.quiet);
    // A panic is told in one line, by whoever catches it; where it was goes to the log.
    std::panic::set_hook(Box::new(|panic| tracing::debug!("{panic}")));
    let ran = std::panic::catch_unwind(|| {
        if fault::install()? {
            tracing::warn!("{} is set: this run fails on purpose", fault::VARIABLE);
        }
        run(cli)?;
        messages::written()
    });
    let (text, code) = match ran {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => (error.to_string(), error.exit_code()),
        Err(panic) => {
            let text = panic_text(&*panic);
            let remedy = "please report it with what RUST_LOG=debug says";
            (format!("internal error: {text}; {remedy}"), PANICKED)
        }
    };
    messages::error(&text);
    ExitCode::from(code)
}

fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Train(command) => command.run(cli.quiet),
        Command::Step(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Evaluate(command) => command.run(cli.quiet),
        Command::Predict(command) => command.run(cli.quiet),
        Command::Prepare(command) => command.run(cli.quiet),
        Command::Similar(command) => command.run(cli.quiet),
        Command::Draw(command) => command.run(cli.quiet),
        Command::Export(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Compare(command) => command.run(cli.quiet),
    }
}

/// Messages of the program on stderr, above the progress bars; `RUST_LOG` chooses more.
fn log_to_stderr(quiet: bool) {
    use tracing_subscriber::EnvFilter;
    let default = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .without_time()
        .with_ansi(messages::colours())
        .with_writer(messages::messages())
        .init();
}
