//! Backups and restores on disks that are full, and on disks of their own: each disk is a tmpfs in a namespace of the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::process::Command;

use farm::{Farm, answer, says};
use serde_json::Value;

/// What the scripts have in common: a disk, how much room it has, and what lies on it but for what processes leave.
const COMMON: &str = r#"
mkdir disk
mount -t tmpfs -o mode=700,size=64m disk disk
try() { "$FIVEFOLD" -o json "$@" >out 2>error; }
free() { # KIB
    rm -f disk/fill
    room=$(df -k --output=avail disk | tail -n 1)
    head -c "$(( (room - $1) * 1024 ))" /dev/zero >disk/fill
}
lies() { (cd disk && find . -type f ! -name fill ! -name '*-wal' ! -name '*-shm' | sort | xargs -d '\n' sha256sum; ls -A); }
"#;

/// Runs a script beside the farm, as root of a namespace of its own; what it prints.
fn script(farm: &Farm, words: &str) -> Vec<String> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-euc", &format!("{COMMON}{words}")]);
    command.env("FIVEFOLD", env!("CARGO_BIN_EXE_fivefold")).current_dir(farm.folder.path());
    let done = command.output().expect("unshare does not run; type: apt-get install util-linux");
    let (said, wrong) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(
        done.status.success(),
        "{said}{wrong}; where users may not make namespaces: sysctl -w kernel.unprivileged_userns_clone=1"
    );
    said.lines().map(str::to_owned).collect()
}

/// Each line is a room and what was said in it: one sentence in all but the last, where it was enough.
fn all_told(lines: &[String]) {
    let (last, refused) = lines.split_last().unwrap();
    assert!(last.starts_with("done "), "{lines:?}");
    assert!(refused.len() >= 3, "{lines:?}");
    for line in refused {
        let error: Value =
            serde_json::from_str(line.split_once(' ').unwrap().1).unwrap_or_else(|e| panic!("{e}: {line}"));
        let error = error["error"].as_str().unwrap();
        says(error, &[]);
        assert!(["make room", "free some space"].iter().any(|next| error.contains(next)), "{error}");
    }
}

#[test]
fn a_restore_onto_a_disk_that_is_full_anywhere_leaves_everything_as_it_was() {
    let farm = Farm::with_levels("e1+e3+e4");
    let (dir, set) = (farm.path(""), farm.folder.path().join("set").display().to_string());
    answer(&["cloud", "backup", "--dir", &dir, "--to", &set]);
    let told = script(
        &farm,
        r#"
cp -a farm disk/farm
kib=0
while :; do
    free "$kib"
    lies >before
    if try cloud restore --dir disk/farm --from set --replace; then echo "done $kib"; break; fi
    echo "$kib $(tail -n 1 error)"
    lies >after
    cmp before after
    kib=$((kib + 24))
done
test -e disk/farm/gateways/north/gateway.toml
"#,
    );
    all_told(&told);
}

#[test]
fn a_backup_onto_a_disk_that_is_full_anywhere_leaves_the_set_as_it_was() {
    let farm = Farm::with_levels("e1+e3+e4");
    let told = script(
        &farm,
        r#"
try cloud backup --dir farm --to disk/set
# Something that is new in the set, and does not compress.
head -c 200000 /dev/urandom >farm/notes
kib=0
while :; do
    free "$kib"
    lies >before
    if try cloud backup --dir farm --to disk/set; then echo "done $kib"; break; fi
    echo "$kib $(tail -n 1 error)"
    lies >after
    cmp before after
    kib=$((kib + 24))
done
try cloud backup --dir farm --to disk/set --verify
"#,
    );
    all_told(&told);
}

#[test]
fn a_folder_on_a_disk_of_its_own_is_told_apart_at_once_and_put_back_as_the_manual_says() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operate.md")).unwrap();
    let begin = page.find("cd /var/lib/fivefold-cloud\nfivefold cloud restore").unwrap();
    let typed = page[begin..].split("systemctl start").next().unwrap();
    let here = |text: &str| text.replace("/var/lib/fivefold-cloud", "disk").replace("/mnt/backup/farm", "../set");
    let farm = Farm::with_levels("e1+e3+e4");
    let (dir, set) = (farm.path(""), farm.folder.path().join("set").display().to_string());
    answer(&["cloud", "backup", "--dir", &dir, "--to", &set]);
    answer(&["token", "add", "--dir", &dir, "second"]);
    let words = r#"
cp -a farm/. disk/
lies >before
# The folder, one in it, and one of a gateway.
if try cloud restore --dir disk --from set --replace; then exit 1; fi
tail -n 1 error
lies >after
cmp before after
cp -a farm whole
mount -t tmpfs -o mode=700 inner whole/cloud
cp -a farm/cloud/. whole/cloud/
if try cloud restore --dir whole --from set --replace; then exit 1; fi
tail -n 1 error
umount whole/cloud
mount -t tmpfs -o mode=700 inner whole/gateways/north
cp -a farm/gateways/north/. whole/gateways/north/
if try cloud restore --dir whole --from set --replace; then exit 1; fi
tail -n 1 error
test ! -e whole.restoring -a ! -e disk.restoring
fivefold() { "$FIVEFOLD" "$@"; }
(
TYPED
) >out
"$FIVEFOLD" token list --dir disk
"$FIVEFOLD" cloud run --dir disk/cloud --check >out
test -e disk/gateways/north/gateway.toml -a -e disk/before/registry.db -a ! -e disk/restored
"#;
    let told = script(&farm, &words.replace("TYPED", &here(typed)));
    for (line, at) in told.iter().zip(["/disk", "/whole/cloud", "/whole/gateways/north"]) {
        let error: Value = serde_json::from_str(line).unwrap();
        says(error["error"].as_str().unwrap(), &[&format!("{at} is a file system of its own")]);
    }
    assert!(told[0].contains("/disk/restored") && told[2].contains("unmount it"), "{told:?}");
    let tokens = told[3..].join("\n");
    assert!(tokens.contains('t') && !tokens.contains("second"), "{tokens}");
}
