//! `fivefold config`: a config file with every setting there is, to copy from.

use std::process::ExitCode;

use clap::ValueEnum;
use fivefold_keep::share::template;
use serde_json::json;

use crate::output::{Output, answer};

/// Arguments of `fivefold config`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Whose.
    #[arg(value_enum)]
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    /// cloud.toml
    Cloud,
    /// gateway.toml
    Gateway,
    /// node.toml
    Node,
}

/// Prints it.
#[must_use]
pub fn run(args: &Args, output: Output) -> ExitCode {
    let (file, text) = match args.of {
        Of::Cloud => ("cloud.toml", template::CLOUD),
        Of::Gateway => ("gateway.toml", template::GATEWAY),
        Of::Node => ("node.toml", template::NODE),
    };
    answer(output, &json!({ "file": file, "text": text }), || text.trim_end().to_owned());
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use fivefold_keep::share::{CloudSettings, template};

    #[test]
    fn the_store_of_the_template_is_that_of_init() {
        let settings: CloudSettings = toml::from_str(template::CLOUD).unwrap();
        assert_eq!(settings.store, std::path::Path::new("readings.db"));
    }
}
