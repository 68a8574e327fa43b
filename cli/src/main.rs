//! The one command of Fivefold.

fn main() -> std::process::ExitCode {
    fivefold::main(std::env::args_os())
}
