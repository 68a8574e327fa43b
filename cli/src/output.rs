//! How a command answers: for a person, or for a program (`-o json`, on every command).

/// Form of the answer on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For a person.
    #[default]
    Human,
    /// One JSON value.
    Json,
}
