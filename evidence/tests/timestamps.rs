//! Timestamps of an authority that OpenSSL plays: taken, checked by OpenSSL too, and refused when anything is altered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod sample;

use std::path::{Path, PathBuf};
use std::process::Command;

use fivefold_core::proof::statement::SignedLevel;
use fivefold_evidence::bundle::Bundle;
use fivefold_evidence::timestamp;
use fivefold_evidence::trust::Trust;
use fivefold_evidence::verify::{Report, Verdict, verify_file};
use sample::{Owned, Village};

const CONFIG: &str = "
[req]
distinguished_name = dn
prompt = no
[dn]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[signer]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[other]
keyUsage = critical, digitalSignature
extendedKeyUsage = timeStamping
[ca]
default_ca = lists
[lists]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 30
[tsa]
default_tsa = authority_of_time
[authority_of_time]
serial = serial
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
signer_digest = sha256
accuracy = secs:1
ordering = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
";

/// An authority of timestamps in a folder.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// With keys of this kind, in the words of `openssl genpkey`.
    fn new(key: &[&str]) -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(this.path("config"), CONFIG).unwrap();
        for (file, text) in [("index.txt", ""), ("crlnumber", "01\n"), ("serial", "01\n")] {
            std::fs::write(this.path(file), text).unwrap();
        }
        for name in ["ca", "signer", "other"] {
            this.run(&[&["genpkey", "-out", &format!("{name}.key")], key].concat());
        }
        this.run(&[
            "req",
            "-x509",
            "-new",
            "-config",
            "config",
            "-subj",
            "/CN=Time CA",
            "-key",
            "ca.key",
            "-days",
            "3650",
            "-extensions",
            "authority",
            "-out",
            "ca.pem",
        ]);
        for name in ["signer", "other"] {
            let subject = format!("/CN=Time {name}");
            this.run(&[
                "req",
                "-new",
                "-config",
                "config",
                "-subj",
                &subject,
                "-key",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.csr"),
            ]);
            this.run(&[
                "x509",
                "-req",
                "-in",
                &format!("{name}.csr"),
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "365",
                "-extfile",
                "config",
                "-extensions",
                name,
                "-out",
                &format!("{name}.pem"),
            ]);
        }
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(&self.folder).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// The answer to a question of ours.
    fn answer(&self, imprint: &[u8; 32]) -> Vec<u8> {
        std::fs::write(self.path("question"), timestamp::request(imprint)).unwrap();
        self.run(&[
            "ts",
            "-reply",
            "-config",
            "config",
            "-section",
            "authority_of_time",
            "-queryfile",
            "question",
            "-inkey",
            "signer.key",
            "-signer",
            "signer.pem",
            "-out",
            "answer",
        ]);
        self.run(&["ts", "-verify", "-queryfile", "question", "-in", "answer", "-CAfile", "ca.pem"]);
        std::fs::read(self.path("answer")).unwrap()
    }

    fn list(&self) -> Vec<u8> {
        self.run(&["ca", "-gencrl", "-config", "config", "-keyfile", "ca.key", "-cert", "ca.pem", "-out", "crl.pem"]);
        self.run(&["crl", "-in", "crl.pem", "-outform", "DER", "-out", "crl"]);
        std::fs::read(self.path("crl")).unwrap()
    }

    fn revoke(&self, name: &str) {
        self.run(&["ca", "-config", "config", "-keyfile", "ca.key", "-cert", "ca.pem", "-revoke", name]);
    }

    fn pem(&self, name: &str) -> String {
        // OpenSSL may write text above it.
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text[text.find("-----BEGIN").unwrap()..].to_owned()
    }
}

fn one(bundle: &Owned, trust: &Trust) -> Report {
    verify_file(&bundle.bytes(), trust).remove(0)
}

fn stamped(bundle: &Owned, authority: &Authority, lists: Vec<Vec<u8>>) -> Owned {
    let bytes = bundle.bytes();
    let imprint = timestamp::imprint_of(&Bundle::parse(&bytes).unwrap()).unwrap();
    let answer = authority.answer(&imprint);
    assert!(timestamp::token_over(&answer, &[0; 32]).is_err(), "over something else");
    let token = timestamp::token_over(&answer, &imprint).unwrap();
    let chain = timestamp::chain_of(token, &[]).unwrap();
    let chain: Vec<_> = chain.into_iter().map(<[u8]>::to_vec).collect();
    assert_eq!(chain.len(), 1, "the signer's; the authority's own is pinned");
    let mut bundle = bundle.clone();
    bundle.timestamps.push((token.to_vec(), chain, lists));
    bundle
}

fn village() -> (Village, Owned) {
    let mut village = Village::new(40);
    let batch = village.batch(0, SignedLevel::Cloud, None, 3, &[]);
    let bundle = village.bundle(&batch, 1);
    (village, bundle)
}

fn trusting(village: &Village, authority: &Authority) -> Trust {
    let text = village.trust_text();
    format!("{text}\n[timestamps]\nca = [\"\"\"\n{}\"\"\"]\n", authority.pem("ca.pem")).parse().unwrap()
}

fn is_there() -> bool {
    Path::new("/usr/bin/openssl").exists() || Command::new("openssl").arg("version").output().is_ok()
}

#[test]
fn tokens_of_each_kind_of_key_are_taken_and_no_altered_byte_of_one() {
    assert!(is_there(), "this test needs openssl");
    let (village, bundle) = village();
    let kinds: [&[&str]; 3] = [
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    ];
    let mut tried = 0;
    for kind in kinds {
        let authority = Authority::new(kind);
        let trust = trusting(&village, &authority);
        let stamped = stamped(&bundle, &authority, vec![authority.list()]);
        let said = one(&stamped, &trust);
        assert_eq!(said.verdict, Verdict::Proven, "{kind:?}: {:?}", said.reason);
        let [stamp] = &said.timestamps[..] else { panic!("{:?}", said.timestamps) };
        assert!(
            stamp.authority.contains("Time signer")
                && stamp.revocation_checked
                && stamp.at > sample::NOW - 1_000_000_000
        );
        // Whoever pins no authority is told that it was not looked at.
        let said = one(&stamped, &village.trust());
        assert_eq!((said.verdict, said.timestamps_unchecked), (Verdict::Proven, 1));

        let whole = stamped.bytes();
        let start = bundle.bytes().len() - 1;
        for at in start..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= [0x01, 0x20, 0x80][at % 3];
            let said = verify_file(&altered, &trust);
            assert!(said.iter().all(|r| r.verdict != Verdict::Proven), "{kind:?}: byte {at}");
            tried += 1;
        }
    }
    println!("{tried} alterations of timestamps, none passes");
}

#[test]
fn what_is_not_the_authoritys_word_about_this_checkpoint_is_refused() {
    let (village, bundle) = village();
    let authority = Authority::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let trust = trusting(&village, &authority);
    let right = stamped(&bundle, &authority, vec![authority.list()]);
    assert_eq!(one(&right, &trust).step, None);
    let refused = |edit: &dyn Fn(&mut Owned), trust: &Trust, why: &str| {
        let mut wrong = right.clone();
        edit(&mut wrong);
        let said = one(&wrong, trust);
        assert_eq!((said.verdict, said.step), (Verdict::Refused, Some("timestamps")), "{why}");
        assert!(said.reason.as_ref().unwrap().contains(why), "{:?} does not say `{why}`", said.reason);
    };
    let stranger = Authority::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    refused(&|_| {}, &trusting(&village, &stranger), "signature of a certificate");
    let other = {
        let mut village = Village::new(40);
        let batch = village.batch(1, SignedLevel::Cloud, None, 4, &[]);
        stamped(&village.bundle(&batch, 1), &authority, vec![])
    };
    refused(&|b| b.timestamps = other.timestamps.clone(), &trust, "something else than the checkpoint");
    let certificate = |name: &str| timestamp::certificates_in(&authority.pem(name)).unwrap();
    refused(&|b| b.timestamps[0].1 = certificate("other.pem"), &trust, "not its signer's");
    refused(&|b| b.timestamps[0].1.push(certificate("other.pem").remove(0)), &trust, "no CA bit");
    refused(&|b| b.timestamps[0].2 = vec![stranger.list()], &trust, "signed by nobody in its chain");
    // Another one's certificate is revoked, then the signer's, before it signs again.
    authority.revoke("other.pem");
    let list = authority.list();
    let mut unharmed = right.clone();
    unharmed.timestamps[0].2 = vec![list];
    assert_eq!(one(&unharmed, &trust).step, None);
    authority.revoke("signer.pem");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let late = stamped(&bundle, &authority, vec![authority.list()]);
    let said = one(&late, &trust);
    assert_eq!(said.step, Some("timestamps"));
    assert!(said.reason.unwrap().contains("was revoked before it signed"));
}
