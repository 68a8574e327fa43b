//! The report: for people, and for programs.

mod json;
mod text;

pub use json::json;
pub use text::text;

use crate::Audit;

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    #[default]
    Text,
    /// One JSON value.
    Json,
}

impl Format {
    /// The report.
    pub fn write(self, audit: &Audit) -> String {
        match self {
            Self::Text => text(audit),
            Self::Json => json(audit).to_string(),
        }
    }
}
