//! Runs of EDHOC against the service with a registry, a vault and a store: what is noted where, and what gateways get of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::sync::Arc;

use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::push::Push;
use fivefold_cloud::service::{ExchangeError, Service};
use fivefold_cloud::store::Store;
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3;
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::e5_renewal::{Announce, CloudSecrets, Credential, Identity, Initiator, PeerKid, PqMix};
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::{LinkClass, Overrides, Policy, Profile};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{DownlinkKind, Envelope, Kind, Originator, parse_downlinks};
use fivefold_core::wire::state::{Added, Share, Standing, State};
use fivefold_keep::registry::{DeviceKey, FirstContexts, Gateway, NewDevice, Registry, Whom};
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::vault::Vault;
use tokio::task::block_in_place;

const NOW: Millis = Millis(1_790_000_000_000);

struct Site {
    folder: tempfile::TempDir,
    vault: Vault,
    book: Registry,
    net: Net,
    devices: Vec<(Did, Sid)>,
}

fn scalar(sid: Sid) -> AgreementKey {
    AgreementKey::from_random(&sha256(&[b"device", &sid.to_bytes()])).unwrap()
}

impl Site {
    /// A network with a primary and a secondary gateway.
    fn new(profile: Profile, devices: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut book = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = book.add_network(&vault, "n", profile, None).unwrap().net;
        for (n, primary) in [(1, true), (2, false)] {
            let gateway = Gateway {
                gateway: GatewayId(n),
                net,
                name: format!("g{n}"),
                sid: Sid(n as u16),
                did: Did([0xA0 + n as u8; 8]),
                primary,
                receipt_keys: Vec::new(),
                revoked_at: None,
            };
            book.add_gateway(&gateway).unwrap();
        }
        let mut site = Self { folder, vault, book, net, devices: Vec::new() };
        for n in 0..devices {
            let sid = Sid(0x0a00 + n);
            let key = DeviceKey { x: scalar(sid).public_x(), first: FirstContexts::Installed };
            let mut policy = Policy::new(profile);
            policy.pq_mix = true;
            let overrides = Overrides::NONE;
            let new = NewDevice { did: None, sid: Some(sid), net, policy, overrides, words: None, key: Some(key) };
            let (device, _) = site.book.add_device(&site.vault, &new, 1).unwrap();
            site.devices.push((device.did, sid));
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn service(&self, now: Millis) -> Arc<Service> {
        let store = Store::open(&self.path("readings.db")).unwrap();
        let vault = Arc::new(Vault::open_folder(self.folder.path()).unwrap());
        let settings = RenewalSettings::default();
        let open = || Service::open(store, self.path("registry.db"), vault, settings, now).unwrap();
        Arc::new(block_in_place(open))
    }

    fn gateway(&self, n: u32) -> ProvenGateway {
        gateway(self.net, n)
    }

    fn cloud_key(&mut self) -> (PeerKid, PublicX) {
        let identity = self.book.cloud_identity(&self.vault).unwrap();
        (identity.kid, identity.key.public_x())
    }
}

fn gateway(net: Net, n: u32) -> ProvenGateway {
    ProvenGateway::assertion(GatewayName { net, gateway: GatewayId(n) })
}

fn envelope(net: Net, sid: Sid, payload: &[u8]) -> Vec<u8> {
    let envelope = Envelope {
        seq: 77,
        received: NOW,
        kind: Kind::Edhoc,
        bytes: payload,
        originator: Originator::Node { net, sid },
        rssi: None,
        lqi: None,
        opened: None,
        link: LinkClass::MacCcm,
        hops: None,
        key_index: Some(1),
    };
    let mut out = vec![0; payload.len() + 128];
    let len = envelope.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

/// A reply: the context for the gateway, and the message for the device.
async fn ask(
    net: Net,
    service: &Arc<Service>,
    by: u32,
    sid: Sid,
    payload: &[u8],
    now: Millis,
) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let reply = service.exchange(&gateway(net, by), &envelope(net, sid, payload), now).await.unwrap();
    let (mut added, mut message) = (None, None);
    for downlink in parse_downlinks(&reply).unwrap().iter() {
        match downlink.kind {
            DownlinkKind::Context => {
                assert!(message.is_none(), "the gateway's share comes first");
                added = Some(downlink.bytes.to_vec());
            }
            DownlinkKind::Edhoc => {
                assert_eq!(downlink.seq, Some(77));
                assert_eq!(downlink.originator, Some(Originator::Node { net, sid }));
                message = Some(downlink.bytes.to_vec());
            }
            _ => panic!("{downlink:?}"),
        }
    }
    (added, message)
}

struct Renewed {
    added: Option<Vec<u8>>,
    m3: Vec<u8>,
    m4: Vec<u8>,
    secrets: CloudSecrets,
}

/// A whole run of device `n`.
async fn renew(site: &mut Site, service: &Arc<Service>, gateway: u32, n: usize, epoch: u16, now: Millis) -> Renewed {
    let (did, sid) = site.devices[n];
    let (kid, x) = site.cloud_key();
    let ephemeral = sha256(&[b"ephemeral", &sid.to_bytes(), &epoch.to_be_bytes()]);
    let ephemeral = AgreementKey::from_random(&ephemeral).unwrap();
    let (run, m1) = Initiator::<E3, _>::offer(ephemeral, sid, Epoch(epoch), Announce::Nothing).unwrap();
    let (_, m2) = ask(site.net, service, gateway, sid, m1.as_bytes(), now).await;
    let key = scalar(sid);
    let credential = Credential::device(sid, key.public_x());
    let own = Identity { key: &key, credential: &credential };
    let (run, m3) = run.handle_message_2(&m2.unwrap(), &own, &Credential::peer(kid, x)).unwrap();
    let (added, m4) = ask(site.net, service, gateway, sid, m3.as_bytes(), now).await;
    let m4 = m4.unwrap();
    let agreed = run.handle_message_4(&m4).unwrap();
    let device = site.book.device(did).unwrap();
    let root_psk = site.book.secrets(&site.vault, &device).unwrap().root_psk.clone();
    let secrets = agreed.secrets(device.policy.alg, Some(&PqMix::new(&root_psk, did)));
    Renewed { added, m3: m3.as_bytes().to_vec(), m4, secrets }
}

fn push(site: &Site, service: &Service, n: u32) -> Push {
    block_in_place(|| service.push(site.gateway(n).name()).unwrap())
}

/// What a state says of contexts.
fn contexts(part: &[u8]) -> (u64, Vec<(Sid, Epoch, Standing, bool)>) {
    let state = State::parse(part).unwrap();
    let of = |c: fivefold_core::wire::state::Context<'_>| {
        (c.sid, c.epoch, c.standing, matches!(c.share, Share::Primary { .. }))
    };
    (state.version, state.contexts.iter().map(of).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_noted_in_the_book_stored_sealed_and_handed_to_the_gateway_that_forwarded_it() {
    let mut site = Site::new(Profile::ToBoth, 1);
    let service = site.service(NOW);
    let (did, sid) = site.devices[0];
    let before = push(&site, &service, 1);
    let renewed = renew(&mut site, &service, 1, 0, 2, NOW).await;
    let noted = site.book.renewal(did).unwrap().unwrap();
    assert_eq!((noted.highest, noted.agreed_at), (Epoch(2), Some(NOW.0 / 1000)));
    // What the gateway got is what the device has.
    let added = renewed.added.unwrap();
    let added = Added::parse(&added).unwrap();
    let group = site.book.networks().unwrap()[0].group;
    let secret = renewed.secrets.e2_root.secret(group);
    let Share::Primary { master_secret, master_salt } = added.context.share else { panic!("not the primary's share") };
    assert_eq!((master_secret, master_salt), (secret.danger_master_secret(), secret.master_salt()));
    assert_eq!((added.context.sid, added.context.epoch, added.context.standing), (sid, Epoch(2), Standing::Pending));
    assert!(added.version > before.version);
    // The next state has it, under that version or a later one.
    let push = push(&site, &service, 1);
    let (version, listed) = contexts(&push.parts[0]);
    assert!(version >= added.version);
    assert_eq!(listed, [(sid, Epoch(1), Standing::Active, true), (sid, Epoch(2), Standing::Pending, true)]);
    // A repeat brings both once more.
    let (again, m4) = ask(site.net, &service, 1, sid, &renewed.m3, NOW).await;
    assert_eq!(m4, Some(renewed.m4));
    assert_eq!(Added::parse(&again.unwrap()).unwrap().context, added.context);
    drop(service);
    for file in std::fs::read_dir(site.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let e3 = renewed.secrets.e3.danger_master_secret();
        for needle in [e3, renewed.secrets.e2_root.danger_bytes(), renewed.secrets.blind.danger_bytes()] {
            assert!(!bytes.windows(needle.len()).any(|w| w == needle));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_gateway_was_ever_handed_holds_no_secret_of_e3_and_no_root_of_e2() {
    let mut site = Site::new(Profile::ToBoth, 3);
    let service = site.service(NOW);
    let mut handed: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut secrets = Vec::new();
    for epoch in 2..5 {
        for n in 0..3 {
            let gateway = 1 + (n as u32 + u32::from(epoch)) % 2;
            let renewed = renew(&mut site, &service, gateway, n, epoch, NOW.plus(u64::from(epoch) * 3_600_000)).await;
            handed.push((gateway, renewed.added.unwrap()));
            handed.push((gateway, renewed.m4));
            secrets.push((n, epoch, renewed.secrets));
        }
        for gateway in [1, 2] {
            for part in push(&site, &service, gateway).parts {
                handed.push((gateway, part.to_vec()));
            }
        }
    }
    let group = site.book.networks().unwrap()[0].group;
    let has = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    let mut forbidden: Vec<Vec<u8>> = Vec::new();
    let mut of_primary = 0;
    for (n, epoch, s) in &secrets {
        forbidden.extend([
            s.e3.danger_master_secret().to_vec(),
            s.e2_root.danger_bytes().to_vec(),
            s.blind.danger_bytes().to_vec(),
        ]);
        let ms2 = s.e2_root.secret(group);
        for (gateway, bytes) in &handed {
            let here = has(bytes, ms2.danger_master_secret());
            of_primary += usize::from(here);
            assert!(!here || *gateway == 1, "MS2 of device {n}, epoch {epoch}, at a secondary gateway");
        }
    }
    assert!(of_primary > 9, "the search finds what is there");
    for (did, _) in &site.devices {
        let device = site.book.device(*did).unwrap();
        let s = site.book.secrets(&site.vault, &device).unwrap();
        forbidden.extend([s.ms3.to_vec(), s.e2_root.to_vec(), s.blind.to_vec(), s.root_psk.to_vec()]);
        let ms2 = E2Root::new(*s.e2_root).secret(group);
        assert!(handed.iter().any(|(gateway, bytes)| *gateway == 1 && has(bytes, ms2.danger_master_secret())));
    }
    for (gateway, bytes) in &handed {
        for secret in &forbidden {
            assert!(!has(bytes, secret), "gateway {gateway}");
        }
    }
    // The secondary can open what the device sends.
    let last = handed.iter().rev().find(|(gateway, bytes)| *gateway == 2 && State::parse(bytes).is_ok()).unwrap();
    let (_, listed) = contexts(&last.1);
    assert!(listed.len() == 12 && listed.iter().all(|c| !c.3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_e2_gateways_are_handed_nothing_and_pushed_nothing() {
    let mut site = Site::new(Profile::ToCloud, 2);
    let service = site.service(NOW);
    let before = push(&site, &service, 1);
    for n in 0..2 {
        assert!(renew(&mut site, &service, 1, n, 2, NOW).await.added.is_none());
    }
    let after = push(&site, &service, 1);
    assert_eq!((before.version, before.parts), (after.version, after.parts), "one version has one content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_order_goes_to_the_gateway_where_messages_end_there() {
    let mut site = Site::new(Profile::ToGateway, 1);
    let service = site.service(NOW);
    let standings = |site: &Site| {
        block_in_place(|| service.refresh(NOW).unwrap());
        contexts(&push(site, &service, 1).parts[0]).1.iter().map(|c| (c.1.0, c.2)).collect::<Vec<_>>()
    };
    assert_eq!(standings(&site), [(1, Standing::Active)]);
    site.book.order_renewal(Whom::All, NOW.0 / 1000 + 1).unwrap();
    assert_eq!(standings(&site), [(1, Standing::Due)]);
    renew(&mut site, &service, 1, 0, 2, NOW.plus(5_000)).await;
    assert_eq!(standings(&site), [(1, Standing::Due), (2, Standing::Pending)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_messages_end_at_the_gateway_old_contexts_are_renewed_by_an_order_in_the_book() {
    const DAY: u64 = 24 * 3_600_000;
    let mut site = Site::new(Profile::ToGateway, 1);
    let service = site.service(NOW);
    let after = |site: &Site, now: Millis| {
        block_in_place(|| service.order_by_age(now).unwrap());
        contexts(&push(site, &service, 1).parts[0]).1.iter().map(|c| (c.1.0, c.2)).collect::<Vec<_>>()
    };
    assert_eq!(after(&site, NOW.plus(6 * DAY)), [(1, Standing::Active)]);
    assert_eq!(after(&site, NOW.plus(7 * DAY)), [(1, Standing::Due)]);
    let did = site.devices[0].0;
    let ordered = site.book.renewal(did).unwrap().unwrap().ordered_at;
    assert_eq!(ordered, Some(NOW.plus(7 * DAY).0 / 1000));
    // Once, until it has renewed.
    after(&site, NOW.plus(8 * DAY));
    assert_eq!(site.book.renewal(did).unwrap().unwrap().ordered_at, ordered);
    renew(&mut site, &service, 1, 0, 2, NOW.plus(8 * DAY)).await;
    assert_eq!(after(&site, NOW.plus(9 * DAY)), [(1, Standing::Due), (2, Standing::Pending)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_only_grow_also_over_a_restart_and_with_a_store_from_an_old_copy() {
    let mut site = Site::new(Profile::ToGateway, 1);
    let service = site.service(NOW);
    drop(service);
    std::fs::copy(site.path("readings.db"), site.path("copy.db")).unwrap();
    let mut now = NOW;
    let mut last = 0;
    for epoch in 2..6 {
        now = now.plus(3_600_000);
        let service = site.service(now);
        for gateway in [1, 2] {
            let push = push(&site, &service, gateway);
            assert!(push.version > last);
        }
        let added = renew(&mut site, &service, 1, 0, epoch, now).await.added.unwrap();
        let version = Added::parse(&added).unwrap().version;
        assert!(version > last);
        last = push(&site, &service, 1).version;
        assert!(last >= version);
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(site.path(&format!("readings.db{suffix}")));
    }
    std::fs::rename(site.path("copy.db"), site.path("readings.db")).unwrap();
    now = now.plus(60_000);
    let service = site.service(now);
    assert!(push(&site, &service, 1).version > last);
    // The book remembers what the store has forgotten: no epoch comes twice.
    let (_, sid) = site.devices[0];
    assert_eq!(site.book.renewal(site.devices[0].0).unwrap().unwrap().highest, Epoch(5));
    let ephemeral = AgreementKey::from_random(&[9; 32]).unwrap();
    let (run, m1) = Initiator::<E3, _>::offer(ephemeral, sid, Epoch(5), Announce::Nothing).unwrap();
    let (_, m2) = ask(site.net, &service, 1, sid, m1.as_bytes(), now).await;
    let (kid, x) = site.cloud_key();
    let key = scalar(sid);
    let credential = Credential::device(sid, key.public_x());
    let own = Identity { key: &key, credential: &credential };
    let (_, m3) = run.handle_message_2(&m2.unwrap(), &own, &Credential::peer(kid, x)).unwrap();
    assert_eq!(ask(site.net, &service, 1, sid, m3.as_bytes(), now).await, (None, None));
    let counts = service.cloud.memory().read(|r| r.counts()).unwrap();
    assert!(counts.iter().any(|c| c.key.code == Code::RenewalEpochNotGreater));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_devices_renew_at_one_time_and_each_gets_its_own() {
    let mut site = Site::new(Profile::ToCloud, 40);
    let service = site.service(NOW);
    let (kid, x) = site.cloud_key();
    let net = site.net;
    let mut runs = tokio::task::JoinSet::new();
    for (did, sid) in site.devices.clone() {
        let service = service.clone();
        runs.spawn(async move {
            let ephemeral = AgreementKey::from_random(&sha256(&[b"e", &sid.to_bytes()])).unwrap();
            let (run, m1) = Initiator::<E3, _>::offer(ephemeral, sid, Epoch(2), Announce::Nothing).unwrap();
            let (_, m2) = ask(net, &service, 1, sid, m1.as_bytes(), NOW).await;
            let key = scalar(sid);
            let credential = Credential::device(sid, key.public_x());
            let own = Identity { key: &key, credential: &credential };
            let (run, m3) = run.handle_message_2(&m2.unwrap(), &own, &Credential::peer(kid, x)).unwrap();
            // The same message_3 twice at one time: one context comes of it.
            let (first, second) = tokio::join!(
                ask(net, &service, 1, sid, m3.as_bytes(), NOW),
                ask(net, &service, 2, sid, m3.as_bytes(), NOW)
            );
            let m4 = first.1.or(second.1).unwrap();
            run.handle_message_4(&m4).unwrap();
            did
        });
    }
    while let Some(did) = runs.join_next().await {
        let device = service.cloud.book().by_did.get(&did.unwrap()).cloned().unwrap();
        let epochs: Vec<_> = device.contexts().iter().map(|c| c.epoch.0).collect();
        assert_eq!(epochs, [2, 1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_gateway_may_post_is_refused_and_counted() {
    let site = Site::new(Profile::ToCloud, 1);
    let service = site.service(NOW);
    let refused = service.exchange(&site.gateway(1), b"\x00", NOW).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::Refused(r) if r.rejected.code == Code::TinyMalformed));
    let refused = service.exchange(&site.gateway(3), &envelope(site.net, Sid(0x0a00), b"\x00"), NOW).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::Refused(r) if r.rejected.code == Code::ChannelRefused));
    let counts = service.cloud.memory().read(|r| r.counts()).unwrap();
    assert_eq!(counts.iter().map(|c| c.count).sum::<u64>(), 2);
}
