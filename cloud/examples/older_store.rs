//! Takes the store of a cloud that is not running back to the form that an earlier version left it in, for tests of upgrades:
//!
//!     older_store FILE VERSION
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../tests/common/older.rs"]
mod older;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(Ok(version)), None) = (args.next(), args.next().map(|v| v.parse()), args.next()) else {
        eprintln!(
            "older_store: say the store's file, and after which migration it shall look: older_store cloud/readings.db 9"
        );
        std::process::exit(2);
    };
    assert!(std::path::Path::new(&path).is_file(), "{path} is no store");
    older::take_back(path.as_ref(), version);
}
