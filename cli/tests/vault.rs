//! Where the wrapping key comes from: every party's vault by every source, rewrapped and re-keyed between readings, and
//! what is said when a source is not there or not the right one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use farm::token::{LABEL, MODULE, Token};
use farm::{Daemon, Farm, fivefold, private, refusal, says};
use serde_json::Value;
use tempfile::TempDir;

/// Name of the credential that opens vaults, and of the one with a PIN.
const CREDENTIAL: &str = "fivefold";
const PIN_CREDENTIAL: &str = "fivefold-pin";

/// What a service finds around it: credentials and a token.
struct Around {
    folder: TempDir,
    token: Token,
}

impl Around {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::new(folder.path());
        fs::create_dir(folder.path().join("credentials")).unwrap();
        let around = Self { folder, token };
        private(&around.credential(CREDENTIAL), "what systemd hands to the service");
        private(&around.credential(PIN_CREDENTIAL), farm::token::PIN);
        around
    }

    fn credential(&self, name: &str) -> PathBuf {
        self.folder.path().join("credentials").join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fivefold(arguments);
        command.env("CREDENTIALS_DIRECTORY", self.folder.path().join("credentials"));
        command.env("SOFTHSM2_CONF", &self.token.conf);
        command
    }

    fn works(&self, arguments: &[&str]) -> bool {
        self.command(arguments).output().unwrap().status.success()
    }

    fn answer(&self, arguments: &[&str]) -> Value {
        let done = self.command(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    fn rewrap(&self, dir: &str, to: &[&str]) -> Value {
        self.answer(&[&["vault", "rewrap"], to, &["--dir", dir]].concat())
    }

    fn pkcs11<'a>(&'a self, key: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["pkcs11", "--module", MODULE, "--token", LABEL, "--key", key], more].concat()
    }

    fn pin_file(&self) -> [&str; 2] {
        ["--pin-file", self.token.pin.to_str().unwrap()]
    }

    /// Runs cloud, gateway and node until the cloud has confirmed two more readings; says which numbers they had.
    fn deliver(&self, farm: &Farm) -> Vec<u64> {
        let [cloud, gateway, node] = [farm.cloud(), farm.gateway(), farm.node()];
        let words = |args: &[String; 4]| args.each_ref().map(|a| a.as_str().to_owned());
        let log = self.folder.path().join("daemons.log");
        let said = fs::File::create(&log).unwrap();
        let start = |args: &[String; 4]| {
            let args = words(args);
            let mut command = self.command(&args.each_ref().map(String::as_str));
            Daemon(command.stdout(said.try_clone().unwrap()).stderr(said.try_clone().unwrap()).spawn().unwrap())
        };
        let daemons = [start(&cloud), start(&gateway)];
        let node: Vec<&str> = node.iter().map(String::as_str).collect();
        let more = ["--every", "0.1", "--count", "2", "--wait", "60", "--retry", "2"];
        let done = self.command(&[node.as_slice(), &more].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let daemons_said = || fs::read_to_string(&log).unwrap();
        assert!(done.status.success(), "{said}{}{}", String::from_utf8_lossy(&done.stderr), daemons_said());
        daemons.into_iter().for_each(Daemon::stop);
        let events = said.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        events.filter(|e| e["event"] == "reading").map(|e| e["number"].as_u64().unwrap()).collect()
    }
}

#[test]
fn every_party_opens_by_every_source_and_readings_flow_after_each_change() {
    let around = Around::new();
    let farm = Farm::with_levels("e1+e2+e3+e4");
    let (operator, gateway) = (farm.path(""), farm.path("gateways/north"));
    let node = farm.path(&format!("nodes/{}", farm.did));
    let elsewhere = around.folder.path().join("passphrase of the node").display().to_string();
    let mut numbers = around.deliver(&farm);

    let told =
        around.rewrap(&operator, &around.pkcs11("farm", &[&around.pin_file()[..], &["--generate-key"]].concat()));
    assert_eq!((&told["source"]["kind"], &told["source"]["key"]), (&"pkcs11".into(), &"farm".into()));
    around.rewrap(&gateway, &["systemd-credential", CREDENTIAL]);
    // A passphrase that is not there is drawn.
    around.rewrap(&node, &["passphrase-file", &elsewhere]);
    assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o600);
    for dir in [&operator, &gateway, &node] {
        fs::remove_file(Path::new(dir).join("passphrase")).unwrap();
    }
    numbers.extend(around.deliver(&farm));

    around.rewrap(&operator, &["systemd-credential", CREDENTIAL]);
    let by_credential = ["--pin-credential", PIN_CREDENTIAL, "--generate-key"];
    around.rewrap(&gateway, &around.pkcs11("north", &by_credential));
    around.token.make_key("node", 32, &["--sensitive"]);
    around.rewrap(&node, &around.pkcs11("node", &around.pin_file()));
    for dir in [&operator, &gateway, &node] {
        let before = around.answer(&["vault", "show", "--dir", dir]);
        let told = around.answer(&["vault", "rekey", "--dir", dir]);
        let after = around.answer(&["vault", "show", "--dir", dir]);
        assert_eq!((&after["key"], &after["before"], &told["resumed"]), (&told["key"], &Value::Null, &false.into()));
        assert!(before["key"] != after["key"] && before["source"] == after["source"]);
        assert!(told["resealed"]["files"].as_u64().unwrap() >= 1, "{told}");
    }
    numbers.extend(around.deliver(&farm));
    assert!(numbers.len() == 6 && numbers.is_sorted_by(|a, b| a < b), "a number came twice: {numbers:?}");

    // While the cloud runs: another source is nothing to it, another data key must wait.
    let cloud = farm.cloud();
    let cloud = Daemon::spawn(&mut around.command(&cloud.each_ref().map(String::as_str)));
    farm.stored();
    around.rewrap(&operator, &around.pkcs11("farm", &around.pin_file()));
    let error = refusal(&mut around.command(&["vault", "rekey", "--dir", &operator]));
    says(&error, &["vault.toml is in use", "stop that first"]);
    assert_eq!(farm.stored(), 6);
    cloud.stop();
    around.answer(&["vault", "rekey", "--dir", &farm.path("cloud")]);
}

#[test]
fn a_credential_that_is_missing_exposed_short_or_wrong_is_told_in_one_sentence() {
    let around = Around::new();
    let farm = Farm::new();
    let dir = farm.path("gateways/north");
    let run = ["gateway", "run", "--dir", &dir];
    around.rewrap(&dir, &["systemd-credential", CREDENTIAL]);
    let path = around.credential(CREDENTIAL);
    says(
        &refusal(around.command(&run).env_remove("CREDENTIALS_DIRECTORY")),
        &["CREDENTIALS_DIRECTORY is not set", "[Service]", "LoadCredentialEncrypted=fivefold:"],
    );
    says(
        &refusal(around.command(&run).env("CREDENTIALS_DIRECTORY", around.folder.path())),
        &["has no credential `fivefold`", "LoadCredentialEncrypted=fivefold:"],
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    says(&refusal(&mut around.command(&run)), &["can be read by others (mode 644)", "chmod 400"]);
    private(&path, "short");
    says(&refusal(&mut around.command(&run)), &["the systemd credential `fivefold` is too short", "12 characters"]);
    private(&path, "what systemd hands to another service");
    says(
        &refusal(&mut around.command(&run)),
        &["the systemd credential `fivefold` does not open", "another deployment", "bring back"],
    );
    private(&path, "what systemd hands to the service\n");
    assert!(around.works(&[&run[..], &["--check"]].concat()), "a line end more is no other passphrase");
    let wrong = ["vault", "rewrap", "systemd-credential", "--dir", &dir, "../pin"];
    says(&refusal(&mut around.command(&wrong)), &["`../pin` is no name of a systemd credential"]);
}

#[test]
fn a_token_that_is_absent_or_has_no_fit_key_is_told_and_the_vault_stays_as_it_was() {
    let around = Around::new();
    let farm = Farm::new();
    let dir = farm.path("gateways/north");
    let kept = fs::read(farm.path("gateways/north/vault.toml")).unwrap();
    let rewrap = |around: &Around, module: &str, token: &str, key: &str, more: &[&str]| {
        let to = ["pkcs11", "--module", module, "--token", token, "--key", key];
        let pin = around.pin_file();
        let error =
            refusal(&mut around.command(&[&["vault", "rewrap"][..], &to, &pin, more, &["--dir", &dir]].concat()));
        assert_eq!(fs::read(farm.path("gateways/north/vault.toml")).unwrap(), kept);
        error
    };
    around.token.make_key("leaky", 32, &["--extractable", "--sensitive"]);
    around.token.make_key("readable", 32, &[]);
    around.token.make_key("small", 16, &["--sensitive"]);
    around.token.make_key("twice", 32, &["--sensitive"]);
    around.token.make_key("twice", 32, &["--sensitive"]);
    says(
        &rewrap(&around, "/usr/lib/nothing.so", LABEL, "k", &[]),
        &["/usr/lib/nothing.so does not load", "install it"],
    );
    says(&rewrap(&around, "libsofthsm2.so", LABEL, "k", &[]), &["does not load", "not absolute"]);
    let no_module = env!("CARGO_BIN_EXE_fivefold");
    says(&rewrap(&around, no_module, LABEL, "k", &[]), &["does not load"]);
    says(
        &rewrap(&around, MODULE, "other", "k", &[]),
        &["shows 0 tokens labelled `other`", "it shows: fivefold", "plug"],
    );
    says(&rewrap(&around, MODULE, LABEL, "k", &[]), &["has 0 AES keys labelled `k`", "--generate-key"]);
    says(&rewrap(&around, MODULE, LABEL, "twice", &[]), &["has 2 AES keys labelled `twice`"]);
    says(&rewrap(&around, MODULE, LABEL, "leaky", &[]), &["key `leaky`", "CKA_EXTRACTABLE", "--generate-key"]);
    says(&rewrap(&around, MODULE, LABEL, "small", &[]), &["key `small`", "256 bits"]);
    says(&rewrap(&around, MODULE, LABEL, "small", &["--generate-key"]), &["has a key `small` already"]);
    fs::set_permissions(&around.token.pin, fs::Permissions::from_mode(0o640)).unwrap();
    says(&rewrap(&around, MODULE, LABEL, "k", &[]), &["can be read by others", "chmod 600"]);
    private(&around.token.pin, "a wrong pin");
    says(&rewrap(&around, MODULE, LABEL, "k", &[]), &["refuses the PIN in", "tokens lock after a few"]);
    // SoftHSM counts no wrong PINs; what a token that is locked leads to is tested beside the code.
    // No PIN on the command line, where every process reads it.
    let pin = around.pkcs11("k", &["--pin", "1234"]);
    let told = around.command(&[&["vault", "rewrap"][..], &pin, &["--dir", &dir]].concat()).output().unwrap();
    assert_eq!(told.status.code(), Some(2));
    private(&around.token.pin, farm::token::PIN);
    around.rewrap(&dir, &around.pkcs11("north", &[&around.pin_file()[..], &["--generate-key"]].concat()));

    // A daemon asks a token once that refuses its PIN, and is not started again: others lock after a few.
    private(&around.token.pin, "a wrong pin");
    let refused = around.command(&["gateway", "run", "--dir", &dir]).output().unwrap();
    assert_eq!(refused.status.code(), Some(78), "{}", String::from_utf8_lossy(&refused.stderr));
    private(&around.token.pin, farm::token::PIN);

    // From here on the gateway opens by the token, and by nothing else.
    let run = ["gateway", "run", "--check", "--dir", &dir];
    assert!(around.works(&run));
    let away = tempfile::tempdir().unwrap();
    let (absent, other) = (Token::empty(&away.path().join("absent")), Token::new(&away.path().join("other")));
    let with = |token: &Token| refusal(around.command(&run).env("SOFTHSM2_CONF", &token.conf));
    says(&with(&absent), &["shows 0 tokens labelled `fivefold`, and exactly one", "plug it in"]);
    says(&with(&other), &["has 0 AES keys labelled `north`"]);
    other.make_key("north", 32, &["--sensitive"]);
    says(&with(&other), &["key `north` of token `fivefold` does not open", "another deployment", "bring back"]);
    let passphrase = ["vault", "show", "--dir", &dir, "--passphrase-file", "x"];
    assert!(around.works(&passphrase), "to show it nothing is opened");
    let passphrase = ["vault", "rekey", "--dir", &dir, "--passphrase-file", "x"];
    says(&refusal(&mut around.command(&passphrase)), &["is opened by key `north`", "leave --passphrase-file"]);
}

#[test]
fn a_vault_of_another_deployment_a_cut_one_and_none_are_named() {
    let around = Around::new();
    let (farm, other) = (Farm::new(), Farm::new());
    let good = fs::read_to_string(farm.path("vault.toml")).unwrap();
    let passphrase = fs::read(farm.path("passphrase")).unwrap();
    for file in ["vault.toml", "passphrase"] {
        fs::copy(other.path(file), farm.path(file)).unwrap();
    }
    let cloud = farm.cloud();
    let cloud = cloud.each_ref().map(String::as_str);
    says(&refusal(&mut around.command(&cloud)), &["`key.sealed` is of another vault", "bring back the vault.toml"]);
    fs::write(farm.path("vault.toml"), &good).unwrap();
    says(&refusal(&mut around.command(&cloud)), &["the passphrase in", "does not open", "another deployment"]);
    fs::write(farm.path("passphrase"), passphrase).unwrap();
    let wrapped = good.find("wrapped = \"").unwrap() + 11 + 40;
    fs::write(farm.path("vault.toml"), format!("{}\"\n", &good[..wrapped])).unwrap();
    says(&refusal(&mut around.command(&cloud)), &["vault.toml is no vault", "not 60", "restore it from a backup"]);
    fs::write(farm.path("vault.toml"), &good[..good.len() / 2]).unwrap();
    says(&refusal(&mut around.command(&cloud)), &["vault.toml is no vault", "restore it from a backup"]);
    fs::write(farm.path("vault.toml"), &good).unwrap();

    says(
        &refusal(&mut around.command(&["vault", "show", "--dir", &farm.path("nodes")])),
        &["has no vault.toml", "--dir"],
    );
    // Half a deployment is not re-keyed: the cloud's part would be lost.
    let away = farm.folder.path().join("cloud");
    fs::rename(farm.path("cloud"), &away).unwrap();
    says(
        &refusal(&mut around.command(&["vault", "rekey", "--dir", &farm.path("")])),
        &["has no cloud.toml", "--cloud"],
    );
    let elsewhere = ["vault", "rekey", "--dir", &farm.path(""), "--cloud", &other.path("cloud")];
    says(&refusal(&mut around.command(&elsewhere)), &["uses another vault or registry"]);
    assert_eq!(fs::read_to_string(farm.path("vault.toml")).unwrap(), good);
    fs::rename(&away, farm.path("cloud")).unwrap();

    // A cloud.toml of before names the passphrase file: that goes on, until another source opens the vault.
    let config = fs::read_to_string(farm.path("cloud/cloud.toml")).unwrap();
    let named = config.replacen("store = ", "passphrase_file = \"../passphrase\"\nstore = ", 1);
    fs::write(farm.path("cloud/cloud.toml"), named).unwrap();
    assert!(around.works(&[&cloud[..], &["--check"]].concat()));
    let told = around.rewrap(&farm.path(""), &["systemd-credential", CREDENTIAL]);
    assert!(told["next"][0].as_str().unwrap().contains("take `passphrase_file` out of"), "{told}");
    says(
        &refusal(&mut around.command(&cloud)),
        &["is opened by the systemd credential", "passphrase_file in cloud.toml"],
    );
    fs::write(farm.path("cloud/cloud.toml"), config).unwrap();
    assert!(around.works(&[&cloud[..], &["--check"]].concat()));
}
