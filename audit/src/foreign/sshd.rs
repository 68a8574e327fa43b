//! `sshd_config` of OpenSSH, as sshd_config(5) describes it (AR-44).
//!
//! Of a setting that stands twice, the first value counts, in the file and all that it includes together. A `Match` block
//! goes to the end of its file, and for whom it fits, its first value counts more than one outside. What is not set has the
//! server's own default, which lets passwords in.

use std::path::{Path, PathBuf};

use super::files::{Walk, matches};
use super::lines::{settings, words};
use super::{Notes, shown};

const RULE: &str = "AR-44";

/// The settings that are looked at.
const LOOKED_AT: &[&str] = &[
    "ciphers",
    "hostkeyalgorithms",
    "kbdinteractiveauthentication",
    "kexalgorithms",
    "macs",
    "passwordauthentication",
    "permitemptypasswords",
    "permitrootlogin",
    "protocol",
    "pubkeyacceptedalgorithms",
];
/// Blocks, at most.
const MOST_BLOCKS: usize = 1000;

/// Where relative includes begin.
const FOLDER: &str = "/etc/ssh";

/// Old ways to encrypt, to prove, to agree and to sign. OpenSSH knows them or knew them once.
const OLD_CIPHERS: &[&str] = &[
    "3des-cbc",
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
    "arcfour",
    "arcfour128",
    "arcfour256",
    "blowfish-cbc",
    "cast128-cbc",
    "rijndael-cbc@lysator.liu.se",
];
const OLD_MACS: &[&str] = &[
    "hmac-md5",
    "hmac-md5-96",
    "hmac-md5-etm@openssh.com",
    "hmac-md5-96-etm@openssh.com",
    "hmac-ripemd160",
    "hmac-ripemd160@openssh.com",
    "hmac-ripemd160-etm@openssh.com",
    "hmac-sha1",
    "hmac-sha1-96",
    "hmac-sha1-etm@openssh.com",
    "hmac-sha1-96-etm@openssh.com",
];
const OLD_KEX: &[&str] =
    &["diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1"];
const OLD_KEYS: &[&str] = &[
    "ssh-dss",
    "ssh-dss-cert-v01@openssh.com",
    "ssh-rsa",
    "ssh-rsa-cert-v01@openssh.com",
    "ssh-rsa-cert-v00@openssh.com",
];

/// A setting and where it stands.
#[derive(Clone, Debug)]
struct Set {
    key: String,
    value: String,
    file: PathBuf,
    line: usize,
}

/// Settings that hold together.
#[derive(Clone, Debug, Default)]
struct Block {
    /// For whom; empty: for everybody.
    whom: String,
    set: Vec<Set>,
}

impl Block {
    fn add(&mut self, set: Set) {
        if LOOKED_AT.contains(&set.key.as_str()) && !self.set.iter().any(|s| s.key == set.key) {
            self.set.push(set);
        }
    }

    fn value(&self, key: &str) -> Option<&Set> {
        self.set.iter().find(|s| s.key == key)
    }
}

/// The whole: the first block is for everybody.
#[derive(Debug)]
struct Server {
    blocks: Vec<Block>,
}

/// Looks at a server's configuration.
pub fn examine(path: &Path, text: &str, walk: &mut Walk<'_>, notes: &mut Notes) {
    let mut server = Server { blocks: vec![Block::default()] };
    server.read(path, text, 0, walk, notes);
    server.judge(path, notes);
}

/// The names that are one setting.
fn name(key: &str) -> String {
    let key = key.to_ascii_lowercase();
    match key.as_str() {
        "challengeresponseauthentication" | "skeyauthentication" => "kbdinteractiveauthentication".into(),
        "pubkeyacceptedkeytypes" => "pubkeyacceptedalgorithms".into(),
        _ => key,
    }
}

/// Keyword and arguments: split by blanks, or by one `=`.
fn split(line: &str) -> (String, Vec<String>) {
    let end = line.find([' ', '\t', '=', '"']).unwrap_or(line.len());
    let (key, rest) = line.split_at_checked(end).unwrap_or((line, ""));
    let rest = rest.trim_start();
    (name(key), words(rest.strip_prefix('=').unwrap_or(rest)))
}

impl Server {
    /// Reads a file whose settings go to block `into`, until it opens one of its own.
    fn read(&mut self, path: &Path, text: &str, into: usize, walk: &mut Walk<'_>, notes: &mut Notes) {
        let mut at = into;
        for (line, setting) in settings(text) {
            let (key, values) = split(setting);
            match key.as_str() {
                "match" => {
                    if self.blocks.len() == MOST_BLOCKS {
                        let what = "the blocks from here on were not looked at: there are too many";
                        return notes.say(super::NOT_EXAMINED, path, line, what);
                    }
                    let outer = self.blocks.get(into).map(|b| b.whom.clone()).unwrap_or_default();
                    let own = values.join(" ");
                    let whom = if outer.is_empty() { own } else { format!("{outer} {own}") };
                    at = self.blocks.len();
                    self.blocks.push(Block { whom: shown(&whom), set: Vec::new() });
                }
                "include" => {
                    for pattern in &values {
                        self.include(path, line, pattern, at, walk, notes);
                    }
                }
                _ => {
                    let set = Set { key, value: values.join(" "), file: path.to_owned(), line };
                    if let Some(block) = self.blocks.get_mut(at) {
                        block.add(set);
                    }
                }
            }
        }
    }

    fn include(&mut self, path: &Path, line: usize, pattern: &str, at: usize, walk: &mut Walk<'_>, notes: &mut Notes) {
        // Relative ones begin in the system's folder; one that lies elsewhere is being looked at as a copy.
        let folder = if path.starts_with(FOLDER) { Path::new(FOLDER) } else { path.parent().unwrap_or(Path::new("")) };
        let pattern = folder.join(pattern);
        let files = match walk.matching(&pattern) {
            Ok(files) => files,
            // A pattern that fits nothing is none, to the server too.
            Err(super::Unread::Missing) => return,
            Err(why) => return notes.unread(path, line, &pattern, &why),
        };
        for file in files {
            match walk.enter(&file) {
                Ok(text) => {
                    self.read(&file, &text, at, walk, notes);
                    walk.leave();
                }
                Err(why) => notes.unread(path, line, &file, &why),
            }
        }
    }

    fn judge(&self, path: &Path, notes: &mut Notes) {
        for block in &self.blocks {
            let is_outer = block.whom.is_empty();
            passwords(path, block, is_outer, notes);
            match block.value("permitrootlogin") {
                None if is_outer => {
                    notes.say(RULE, path, 0, "root may log in with a key: that is the default where nothing is said");
                }
                Some(set) if set.value.eq_ignore_ascii_case("yes") => say(block, set, "root may log in", notes),
                Some(set) if !set.value.eq_ignore_ascii_case("no") => {
                    say(block, set, &format!("root may log in ({})", shown(&set.value)), notes);
                }
                _ => {}
            }
            if let Some(set) = block.value("permitemptypasswords").filter(|s| is_yes(s)) {
                say(block, set, "accounts without a password are open", notes);
            }
            if let Some(set) = block.value("protocol").filter(|s| s.value.split(',').any(|v| v.trim() == "1")) {
                say(block, set, "it speaks the protocol of 1995, SSH-1", notes);
            }
            for (key, old) in [
                ("ciphers", OLD_CIPHERS),
                ("macs", OLD_MACS),
                ("kexalgorithms", OLD_KEX),
                ("hostkeyalgorithms", OLD_KEYS),
                ("pubkeyacceptedalgorithms", OLD_KEYS),
            ] {
                if let Some(set) = block.value(key)
                    && let Some(old) = taken(&set.value, old)
                {
                    say(block, set, &format!("{key} takes {old}"), notes);
                }
            }
        }
    }
}

/// Passwords: asked for by the server itself, or by what stands behind it (PAM).
fn passwords(path: &Path, block: &Block, is_outer: bool, notes: &mut Notes) {
    for (key, what) in [
        ("passwordauthentication", "it takes passwords"),
        ("kbdinteractiveauthentication", "it takes passwords, by way of PAM (KbdInteractiveAuthentication)"),
    ] {
        match block.value(key) {
            Some(set) if is_yes(set) => say(block, set, what, notes),
            None if is_outer => {
                notes.say(RULE, path, 0, format!("{what}: that is the default where nothing is said"));
            }
            _ => {}
        }
    }
}

fn is_yes(set: &Set) -> bool {
    set.value.eq_ignore_ascii_case("yes") || set.value.eq_ignore_ascii_case("true")
}

fn say(block: &Block, set: &Set, what: &str, notes: &mut Notes) {
    let what = if block.whom.is_empty() { what.to_owned() } else { format!("{what}, for Match {}", block.whom) };
    notes.say(RULE, &set.file, set.line, what);
}

/// The first old algorithm that a list takes. A list that begins with `-` takes away from the default.
fn taken(list: &str, old: &'static [&'static str]) -> Option<&'static str> {
    if list.starts_with('-') {
        return None;
    }
    let list = list.trim_start_matches(['+', '^']);
    // A list has no more names than a line has bytes; each is compared with a few dozen.
    list.split(',').find_map(|pattern| {
        let pattern = pattern.trim().as_bytes();
        old.iter().find(|name| matches(pattern, name.as_bytes())).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Made;
    use super::super::{Seen, System, examine};
    use std::path::Path;

    const GOOD: &str = "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n";

    fn seen(files: Made) -> Vec<Seen> {
        let mut files = files;
        examine(System::Sshd, Path::new("/etc/ssh/sshd_config"), &mut files).unwrap().into_vec()
    }

    fn of(text: &str) -> Vec<(usize, String)> {
        let files = Made::default().with("/etc/ssh/sshd_config", text);
        seen(files).into_iter().map(|s| (s.line, s.what)).collect()
    }

    fn lines(text: &str) -> Vec<usize> {
        of(text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn what_is_not_said_is_the_default_which_takes_passwords() {
        let found = of("");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|(line, _)| *line == 0));
        assert_eq!(of(GOOD), []);
        assert_eq!(of("passwordauthentication=no\nchallengeresponseauthentication \"no\"\nPERMITROOTLOGIN No # x"), []);
    }

    #[test]
    fn the_first_value_wins() {
        assert_eq!(of(&format!("{GOOD}PasswordAuthentication yes\nPermitRootLogin yes")), []);
        assert_eq!(lines(&format!("PermitRootLogin yes\n{GOOD}")), [1]);
        let files = |order: &str| {
            Made::default()
                .with("/etc/ssh/sshd_config", order)
                .with("/etc/ssh/sshd_config.d/50-cloud.conf", "PasswordAuthentication yes")
                .with("/etc/ssh/sshd_config.d/60-late.conf", "PasswordAuthentication no")
        };
        let found = seen(files(&format!("Include sshd_config.d/*.conf\n{GOOD}")));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].file.as_path(), found[0].line), (Path::new("/etc/ssh/sshd_config.d/50-cloud.conf"), 1));
        assert_eq!(seen(files(&format!("{GOOD}Include /etc/ssh/sshd_config.d/*.conf"))), []);
    }

    #[test]
    fn a_match_block_counts_for_whom_it_fits_and_ends_with_its_file() {
        let found =
            of(&format!("{GOOD}Match Address 10.0.0.0/8\nPasswordAuthentication yes\nPasswordAuthentication no"));
        assert_eq!(found, [(5, "it takes passwords, for Match Address 10.0.0.0/8".to_owned())]);
        let files = Made::default()
            .with("/etc/ssh/sshd_config", &format!("Include a\n{GOOD}"))
            .with("/etc/ssh/a", "Match User ann\nPermitRootLogin yes");
        assert_eq!(seen(files).len(), 1, "the settings after the Include are for everybody again");
        let nested = Made::default()
            .with("/etc/ssh/sshd_config", &format!("{GOOD}Match User ann\nInclude a"))
            .with("/etc/ssh/a", "PasswordAuthentication yes");
        assert!(seen(nested)[0].what.ends_with("for Match User ann"));
    }

    #[test]
    fn old_algorithms_are_named_however_a_list_takes_them() {
        for (list, old) in [
            ("Ciphers aes256-gcm@openssh.com,aes128-cbc", "aes128-cbc"),
            ("Ciphers +3des-cbc", "3des-cbc"),
            ("Ciphers *-cbc", "3des-cbc"),
            ("MACs ^hmac-sha1", "hmac-sha1"),
            ("KexAlgorithms curve25519-sha256,diffie-hellman-group1-sha1", "diffie-hellman-group1-sha1"),
            ("HostKeyAlgorithms ssh-ed25519,ssh-rsa", "ssh-rsa"),
            ("PubkeyAcceptedKeyTypes +ssh-dss", "ssh-dss"),
        ] {
            let found = of(&format!("{GOOD}{list}"));
            assert_eq!(found.len(), 1, "{list}");
            assert!(found[0].1.ends_with(&format!("takes {old}")), "{list}: {found:?}");
        }
        for list in ["Ciphers -aes128-cbc,3des-cbc", "Ciphers aes128-ctr", "MACs hmac-sha2-256-etm@openssh.com"] {
            assert_eq!(of(&format!("{GOOD}{list}")), [], "{list}");
        }
        assert_eq!(lines(&format!("{GOOD}Protocol 2,1\nPermitEmptyPasswords yes")), [5, 4]);
    }

    #[test]
    fn an_include_that_cannot_be_followed_is_said() {
        let files = Made::default().with("/etc/ssh/sshd_config", &format!("{GOOD}Include sshd_config /etc/*/x gone"));
        let rules: Vec<_> = seen(files).into_iter().map(|s| (s.rule, s.line)).collect();
        assert_eq!(rules, [("FX-01", 4), ("FX-01", 4), ("FX-01", 4)]);
    }
}
