//! The program; see [`alexnet_mp::cli`].

fn main() -> std::process::ExitCode {
    alexnet_mp::cli::main()
}
