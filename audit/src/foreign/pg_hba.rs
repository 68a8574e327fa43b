//! `pg_hba.conf` of PostgreSQL, as its manual describes it (chapter "Client Authentication").
//!
//! The first record that fits decides. A record that refuses what has no TLS, for everybody from everywhere, therefore
//! mends the ones below it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::files::{Walk, beside};
use super::lines::words;
use super::{Notes, Unread, shown};

/// What begins a record for connections over a network.
const KINDS: [&str; 5] = ["host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];

/// Looks at who gets into a database, and how.
///
/// # Errors
/// [`Unread::Form`]: not one of its lines is a record.
pub fn examine(path: &Path, text: &str, walk: &mut Walk<'_>, notes: &mut Notes) -> Result<(), Unread> {
    let mut book = Book::default();
    book.read(path, text, walk, notes);
    if book.lines == (false, true) {
        return Err(Unread::Form("a pg_hba.conf: none of its lines is a record of one".into(), 0));
    }
    Ok(())
}

/// What was refused so far, for every database and everybody.
#[derive(Debug, Default)]
struct Book {
    /// From IPv4 and from IPv6: what has no TLS.
    clear: [bool; 2],
    /// The same: everything.
    all: [bool; 2],
    /// Whether any line is a record, and whether any is none.
    lines: (bool, bool),
}

/// From where a record lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Anywhere, of IPv4, of IPv6 or both.
    Anywhere([bool; 2]),
    /// This machine.
    Here,
    /// Somewhere else.
    Some,
}

impl From {
    fn of(address: &str, mask: Option<&str>) -> Self {
        match address {
            "all" => return Self::Anywhere([true, true]),
            "samehost" => return Self::Here,
            _ => {}
        }
        let (ip, bits) = match address.split_once('/') {
            Some((ip, bits)) => (ip, bits.parse::<u8>().ok()),
            None => (address, mask.and_then(mask_bits)),
        };
        let Ok(ip) = ip.parse::<IpAddr>() else {
            return if address.eq_ignore_ascii_case("localhost") { Self::Here } else { Self::Some };
        };
        match (ip, bits) {
            (IpAddr::V4(_), Some(0)) => Self::Anywhere([true, false]),
            (IpAddr::V6(_), Some(0)) => Self::Anywhere([false, true]),
            (IpAddr::V4(ip), Some(8..)) if ip.is_loopback() => Self::Here,
            (IpAddr::V6(ip), Some(128)) if ip.is_loopback() => Self::Here,
            _ => Self::Some,
        }
    }
}

fn mask_bits(mask: &str) -> Option<u8> {
    let ones = match mask.parse().ok()? {
        IpAddr::V4(ip) => ip.to_bits().leading_ones(),
        IpAddr::V6(ip) => ip.to_bits().leading_ones(),
    };
    u8::try_from(ones).ok()
}

/// Lines with their numbers; one that ends with a backslash goes on in the next.
fn records(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (line, text) in text.lines().enumerate() {
        let (text, more) = text.strip_suffix('\\').map_or((text, false), |t| (t, true));
        match all.last_mut().filter(|_| goes_on) {
            Some((_, before)) => before.push_str(text),
            None => all.push((line + 1, text.to_owned())),
        }
        goes_on = more;
    }
    all
}

impl Book {
    fn read(&mut self, path: &Path, text: &str, walk: &mut Walk<'_>, notes: &mut Notes) {
        for (line, record) in records(text) {
            let words = words(&record);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut is_record = true;
            match words.as_slice() {
                [] => continue,
                [how @ ("include" | "include_if_exists" | "include_dir"), what, ..] => {
                    self.include(path, line, how, what, walk, notes);
                }
                ["local", _, _, method, ..] => local(path, line, method, notes),
                [kind, databases, users, address, rest @ ..] if KINDS.contains(kind) && !rest.is_empty() => {
                    let is_mask = !address.contains('/') && address.parse::<IpAddr>().is_ok();
                    let (mask, method) = match rest {
                        [mask, method, ..] if is_mask => (Some(*mask), *method),
                        [method, ..] => (None, *method),
                        [] => (None, ""),
                    };
                    let record = Record { kind, databases, users, from: From::of(address, mask), address, method };
                    self.host(path, line, &record, notes);
                }
                // Nobody knows what it is, so no word of it is repeated.
                _ => {
                    is_record = false;
                    notes.say(super::NOT_EXAMINED, path, line, "this line is no record of pg_hba.conf");
                }
            }
            self.lines = (self.lines.0 | is_record, self.lines.1 | !is_record);
        }
    }

    fn include(&mut self, path: &Path, line: usize, how: &str, what: &str, walk: &mut Walk<'_>, notes: &mut Notes) {
        let target = beside(path, what);
        let files: Vec<PathBuf> = if how == "include_dir" {
            match walk.ending(&target, ".conf") {
                Ok(files) => files,
                Err(why) => return notes.unread(path, line, &target, &why),
            }
        } else {
            vec![target]
        };
        for file in files {
            match walk.enter(&file) {
                Ok(text) => {
                    self.read(&file, &text, walk, notes);
                    walk.leave();
                }
                Err(Unread::Missing) if how == "include_if_exists" => {}
                Err(why) => notes.unread(path, line, &file, &why),
            }
        }
    }

    fn host(&mut self, path: &Path, line: usize, record: &Record<'_>, notes: &mut Notes) {
        let Record { kind, method, from, .. } = *record;
        if method == "reject" {
            if let (From::Anywhere(families), "all", "all") = (from, record.databases, record.users) {
                for (at, is_one) in families.into_iter().enumerate().filter(|(_, is_one)| *is_one) {
                    let (clear, all) = (self.clear.get_mut(at), self.all.get_mut(at));
                    clear.into_iter().for_each(|c| *c |= is_one && matches!(kind, "host" | "hostnossl"));
                    all.into_iter().for_each(|a| *a |= is_one && kind == "host");
                }
            }
            return;
        }
        let is_shielded = |by: [bool; 2]| match from {
            From::Anywhere(families) => families.iter().zip(by).all(|(family, refused)| !family || refused),
            From::Here | From::Some => match record.address.split('/').next().map(str::parse::<IpAddr>) {
                Some(Ok(IpAddr::V4(_))) => by[0],
                Some(Ok(IpAddr::V6(_))) => by[1],
                _ => by == [true, true],
            },
        };
        if is_shielded(self.all) {
            return;
        }
        let address = shown(&record.address);
        let is_clear = !matches!(kind, "hostssl" | "hostgssenc") && !is_shielded(self.clear);
        match method {
            "trust" if from == From::Here => {
                notes.say("FX-22", path, line, "trust: everybody on this machine is any user he names")
            }
            "trust" => notes.say("FX-21", path, line, format!("trust: everybody from {address} is any user he names")),
            "md5" => notes.say(
                "FX-23",
                path,
                line,
                format!("md5 from {address}: the hash that is stored is as good as the password"),
            ),
            "password" if from != From::Here && is_clear => {
                notes.say("FX-23", path, line, format!("password from {address}: it crosses the network as it is"));
            }
            "ident" if from != From::Here => {
                notes.say(
                    "FX-21",
                    path,
                    line,
                    format!("ident from {address}: the client's own machine says who he is"),
                );
            }
            _ => {}
        }
        if let From::Anywhere(_) = from {
            notes.say("FX-24", path, line, format!("{address}: any address of the Internet may try"));
        }
        if is_clear && from != From::Here {
            notes.say(
                "FX-25",
                path,
                line,
                format!("{} from {address}: connections without TLS are taken", shown(&kind)),
            );
        }
    }
}

struct Record<'r> {
    kind: &'r str,
    databases: &'r str,
    users: &'r str,
    address: &'r str,
    from: From,
    method: &'r str,
}

fn local(path: &Path, line: usize, method: &str, notes: &mut Notes) {
    match method {
        "trust" => notes.say("FX-22", path, line, "trust: everybody on this machine is any user he names"),
        "md5" => notes.say("FX-23", path, line, "md5: the hash that is stored is as good as the password"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Made;
    use super::super::{System, examine};
    use std::path::Path;

    fn rules(files: Made) -> Vec<(&'static str, usize)> {
        let mut files = files;
        let seen = examine(System::PgHba, Path::new("/pg/hba.conf"), &mut files).unwrap();
        seen.into_vec().into_iter().map(|s| (s.rule, s.line)).collect()
    }

    fn of(text: &str) -> Vec<(&'static str, usize)> {
        rules(Made::default().with("/pg/hba.conf", text))
    }

    #[test]
    fn what_a_record_gives_away_is_said_at_its_line() {
        for (text, expected) in [
            ("local all postgres peer", &[][..]),
            ("local all all trust", &["FX-22"]),
            ("host all all 127.0.0.1/32 scram-sha-256", &[]),
            ("host all all 127.0.0.1 255.255.255.255 scram-sha-256", &[]),
            ("host all all ::1/128 trust", &["FX-22"]),
            ("host all all 10.0.0.0/8 trust", &["FX-21", "FX-25"]),
            ("hostssl all all 10.0.0.0/8 scram-sha-256", &[]),
            ("hostssl all all 10.0.0.0/8 password", &[]),
            ("hostssl all all 10.0.0.0/8 md5", &["FX-23"]),
            ("hostnossl all all 10.0.0.0 255.0.0.0 password", &["FX-23", "FX-25"]),
            ("hostssl all all all cert", &["FX-24"]),
            ("hostssl all all ::/0 cert", &["FX-24"]),
            ("host \\\n all all \\\n 0.0.0.0/0 scram-sha-256", &["FX-24", "FX-25"]),
            ("host all all db.example ident", &["FX-21", "FX-25"]),
            ("nonsense", &["FX-01"]),
            ("host all all", &["FX-01"]),
            ("host all all 10.0.0.1/8", &["FX-01"]),
        ] {
            let whole = format!("local all postgres peer\n{text}");
            let found: Vec<_> = of(&whole).into_iter().map(|(rule, line)| (rule, line, text)).collect();
            let expected: Vec<_> = expected.iter().map(|rule| (*rule, 2, text)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_line_that_is_no_record_is_not_repeated() {
        for text in ["hunter2", "hunter2 all all all trust", "hosthunter2 all all 10.0.0.0/8 trust"] {
            let mut files = Made::default().with("/pg/hba.conf", &format!("local all postgres peer\n{text}"));
            let seen = examine(System::PgHba, Path::new("/pg/hba.conf"), &mut files).unwrap().into_vec();
            assert_eq!(seen.len(), 1, "{seen:?}");
            assert!(seen[0].rule == "FX-01" && !seen[0].what.contains("hunter2"), "{seen:?}");
        }
    }

    #[test]
    fn a_file_without_any_record_is_refused() {
        let mut files = Made::default().with("/pg/hba.conf", "# a comment\nPasswordAuthentication no\n");
        let none = examine(System::PgHba, Path::new("/pg/hba.conf"), &mut files).unwrap_err().to_string();
        assert_eq!(none, "it is not a pg_hba.conf: none of its lines is a record of one");
    }

    #[test]
    fn the_first_record_that_fits_decides() {
        let open = "host all all 0.0.0.0/0 scram-sha-256";
        assert_eq!(of(&format!("hostnossl all all all reject\n{open}")), [("FX-24", 2)]);
        assert_eq!(of(&format!("hostnossl all all 0.0.0.0/0 reject\n{open}")), [("FX-24", 2)]);
        assert_eq!(of(&format!("host all all all reject\n{open}")), []);
        for no_shield in ["hostnossl all all ::/0 reject", "hostnossl one all all reject", "hostssl all all all reject"]
        {
            assert_eq!(of(&format!("{no_shield}\n{open}")), [("FX-24", 2), ("FX-25", 2)], "{no_shield}");
        }
        assert_eq!(of(&format!("{open}\nhostnossl all all all reject")), [("FX-24", 1), ("FX-25", 1)]);
    }

    #[test]
    fn what_is_included_is_looked_at_and_what_cannot_be_is_said() {
        let files = Made::default()
            .with("/pg/hba.conf", "include more.conf\ninclude_if_exists none.conf\ninclude gone.conf\ninclude_dir d")
            .with("/pg/more.conf", "local all all trust\ninclude hba.conf")
            .with("/pg/d/a.conf", "host all all 10.0.0.0/8 trust")
            .with("/pg/d/a.bak", "host all all 0.0.0.0/0 trust");
        assert_eq!(rules(files), [("FX-22", 1), ("FX-01", 2), ("FX-01", 3), ("FX-21", 1), ("FX-25", 1)]);
    }
}
