//! Classic devices in the operator's book: who may be entered, with which keys, and what is said of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::id::{Did, GatewayId, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_keep::registry::{
    ClassicKeys, ClassicProfile, ClassicSecret, Gateway, HardenedHolder, NewClassic, NewDevice, Registry, RegistryError,
};
use fivefold_keep::vault::{Rekey, Vault};
use fivefold_waspmote::{KeyBits, Serial, Table, Weak};

struct Book {
    registry: Registry,
    vault: Vault,
    folder: tempfile::TempDir,
    net: Net,
}

fn book() -> Book {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::create(folder.path()).unwrap();
    let mut registry = Registry::create(
        &folder.path().join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let net = registry.add_network(&vault, "old", Profile::ToCloud, None).unwrap().net;
    registry.allow_classic("old").unwrap();
    Book { registry, vault, folder, net }
}

fn serial(text: &str) -> Serial {
    text.parse().unwrap()
}

const STRONG: &[u8] = b"\x23\x58\x2d\x8a\xa5\xe3\x9a\x9f\xf3\x65\x95\x46\x62\xd0\x83\xff";

fn key(bytes: &[u8]) -> Option<ClassicSecret> {
    Some(ClassicSecret::from_bytes(bytes).unwrap())
}

impl Book {
    fn plain(&self, text: &str) -> NewClassic {
        NewClassic::plain(serial(text), self.net)
    }

    fn refused(&mut self, new: &NewClassic) -> String {
        match self.registry.add_classic(&self.vault, new, 1) {
            Err(RegistryError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_device_reads_as_it_was_added_and_its_keys_are_nowhere_in_the_clear() {
    let mut b = book();
    let other: Vec<u8> = STRONG.iter().chain(STRONG).map(|byte| byte ^ 0x5A).collect();
    let new = NewClassic {
        node_id: Some("park-7".into()),
        table: Some(Table::Water),
        dev_eui: Some(Did([5; 8])),
        profile: ClassicProfile::Hardened,
        keys: ClassicKeys { gateway: key(STRONG), cloud: key(&other) },
        ..b.plain("8a7384477876150c")
    };
    let added = b.registry.add_classic(&b.vault, &new, 77).unwrap();
    assert_eq!(
        (added.did, added.added_at, added.revoked_at),
        (Did([0x8A, 0x73, 0x84, 0x47, 0x78, 0x76, 0x15, 0x0C]), 77, None)
    );
    assert_eq!(b.registry.classic_device(added.serial).unwrap(), added);
    assert_eq!(b.registry.classic_devices().unwrap(), std::slice::from_ref(&added));
    assert_eq!((added.gateway_key.unwrap().bits, added.cloud_key.unwrap().bits), (KeyBits::Aes128, KeyBits::Aes256));
    let keys = b.registry.classic_keys(&b.vault, &added).unwrap();
    assert_eq!((keys.gateway.unwrap().bytes(), keys.cloud.unwrap().bytes()), (STRONG, &other[..]));
    drop(b.registry);
    for entry in std::fs::read_dir(b.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(16).any(|w| w == STRONG || w == &other[..16]), "{}", path.display());
    }
}

#[test]
fn weak_keys_are_named_and_need_the_operators_words() {
    let mut b = book();
    for (text, bits, weak) in [
        (&b""[..], KeyBits::Aes128, "all zeros"),
        (b"libelium", KeyBits::Aes128, "tried first"),
        (b"Fb9iZ1AeU9", KeyBits::Aes256, "shorter than the key"),
    ] {
        let keys = ClassicKeys { gateway: None, cloud: Some(ClassicSecret::read(text, bits).unwrap()) };
        let mut new = NewClassic { keys, ..b.plain("387264539") };
        let why = b.refused(&new);
        assert!(why.contains("CL-13") && why.contains(weak) && why.contains("--danger-weak-key"), "{why}");
        new.words = Some("short".into());
        assert!(b.refused(&new).contains("CL-13"), "words of five letters");
    }
    let keys =
        ClassicKeys { gateway: Some(ClassicSecret::read(b"Fb9iZ1AeU9Yu9vTf", KeyBits::Aes128).unwrap()), cloud: None };
    let printable = NewClassic { keys, ..b.plain("1") };
    let added = b.registry.add_classic(&b.vault, &printable, 1).unwrap();
    assert_eq!(added.gateway_key.unwrap().weakness, Some(Weak::Printable), "named, and what nodes take");
    let keys = ClassicKeys { gateway: Some(ClassicSecret::read(b"", KeyBits::Aes128).unwrap()), cloud: None };
    let words = Some("the nodes are on a mast until spring".to_owned());
    let added =
        b.registry.add_classic(&b.vault, &NewClassic { keys, words: words.clone(), ..b.plain("2") }, 1).unwrap();
    assert_eq!((added.gateway_key.unwrap().weakness, added.words), (Some(Weak::Zero), words));
}

#[test]
fn a_gateway_gets_no_key_that_opens_what_is_for_the_cloud() {
    let mut b = book();
    let keys = ClassicKeys { gateway: key(STRONG), cloud: key(STRONG) };
    let new = NewClassic { keys, ..b.plain("1") };
    assert!(b.refused(&new).contains("AR-05"));
}

#[test]
fn a_serial_a_short_id_and_a_radio_belong_to_one_device() {
    let mut b = book();
    let first = NewClassic { dev_eui: Some(Did([5; 8])), sid: Some(Sid(0x0a17)), ..b.plain("387264539") };
    b.registry.add_classic(&b.vault, &first, 1).unwrap();
    let again = b.plain("387264539");
    assert!(b.refused(&again).contains("exists already (sid 0a17)"));
    let taken = NewClassic { sid: Some(Sid(0x0a17)), ..b.plain("7") };
    assert!(b.refused(&taken).contains("AR-38"));
    let reserved = NewClassic { sid: Some(Sid(0xFFFE)), ..b.plain("7") };
    assert!(b.refused(&reserved).contains("reserved"));
    let radio = NewClassic { dev_eui: Some(Did([5; 8])), ..b.plain("7") };
    assert!(b.refused(&radio).contains("device 387264539 has the DevEUI"));
    let zeros = b.plain("0000000000000000");
    assert!(b.refused(&zeros).contains("zeros"));
    for node_id in ["", "a#b", "with blank", "seventeen-letters"] {
        let named = NewClassic { node_id: Some(node_id.into()), ..b.plain("7") };
        assert!(b.refused(&named).contains("node id"), "{node_id}");
    }
    // Both kinds of devices draw from the same numbers.
    let policy = Policy::new(Profile::ToCloud);
    let modern =
        |did| NewDevice { did, sid: None, net: b.net, policy, overrides: Overrides::NONE, words: None, key: None };
    let new = modern(None);
    let (device, _) = b.registry.add_device(&b.vault, &new, 1).unwrap();
    let next = b.plain("7");
    let next = b.registry.add_classic(&b.vault, &next, 1).unwrap();
    assert_ne!(device.sid, next.sid);
    let clash = NewDevice { sid: Some(next.sid), ..new.clone() };
    assert!(b.registry.add_device(&b.vault, &clash, 1).unwrap_err().to_string().contains("AR-38"));
    let (another, _) = b.registry.add_device(&b.vault, &new, 1).unwrap();
    assert!(another.sid != next.sid && another.sid != Sid(0x0a17));
    let same_id = b.plain(&device.did.to_string());
    assert!(b.refused(&same_id).contains("EUI-64 of another device"));
}

#[test]
fn many_are_looked_at_against_one_another_and_entered_together_or_not_at_all() {
    let mut b = book();
    let news: Vec<NewClassic> = ["5", "6", "5", "8a7384477876150c"].into_iter().map(|s| b.plain(s)).collect();
    let examined = b.registry.examine_classic(&news, 3, |at| format!("line {}", at + 2)).unwrap();
    assert!(examined[2].as_ref().unwrap_err().contains("line 2 has it already"));
    let good: Vec<_> = examined.iter().zip(&news).filter_map(|(e, n)| e.as_ref().ok().map(|d| (d, &n.keys))).collect();
    assert_eq!(good.len(), 3);
    let version = b.registry.version().unwrap();
    b.registry.enter_classic(&b.vault, &good).unwrap();
    assert_eq!(b.registry.version().unwrap(), version + 1);
    let sids: std::collections::HashSet<Sid> = b.registry.classic_devices().unwrap().iter().map(|d| d.sid).collect();
    assert_eq!(sids.len(), 3);
    assert!(b.registry.enter_classic(&b.vault, &good).unwrap_err().to_string().contains("type this again"));
    assert_eq!(b.registry.classic_devices().unwrap().len(), 3);
}

#[test]
fn a_network_takes_classic_devices_only_where_the_operator_says_so() {
    let mut b = book();
    let other = b.registry.add_network(&b.vault, "new", Profile::ToCloud, None).unwrap().net;
    let new = NewClassic { net: other, ..b.plain("5") };
    assert!(b.refused(&new).contains("fivefold network set"));
    assert_eq!(b.registry.classic_networks().unwrap(), [b.net]);
    let new = b.plain("5");
    b.registry.add_classic(&b.vault, &new, 1).unwrap();
    assert!(b.registry.forbid_classic("old").unwrap_err().to_string().contains("1 classic device: revoke"));
    b.registry.revoke_classic(serial("5"), 9).unwrap();
    b.registry.forbid_classic("old").unwrap();
    assert_eq!(b.registry.classic_networks().unwrap(), []);
}

#[test]
fn a_network_has_the_sensors_of_its_users_file_or_none() {
    let mut b = book();
    b.registry.add_network(&b.vault, "new", Profile::ToCloud, None).unwrap();
    let snow = "[[sensor]]\nid = 22\ntag = \"SNOW\"\ntype = \"float32\"\n";
    assert!(b.registry.set_classic_sensors("new", Some(snow)).unwrap_err().to_string().contains("no classic devices"));
    let version = b.registry.version().unwrap();
    let why = b.registry.set_classic_sensors("old", Some("\n[[sensor]]\nid = 52\ntag = \"A\"\ntype = \"uint8\"\n"));
    assert!(why.unwrap_err().to_string().starts_with("line 2: sensor 52 (A): id 52 is BAT already"));
    assert_eq!((b.registry.version().unwrap(), b.registry.classic_sensors().unwrap().len()), (version, 0));
    let (_, own) = b.registry.set_classic_sensors("old", Some(snow)).unwrap();
    assert_eq!((own.len(), b.registry.version().unwrap()), (1, version + 1));
    let of_net = b.registry.classic_sensors().unwrap().remove(&b.net).unwrap();
    assert_eq!(of_net.of(Table::Default).by_id(22).unwrap().tag, "SNOW");
    b.registry.set_classic_sensors("old", None).unwrap();
    assert!(b.registry.classic_sensors().unwrap().is_empty());
    b.registry.set_classic_sensors("old", Some(snow)).unwrap();
    b.registry.forbid_classic("old").unwrap();
    assert!(b.registry.classic_sensors().unwrap().is_empty());
}

#[test]
fn a_device_is_renamed_given_other_keys_and_revoked() {
    let mut b = book();
    let new = b.plain("5");
    b.registry.add_classic(&b.vault, &new, 1).unwrap();
    assert_eq!(b.registry.rename_classic(serial("5"), "pump").unwrap().node_id.as_deref(), Some("pump"));
    assert!(b.registry.rename_classic(serial("5"), "a pump").is_err());
    let keys = ClassicKeys { gateway: None, cloud: key(STRONG) };
    let rekeyed = b.registry.rekey_classic(&b.vault, serial("5"), &keys, None).unwrap();
    assert_eq!(rekeyed.cloud_key.unwrap().bits, KeyBits::Aes128);
    assert_eq!(b.registry.classic_keys(&b.vault, &rekeyed).unwrap().cloud.unwrap().bytes(), STRONG);
    let weak = ClassicKeys { gateway: key(&[0; 16]), cloud: None };
    assert!(b.registry.rekey_classic(&b.vault, serial("5"), &weak, None).unwrap_err().to_string().contains("CL-13"));
    let revoked = b.registry.revoke_classic(serial("5"), 9).unwrap();
    assert_eq!(b.registry.revoke_classic(serial("5"), 10).unwrap().revoked_at, revoked.revoked_at);
    assert!(b.registry.rekey_classic(&b.vault, serial("5"), &keys, None).unwrap_err().to_string().contains("revoked"));
    assert!(matches!(b.registry.revoke_classic(serial("6"), 9), Err(RegistryError::Unknown { .. })));
}

#[test]
fn one_key_on_two_devices_is_remembered_until_it_is_on_one() {
    let mut b = book();
    let other: Vec<u8> = STRONG.iter().map(|byte| byte ^ 0x5A).collect();
    let shared = |b: &Book| -> Vec<Vec<String>> {
        let groups = b.registry.classic_sharers().unwrap().into_iter();
        groups.map(|group| group.iter().map(|d| d.serial.to_string()).collect()).collect()
    };
    let with = |b: &Book, name: &str, gateway: &[u8], cloud: Option<&[u8]>| NewClassic {
        keys: ClassicKeys { gateway: key(gateway), cloud: cloud.and_then(key) },
        ..b.plain(name)
    };
    let place = |at: usize| format!("line {}", at + 2);
    // Among one another first, whatever the key is for.
    let news = [with(&b, "5", STRONG, None), with(&b, "6", &other, None), with(&b, "7", &[7; 16], Some(STRONG))];
    let told = b.registry.classic_key_sharers(&b.vault, &news, place).unwrap();
    assert_eq!(told, [Some("line 4".to_owned()), None, Some("line 2".to_owned())]);
    b.registry.add_classic(&b.vault, &news[0], 1).unwrap();
    assert_eq!(shared(&b), Vec::<Vec<String>>::new());
    let told = b.registry.classic_key_sharers(&b.vault, &news[1..], place).unwrap();
    assert_eq!(told, [None, Some("device 5".to_owned())]);
    assert_eq!(b.registry.classic_key_sharers(&b.vault, &news[..1], place).unwrap(), [None], "itself is nobody else");
    let words = Some("on masts until spring".to_owned());
    for new in news.into_iter().skip(1) {
        b.registry.add_classic(&b.vault, &NewClassic { words: words.clone(), ..new }, 1).unwrap();
    }
    assert_eq!(shared(&b), [["5", "7"]]);
    // A revoked node still has it in its flash.
    b.registry.revoke_classic(serial("5"), 2).unwrap();
    assert_eq!(shared(&b), [["5", "7"]]);
    let keys = ClassicKeys { gateway: key(&other), cloud: None };
    b.registry.rekey_classic(&b.vault, serial("7"), &keys, None).unwrap();
    assert_eq!(shared(&b), [["6", "7"]]);
    b.registry.rekey_classic(&b.vault, serial("7"), &ClassicKeys::default(), None).unwrap();
    assert_eq!(shared(&b), Vec::<Vec<String>>::new());
}

#[test]
fn keys_are_the_same_under_another_key_of_the_vault() {
    let mut b = book();
    let new = NewClassic { keys: ClassicKeys { gateway: key(STRONG), cloud: None }, ..b.plain("5") };
    let added = b.registry.add_classic(&b.vault, &new, 1).unwrap();
    drop(b.vault);
    let rekey = Rekey::begin(b.folder.path(), None).unwrap();
    b.registry.reseal(rekey.vault()).unwrap();
    rekey.finish().unwrap();
    let vault = Vault::open_folder(b.folder.path()).unwrap();
    assert_eq!(b.registry.classic_keys(&vault, &added).unwrap().gateway.unwrap().bytes(), STRONG);
}

#[test]
fn a_book_of_before_has_no_classic_devices_and_takes_some_when_it_is_opened_for_changes() {
    let b = book();
    let path = b.folder.path().join("registry.db");
    drop(b.registry);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("DROP TABLE classic_sensors; DROP TABLE classic_shared; DROP TABLE classic_hardened; DROP TABLE classic_devices; DROP TABLE classic_networks; PRAGMA user_version = 2").unwrap();
    drop(db);
    let reader = Registry::open_read_only(&path).unwrap();
    assert_eq!((reader.classic_devices().unwrap(), reader.classic_networks().unwrap()), (vec![], vec![]));
    assert!(reader.classic_sensors().unwrap().is_empty());
    assert_eq!((reader.classic_sharers().unwrap(), reader.known_classic(serial("5")).unwrap()), (vec![], None));
    let mut writer = Registry::open(&path, fivefold_keep::registry::By::new("test", "here", "test", 1)).unwrap();
    writer.allow_classic("old").unwrap();
    assert!(writer.classic_devices().unwrap().is_empty());
}

#[test]
fn a_key_of_the_hardened_profile_is_drawn_for_one_gateway_and_sealed() {
    let mut b = book();
    let new = b.plain("8a7384477876150c");
    b.registry.add_classic(&b.vault, &new, 1).unwrap();
    let refused = b.registry.harden_classic(&b.vault, new.serial, 5).unwrap_err().to_string();
    assert!(refused.contains("no primary gateway"), "{refused}");
    let gateway = |n: u32, primary| Gateway {
        gateway: GatewayId(n),
        net: b.net,
        name: format!("g{n}"),
        sid: Sid(n as u16),
        did: Did([n as u8; 8]),
        primary,
        receipt_keys: Vec::new(),
        revoked_at: None,
    };
    let (first, second) = (gateway(1, true), gateway(2, false));
    b.registry.add_gateway(&first).unwrap();
    b.registry.add_gateway(&second).unwrap();
    let (device, one) = b.registry.harden_classic(&b.vault, new.serial, 5).unwrap();
    let (_, two) = b.registry.harden_classic(&b.vault, new.serial, 6).unwrap();
    assert_eq!((device.profile, one.epoch, two.epoch), (ClassicProfile::Hardened, 1, 2));
    assert_ne!(one.key, two.key);
    let of = |b: &Book, holder, most| {
        let keys = b.registry.hardened_keys(&b.vault, &device, holder, most).unwrap();
        keys.into_iter().map(|k| (k.epoch, *k.key)).collect::<Vec<_>>()
    };
    let primary = HardenedHolder::Gateway(GatewayId(1));
    assert_eq!(of(&b, primary, 4), [(1, *one.key), (2, *two.key)]);
    assert_eq!(of(&b, primary, 1), [(2, *two.key)]);
    assert_eq!(of(&b, HardenedHolder::Gateway(GatewayId(2)), 4), []);
    assert_eq!(of(&b, HardenedHolder::Cloud, 4), []);
    // The cloud's have epochs of their own, and no gateway gets them.
    let (_, three) = b.registry.harden_classic_to_cloud(&b.vault, new.serial, 7).unwrap();
    assert_eq!(of(&b, HardenedHolder::Cloud, 4), [(1, *three.key)]);
    assert_eq!(of(&b, primary, 4).len(), 2);
    let old = b.plain("387264539");
    b.registry.add_classic(&b.vault, &old, 1).unwrap();
    let refused = b.registry.harden_classic_to_cloud(&b.vault, old.serial, 5).unwrap_err();
    assert!(refused.to_string().contains("v15"), "{refused}");
    let refused = b.registry.harden_classic(&b.vault, old.serial, 5).unwrap_err();
    assert!(refused.to_string().contains("v15"), "{refused}");
    drop(b.registry);
    for entry in std::fs::read_dir(b.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(32).any(|w| w == one.key.as_slice() || w == two.key.as_slice()));
    }
}
