//! Renewal against the operator's real book, with power cuts wherever the gateway waits, and a cloud that misbehaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Mutex;

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, GatewayId};
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_gateway::certificate::{Answer, Desk, Renewal, Step, due};
use fivefold_gateway::config::Config;
use fivefold_gateway::credentials::{Credentials, recover};
use fivefold_gateway::join::{self, Site};
use fivefold_keep::ca::{Authority, Role};
use fivefold_keep::enrol::{Grant, Keys, Request, Token};
use fivefold_keep::registry::{Gateway, NotIssued, Registry, Word};
use fivefold_keep::share::{CERTIFICATE_FILE, GatewaySecrets, SECRETS_FILE};
use fivefold_keep::successor::{Journal, Next};
use fivefold_keep::tls::{Anchor, Identity, Pin};
use fivefold_keep::vault::Vault;
use tokio::sync::Notify;

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

/// Where power goes, or what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Good,
    CutBeforeIssue,
    CutAfterIssue,
    CutBeforeGreeting,
    CutAfterGreeting,
    LosesAnswers,
    RefusesTheNewOne,
    GivesAnothersCertificate,
    GivesNonsense,
    IsAway,
}

struct Cloud {
    registry: Mutex<Registry>,
    authority: Authority,
    issuing: Authority,
    anchor: Anchor,
    gateway: Gateway,
    mood: Mutex<Mood>,
    now: Mutex<u64>,
    cut: Notify,
    _folder: tempfile::TempDir,
}

impl Cloud {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = registry.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
        let (authority, _) = Authority::create("test").unwrap();
        let (certificate, key) = authority.create_issuer(NOW, 3650).unwrap();
        let (gateway, sid) = registry.next_gateway(net).unwrap();
        let gateway = Gateway {
            gateway,
            net,
            name: "north".into(),
            sid,
            did: Did([2; 8]),
            primary: true,
            receipt_keys: Vec::new(),
            revoked_at: None,
        };
        registry.add_gateway(&gateway).unwrap();
        Self {
            registry: Mutex::new(registry),
            issuing: Authority::load(&certificate, &key).unwrap(),
            anchor: Anchor::from_pem(authority.certificate().as_bytes()).unwrap(),
            authority,
            gateway,
            mood: Mutex::new(Mood::Good),
            now: Mutex::new(NOW),
            cut: Notify::new(),
            _folder: folder,
        }
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn at(&self, now: u64) {
        *self.now.lock().unwrap() = now;
    }

    fn now(&self) -> Millis {
        Millis(*self.now.lock().unwrap() * 1000)
    }

    fn issued(&self) -> usize {
        self.registry.lock().unwrap().certificates().unwrap().len()
    }

    /// Power goes: whoever waits here waits for ever.
    async fn cut<T>(&self) -> T {
        self.cut.notify_one();
        std::future::pending().await
    }

    fn renew(&self, identity: &Identity, request: &str) -> Result<String, NotIssued> {
        let now = *self.now.lock().unwrap();
        let request = Request::parse(request.as_bytes())?;
        let mut registry = self.registry.lock().unwrap();
        Ok(registry.renew_gateway(&self.issuing, identity.serial(), &request, now)?.chain)
    }
}

impl Desk for &Cloud {
    async fn ask(&self, identity: &Identity, request: String) -> Answer<String> {
        match self.mood() {
            Mood::CutBeforeIssue => return self.cut().await,
            Mood::IsAway => return Answer::Away(None, "nobody there".into()),
            Mood::GivesNonsense => return Answer::Done("nonsense".into()),
            Mood::GivesAnothersCertificate => {
                let role = Role::Gateway(self.gateway.net, self.gateway.gateway);
                let other = self.authority.issue(&role, self.now().0 / 1000, 90).unwrap();
                return Answer::Done(other.certified.chain);
            }
            _ => {}
        }
        match self.renew(identity, &request) {
            Ok(_) if self.mood() == Mood::CutAfterIssue => self.cut().await,
            Ok(_) if self.mood() == Mood::LosesAnswers => Answer::Away(None, "the answer was lost".into()),
            Ok(chain) => Answer::Done(chain),
            Err(NotIssued::Refused(r)) => Answer::Refused(Some(r.word().into()), None, r.reason().into()),
            Err(other) => panic!("{other}"),
        }
    }

    async fn greet(&self, identity: &Identity) -> Answer<()> {
        let is_in_force = self.registry.lock().unwrap().roll().unwrap().is_in_force(identity.serial());
        match self.mood() {
            Mood::CutBeforeGreeting | Mood::CutAfterGreeting => self.cut().await,
            Mood::RefusesTheNewOne => {
                let rejected = Rejected::new(Code::ChannelRefused, "the peer refuses our certificate");
                Answer::Refused(None, Some(rejected), "the peer refuses our certificate".into())
            }
            Mood::IsAway => Answer::Away(None, "nobody there".into()),
            _ if is_in_force => Answer::Done(()),
            other => panic!("{other:?}: the gateway shows a certificate that is not in force"),
        }
    }
}

/// A gateway's folder, after it joined.
struct Folder {
    folder: tempfile::TempDir,
    vault: Vault,
}

impl Folder {
    fn joined(cloud: &Cloud) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let name = cloud.gateway.certified_as();
        let token = cloud.invite();
        let request = join::prepare(at, name, cloud.now()).unwrap();
        let again = join::prepare(at, name, cloud.now()).unwrap();
        assert_eq!(keys_of(&request), keys_of(&again), "the keys are durable before they are shown");
        cloud.enrol_into(at, &token, &request);
        let vault = Vault::open_folder(at).unwrap();
        Self { folder, vault }
    }

    fn at(&self) -> &Path {
        self.folder.path()
    }

    fn config(&self) -> Config {
        Config::read(self.at(), Millis(NOW * 1000)).unwrap()
    }

    /// The pair in use: whatever else is the case, its two files fit together.
    fn current(&self) -> Identity {
        self.config().identity(&self.vault).unwrap().0
    }

    fn renewal<'a>(&'a self, cloud: &'a Cloud) -> Renewal<'a, &'a Cloud> {
        let name = cloud.gateway.certified_as();
        Renewal { folder: self.at(), vault: &self.vault, name, anchor: &cloud.anchor, desk: cloud }
    }

    /// One attempt; `None` when power went in the middle of it.
    async fn attempt(&self, cloud: &Cloud) -> Option<Step> {
        let current = self.current();
        let renewal = self.renewal(cloud);
        tokio::select! {
            step = renewal.attempt(&current, cloud.now()) => Some(step.unwrap()),
            () = cloud.cut.notified() => None,
        }
    }

    fn next(&self) -> Option<Next> {
        Journal::of_renewal(self.at(), &self.vault).read().unwrap()
    }
}

impl Cloud {
    fn invite(&self) -> Token {
        let word = Word { who: "operator", at: NOW };
        self.registry.lock().unwrap().invite_gateway(&self.gateway, NOW + DAY, word).unwrap()
    }

    fn enrol_into(&self, folder: &Path, token: &Token, request: &str) {
        let request = Request::parse(request.as_bytes()).unwrap();
        let mut registry = self.registry.lock().unwrap();
        let issued = registry.enrol_gateway(&self.issuing, token, &request, NOW).unwrap();
        let grant = registry.grant(&issued, self.authority.certificate()).unwrap();
        join::settle(folder, &grant, &Pin::Anchor(self.anchor.clone()), &site(), Millis(NOW * 1000)).unwrap();
    }
}

fn site() -> Site {
    Site {
        cloud: "https://cloud.example:8443".into(),
        radio: "127.0.0.1:0".parse().unwrap(),
        air: Vec::new(),
        coap: None,
    }
}

fn keys_of(request: &str) -> impl PartialEq + std::fmt::Debug + use<> {
    Request::parse(request.as_bytes()).unwrap().keys()
}

#[tokio::test]
async fn a_gateway_renews_at_two_thirds_of_the_life_and_not_before() {
    let cloud = Cloud::new();
    let site = Folder::joined(&cloud);
    let old = site.current();
    assert_eq!(due(old.validity()).0 / 1000, NOW - 300 + 60 * DAY);
    cloud.at(NOW + 59 * DAY);
    assert!(matches!(site.attempt(&cloud).await, Some(Step::NotYet(at)) if at == due(old.validity())));
    assert_eq!((cloud.issued(), site.next().is_none()), (1, true));
    cloud.at(NOW + 60 * DAY);
    assert!(matches!(site.attempt(&cloud).await, Some(Step::Proven)));
    assert_eq!(site.current().serial(), old.serial(), "the old pair is in use until the new one takes its place");
    // The daemon's part: certificate and key for receipts are replaced together.
    let (identity, secrets) = site.config().identity(&site.vault).unwrap();
    let credentials = Credentials::new(identity, site.config().signing(&secrets).unwrap());
    let receipts = credentials.signing().spki().to_vec();
    credentials.settle(&site.config(), &site.vault).unwrap();
    assert_ne!(credentials.identity().current().serial(), old.serial());
    assert_ne!(credentials.signing().spki(), receipts);
    assert_eq!(site.current().serial(), credentials.identity().current().serial());
    assert!(matches!(site.attempt(&cloud).await, Some(Step::NotYet(_))));
    assert!(!credentials.reload(&site.config(), &site.vault).unwrap(), "the same pair again");
}

#[tokio::test]
async fn power_may_go_wherever_the_gateway_waits_and_it_goes_on_with_the_same_keys() {
    let moods = [
        Mood::CutBeforeIssue,
        Mood::CutAfterIssue,
        Mood::LosesAnswers,
        Mood::CutBeforeGreeting,
        Mood::CutAfterGreeting,
        Mood::IsAway,
    ];
    for mood in moods {
        let cloud = Cloud::new();
        let site = Folder::joined(&cloud);
        let old = site.current();
        cloud.at(NOW + 61 * DAY);
        cloud.is(mood);
        let step = site.attempt(&cloud).await;
        assert!(matches!(step, None | Some(Step::Again(..))), "{mood:?}: {step:?}");
        recover(site.at(), &site.vault).unwrap();
        assert_eq!(site.current().serial(), old.serial(), "{mood:?}");
        let Some(Next::Asked(keys) | Next::Issued(keys, _)) = site.next() else { panic!("{mood:?}: no keys") };
        cloud.is(Mood::Good);
        cloud.at(NOW + 62 * DAY);
        assert!(matches!(site.attempt(&cloud).await, Some(Step::Proven)), "{mood:?}");
        assert_eq!(cloud.issued(), 2, "{mood:?}: no certificate was issued twice");
        recover(site.at(), &site.vault).unwrap();
        let new = site.current();
        assert_ne!(new.serial(), old.serial(), "{mood:?}");
        let secrets = GatewaySecrets::read(&site.vault, site.at()).unwrap();
        assert_eq!((secrets.tls_key, secrets.signing_key), (keys.tls, keys.receipts), "{mood:?}");
    }
}

#[tokio::test]
async fn power_may_go_between_any_two_files_when_the_new_pair_takes_its_place() {
    let cloud = Cloud::new();
    let site = Folder::joined(&cloud);
    let old = site.current();
    cloud.at(NOW + 61 * DAY);
    assert!(matches!(site.attempt(&cloud).await, Some(Step::Proven)));
    let read = |file: &str| std::fs::read(site.at().join(file)).unwrap();
    let journal = "renewal.sealed";
    let before = [SECRETS_FILE, CERTIFICATE_FILE, journal].map(read);
    recover(site.at(), &site.vault).unwrap();
    let new = site.current();
    assert_ne!(new.serial(), old.serial());
    let after = [SECRETS_FILE, CERTIFICATE_FILE].map(read);
    // Of secrets, certificate and journal, in this order, so many were done.
    for done in 0..=2 {
        let secrets = if done > 0 { &after[0] } else { &before[0] };
        let certificate = if done > 1 { &after[1] } else { &before[1] };
        std::fs::write(site.at().join(SECRETS_FILE), secrets).unwrap();
        std::fs::write(site.at().join(CERTIFICATE_FILE), certificate).unwrap();
        std::fs::write(site.at().join(journal), &before[2]).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(site.at().join(journal), private).unwrap();
        recover(site.at(), &site.vault).unwrap();
        assert_eq!(site.current().serial(), new.serial(), "after {done} files");
        assert!(site.next().is_none());
    }
}

#[tokio::test]
async fn a_new_certificate_that_the_cloud_refuses_is_given_up_and_the_old_one_stays() {
    let cloud = Cloud::new();
    let site = Folder::joined(&cloud);
    let old = site.current();
    cloud.at(NOW + 61 * DAY);
    cloud.is(Mood::RefusesTheNewOne);
    let Some(Step::Again(Some(rejected), _)) = site.attempt(&cloud).await else { panic!() };
    assert_eq!(rejected.code, Code::ChannelRefused);
    assert!(site.next().is_none());
    recover(site.at(), &site.vault).unwrap();
    assert_eq!(site.current().serial(), old.serial());
    cloud.is(Mood::Good);
    assert!(matches!(site.attempt(&cloud).await, Some(Step::Proven)), "with other keys");
    assert_eq!(cloud.issued(), 3);
}

#[tokio::test]
async fn what_is_no_certificate_for_these_keys_is_not_kept() {
    for mood in [Mood::GivesNonsense, Mood::GivesAnothersCertificate] {
        let cloud = Cloud::new();
        let site = Folder::joined(&cloud);
        let old = site.current();
        cloud.at(NOW + 61 * DAY);
        cloud.is(mood);
        assert!(matches!(site.attempt(&cloud).await, Some(Step::Again(None, _))), "{mood:?}");
        assert!(site.next().is_none());
        assert_eq!(site.current().serial(), old.serial());
        cloud.is(Mood::Good);
        assert!(matches!(site.attempt(&cloud).await, Some(Step::Proven)), "{mood:?}");
    }
}

#[tokio::test]
async fn keys_that_were_certified_for_something_else_are_drawn_anew() {
    let cloud = Cloud::new();
    let site = Folder::joined(&cloud);
    cloud.at(NOW + 61 * DAY);
    let used = GatewaySecrets::read(&site.vault, site.at()).unwrap();
    let used = Keys { tls: used.tls_key, receipts: used.signing_key };
    Journal::of_renewal(site.at(), &site.vault).write(&Next::Asked(used)).unwrap();
    assert!(matches!(site.attempt(&cloud).await, Some(Step::Again(None, why)) if why.contains("draw two new ones")));
    assert!(matches!(site.attempt(&cloud).await, Some(Step::Proven)));
}

#[tokio::test]
async fn a_gateway_that_was_away_for_months_renews_by_the_operators_word() {
    let cloud = Cloud::new();
    let site = Folder::joined(&cloud);
    let late = NOW + 200 * DAY;
    cloud.at(late);
    assert!(matches!(site.attempt(&cloud).await, Some(Step::Again(..))));
    let word = Word { who: "operator", at: late };
    cloud.registry.lock().unwrap().allow_late_renewal(&cloud.gateway, late + DAY, word).unwrap();
    assert!(matches!(site.attempt(&cloud).await, Some(Step::Proven)));
    recover(site.at(), &site.vault).unwrap();
    assert!(site.current().validity().1 > cloud.now());
}

#[test]
fn a_grant_for_other_keys_another_gateway_or_of_another_ca_is_refused_and_nothing_is_written() {
    let cloud = Cloud::new();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("north");
    let (name, now) = (cloud.gateway.certified_as(), cloud.now());
    let pin = Pin::Anchor(cloud.anchor.clone());
    let mut registry = cloud.registry.lock().unwrap();
    let request = join::prepare(&at, name, now).unwrap();
    let request = Request::parse(request.as_bytes()).unwrap();
    let issued = registry.sign_gateway(&cloud.authority, &request, Word { who: "operator", at: NOW }).unwrap();
    let good = registry.grant(&issued, cloud.authority.certificate()).unwrap();
    let refused = |grant: &Grant, pin: &Pin, now| {
        let error = join::settle(&at, grant, pin, &site(), now).unwrap_err().to_string();
        assert!(!at.join("gateway.toml").exists() && !at.join(CERTIFICATE_FILE).exists(), "{error}");
        error
    };
    let other = Cloud::new();
    assert!(refused(&good, &Pin::Anchor(other.anchor.clone()), now).contains("another CA"));
    assert!(refused(&good, &Pin::Hash([7; 32]), now).contains("another CA"));
    let mut changed = good.clone();
    changed.ca = other.authority.certificate().to_owned();
    assert!(refused(&changed, &Pin::Anchor(other.anchor.clone()), now).contains("operator's CA"));
    let mut changed = good.clone();
    let role = Role::Gateway(name.net, name.gateway);
    changed.certificate = cloud.authority.issue(&role, NOW, 90).unwrap().certified.chain;
    assert!(refused(&changed, &pin, now).contains("does not belong"));
    for change in [|g: &mut Grant| g.id = "00000077".into(), |g: &mut Grant| g.net = "00000077".into()] {
        let mut changed = good.clone();
        change(&mut changed);
        assert!(refused(&changed, &pin, now).contains("another gateway's"));
    }
    let changes: [fn(&mut Grant); 3] = [|g| g.pan = "x".into(), |g| g.sid = String::new(), |g| g.did = "1".into()];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed);
        assert!(refused(&changed, &pin, now).contains("expected"));
    }
    assert!(refused(&good, &pin, Millis((NOW + 91 * DAY) * 1000)).contains("expired"));
    let elsewhere = tempfile::tempdir().unwrap();
    let error = join::settle(elsewhere.path(), &good, &pin, &site(), now).unwrap_err();
    assert!(error.to_string().contains("waits for no grant"), "{error}");
    // And the good one is still good.
    let (called, identity) = join::settle(&at, &good, &pin, &site(), now).unwrap();
    assert_eq!((called.as_str(), identity.gateway().unwrap()), ("north", name));
    let other_name = GatewayName { gateway: GatewayId(9), ..name };
    assert!(join::prepare(&at, other_name, now).unwrap_err().to_string().contains("name another folder"));
}

#[test]
fn joining_again_keeps_the_config_and_replaces_the_keys() {
    let cloud = Cloud::new();
    let site = Folder::joined(&cloud);
    let (old, path) = (site.current(), site.at().join("gateway.toml"));
    let text = std::fs::read_to_string(&path).unwrap().replace("max_mib = 256", "max_mib = 77");
    std::fs::write(&path, &text).unwrap();
    Journal::of_renewal(site.at(), &site.vault).write(&Next::Asked(Keys::draw().unwrap())).unwrap();
    let token = cloud.invite();
    let request = join::prepare(site.at(), cloud.gateway.certified_as(), cloud.now()).unwrap();
    cloud.enrol_into(site.at(), &token, &request);
    assert_ne!(site.current().serial(), old.serial());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert!(site.next().is_none(), "a renewal of the old pair is over");
}
