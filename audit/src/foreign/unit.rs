//! A unit of systemd that runs one of the daemons, as systemd.service(5) and systemd.exec(5) describe it, with the drop-ins
//! that lie beside it (`NAME.service.d/*.conf`).
//!
//! Of a setting that stands twice, the last value counts; an empty value takes back those before it.

use std::path::{Path, PathBuf};

use super::files::Walk;
use super::lines::words;
use super::{Notes, Unread, shown};

/// Settings of one service, at most.
const MOST: usize = 512;

/// A setting of `[Service]` and where it stands.
#[derive(Clone, Debug)]
struct Set {
    key: String,
    value: String,
    file: PathBuf,
    line: usize,
}

/// Looks at a service.
///
/// # Errors
/// It has no section `[Service]`.
pub fn examine(path: &Path, text: &str, walk: &mut Walk<'_>, notes: &mut Notes) -> Result<(), Unread> {
    let mut all = Vec::new();
    let mut is_service = read(path, text, &mut all, notes);
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    match walk.ending(&folder, ".conf") {
        Ok(files) => {
            for file in files {
                match walk.enter(&file) {
                    Ok(text) => {
                        is_service |= read(&file, &text, &mut all, notes);
                        walk.leave();
                    }
                    Err(why) => notes.unread(path, 0, &file, &why),
                }
            }
        }
        Err(Unread::Missing) => {}
        Err(why) => notes.unread(path, 0, &folder, &why),
    }
    if !is_service {
        return Err(Unread::Form("a unit with a section [Service]".into(), 0));
    }
    judge(path, &all, walk, notes);
    Ok(())
}

/// Reads the settings of `[Service]`; whether there is one.
fn read(file: &Path, text: &str, all: &mut Vec<Set>, notes: &mut Notes) -> bool {
    let (mut is_service, mut is_there) = (false, false);
    let mut going: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && going.is_none()) {
            continue;
        }
        let (line, mut whole) = going.take().unwrap_or((at + 1, String::new()));
        if let Some(part) = trimmed.strip_suffix('\\') {
            whole.push_str(part);
            whole.push(' ');
            going = Some((line, whole));
            continue;
        }
        whole.push_str(trimmed);
        if let Some(section) = whole.strip_prefix('[').and_then(|s| s.strip_suffix(']')) {
            is_service = section == "Service";
            is_there |= is_service;
        } else if is_service && let Some((key, value)) = whole.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            if value.is_empty() {
                all.retain(|s| s.key != key);
            } else if all.len() == MOST {
                notes.leave("settings");
            } else {
                all.push(Set { key, value, file: file.to_owned(), line });
            }
        }
    }
    is_there
}

fn last<'s>(all: &'s [Set], key: &str) -> Option<&'s Set> {
    all.iter().rev().find(|s| s.key == key)
}

fn is_yes(set: &Set) -> bool {
    ["yes", "true", "on", "1"].iter().any(|yes| set.value.eq_ignore_ascii_case(yes))
}

fn judge(path: &Path, all: &[Set], walk: &mut Walk<'_>, notes: &mut Notes) {
    let at = |set: Option<&Set>| set.map_or((path.to_owned(), 0), |s| (s.file.clone(), s.line));
    let is_dynamic = last(all, "DynamicUser").is_some_and(is_yes);
    let user = last(all, "User");
    if !is_dynamic && user.is_none_or(|s| matches!(s.value.as_str(), "root" | "0")) {
        let (file, line) = at(user);
        notes.say("FX-31", &file, line, "it runs as root: write User= with a user of its own, or DynamicUser=yes");
    }
    // DynamicUser brings ProtectSystem=strict and NoNewPrivileges=yes with it.
    let protect = last(all, "ProtectSystem");
    let is_protected = |s: &Set| ["full", "strict"].iter().any(|how| s.value.eq_ignore_ascii_case(how));
    if protect.map_or(!is_dynamic, |s| !is_dynamic && !is_protected(s)) {
        let (file, line) = at(protect);
        notes.say("FX-32", &file, line, "it can write to the system's own files: write ProtectSystem=strict");
    }
    let gains = last(all, "NoNewPrivileges");
    if gains.map_or(!is_dynamic, |s| !is_dynamic && !is_yes(s)) {
        let (file, line) = at(gains);
        notes.say("FX-33", &file, line, "it can gain rights, by a set-uid program for one: write NoNewPrivileges=yes");
    }
    for set in all {
        secrets(set, walk, notes);
    }
}

/// Secrets that stand in the unit, or in files that it names and everybody reads.
fn secrets(set: &Set, walk: &mut Walk<'_>, notes: &mut Notes) {
    let Set { key, value, file, line } = set;
    match key.as_str() {
        "Environment" => {
            for word in words(value) {
                if let Some((name, value)) = word.split_once('=')
                    && super::is_secret_name(name)
                    && !value.is_empty()
                {
                    let what = format!("{} has a value in the unit, which everybody can read", shown(&name));
                    notes.say("FX-34", file, *line, what);
                }
            }
        }
        "SetCredential" => {
            let name = value.split(':').next().unwrap_or_default();
            let what = format!("credential {} stands in the unit, which everybody can read", shown(&name));
            notes.say("FX-34", file, *line, what);
        }
        "ExecStart" | "ExecStartPre" | "ExecStartPost" => {
            for word in words(value) {
                let Some((name, value)) = word.trim_start_matches('-').split_once('=') else { continue };
                // A path to a secret is none.
                if super::is_secret_name(name) && !value.is_empty() && !value.contains(['/', '$', '%']) {
                    let what = format!("--{} has a value in the command, which everybody can read", shown(&name));
                    notes.say("FX-34", file, *line, what);
                }
            }
        }
        "EnvironmentFile" | "LoadCredential" => {
            let named = value.trim_start_matches('-');
            let named =
                if key == "LoadCredential" { named.split_once(':').map_or("", |(_, path)| path) } else { named };
            let named = Path::new(named);
            match walk.mode(named).filter(|_| named.is_absolute()) {
                // It lies on another machine, or systemd looks for it in folders of its own.
                None => notes.miss("FX-35"),
                Some(mode) if mode & 0o004 != 0 => {
                    let what = format!("{} can be read by everybody (mode {mode:03o})", shown(&named.display()));
                    notes.say("FX-35", file, *line, what);
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Made;
    use super::super::{System, Unread, examine};
    use std::path::Path;

    const GOOD: &str = "[Unit]\nUser=root\n[Service]\nUser=fivefold\nProtectSystem=strict\nNoNewPrivileges=yes\n";

    fn rules(files: Made) -> Vec<(&'static str, usize)> {
        let mut files = files;
        let seen = examine(System::Unit, Path::new("/u/a.service"), &mut files).unwrap();
        seen.into_vec().into_iter().map(|s| (s.rule, s.line)).collect()
    }

    fn of(text: &str) -> Vec<(&'static str, usize)> {
        rules(Made::default().with("/u/a.service", text))
    }

    #[test]
    fn a_service_without_any_care_is_said_to_have_none() {
        assert_eq!(of(GOOD), []);
        assert_eq!(of("[Service]\nDynamicUser=yes"), []);
        assert_eq!(of("[Service]\nExecStart=/bin/x"), [("FX-31", 0), ("FX-32", 0), ("FX-33", 0)]);
        let text = "[Service]\nUser=root\nProtectSystem=yes\nNoNewPrivileges=no";
        assert_eq!(of(text), [("FX-31", 2), ("FX-32", 3), ("FX-33", 4)]);
        let mut none = Made::default().with("/u/a.service", "[Unit]\nUser=a");
        let refused = examine(System::Unit, Path::new("/u/a.service"), &mut none);
        assert!(matches!(refused, Err(Unread::Form(..))), "{refused:?}");
    }

    #[test]
    fn the_last_value_counts_and_a_drop_in_comes_after_the_unit() {
        assert_eq!(of(&format!("{GOOD}User=\n")), [("FX-31", 0)]);
        let files = Made::default().with("/u/a.service", GOOD).with("/u/a.service.d/x.conf", "[Service]\nUser=root");
        assert_eq!(rules(files), [("FX-31", 2)]);
    }

    #[test]
    fn a_secret_in_the_unit_is_seen_and_not_repeated() {
        let text = format!(
            "{GOOD}Environment=A=b \"DB_PASSWORD=hunter two\" \\\n  TOKEN_FILE=/run/t\nSetCredential=k:hunter\n\
             ExecStart=/bin/x --api-secret=hunter --password-file=/run/p"
        );
        let mut files = Made::default().with("/u/a.service", &text);
        let seen = examine(System::Unit, Path::new("/u/a.service"), &mut files).unwrap().into_vec();
        assert_eq!(
            seen.iter().map(|s| (s.rule, s.line)).collect::<Vec<_>>(),
            [("FX-34", 7), ("FX-34", 9), ("FX-34", 10)]
        );
        assert!(seen.iter().all(|s| !s.what.contains("hunter")), "{seen:?}");
    }

    #[test]
    fn a_secret_file_is_for_its_owner() {
        let text = format!("{GOOD}EnvironmentFile=-/etc/a\nLoadCredential=key:/etc/b\nLoadCredential=c:/etc/c");
        let mut files =
            Made::default().with("/u/a.service", &text).with("/etc/a", "").with("/etc/b", "").with("/etc/c", "");
        files.0.get_mut(Path::new("/etc/c")).unwrap().1 = 0o600;
        assert_eq!(rules(files), [("FX-35", 7), ("FX-35", 8)]);
    }
}
