//! A PKCS #11 token of SoftHSM, for tests that want one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// SoftHSM's module, where Debian's package softhsm2 puts it on every architecture.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// Its label.
pub const LABEL: &str = "fivefold";
/// Not one that anything else in a file would contain.
pub const PIN: &str = "a pin for SoftHSM 31415926";

/// A token in a folder of its own.
pub struct Token {
    /// What SOFTHSM2_CONF is to say.
    pub conf: PathBuf,
    /// The file with its PIN.
    pub pin: PathBuf,
}

impl Token {
    /// Makes a new one. Tests that need it fail without SoftHSM: none is skipped.
    pub fn new(folder: &Path) -> Self {
        assert!(Path::new(MODULE).exists(), "{MODULE} is not there; type: apt-get install softhsm2 opensc");
        let token = Self::empty(folder);
        let told = ["--init-token", "--free", "--label", LABEL, "--so-pin", "an so pin 2718", "--pin", PIN];
        let done = Command::new("softhsm2-util").args(told).env("SOFTHSM2_CONF", &token.conf).output();
        let done = done.expect("softhsm2-util does not run; type: apt-get install softhsm2 opensc");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        token
    }

    /// A place for tokens without one, and the PIN file.
    pub fn empty(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("tokens")).unwrap();
        let (conf, pin) = (folder.join("softhsm2.conf"), folder.join("pin"));
        let tokens = folder.join("tokens");
        fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display())).unwrap();
        super::private(&pin, PIN);
        Self { conf, pin }
    }

    /// Makes an AES key of so many bytes by other people's tool.
    pub fn make_key(&self, label: &str, len: usize, more: &[&str]) {
        let kind = format!("AES:{len}");
        let told =
            ["--module", MODULE, "--token-label", LABEL, "--login", "--pin", PIN, "--keygen", "--key-type", &kind];
        let mut command = Command::new("pkcs11-tool");
        command.args(told).args(["--label", label]).args(more).env("SOFTHSM2_CONF", &self.conf);
        let done = command.output().expect("pkcs11-tool does not run; type: apt-get install softhsm2 opensc");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
