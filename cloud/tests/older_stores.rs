//! Stores that earlier versions left, with rows in them: what the migrations of evidence make of those.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::signer::{carry, signature_item, signing_world};
use common::*;
use fivefold_cloud::store::Store;
use fivefold_core::profile::{Mode, Profile};
use rusqlite::{Connection, params};

/// What a device sent, and signs.
fn reading(n: u8) -> [u8; 4] {
    [0x82, 0x01, 0x18, 0x64 + n]
}

fn labels(world: &World) -> Vec<&'static str> {
    let mut rows = world.readings();
    rows.sort_by_key(|r| (r.epoch, r.piv));
    rows.iter().filter(|r| r.payload.starts_with(&[0x82])).map(|r| r.origin.as_str()).collect()
}

#[test]
fn what_was_signed_stays_so_and_what_was_under_way_is_completed_from_whatever_version_on() {
    for version in [9, 11, 12, 13, 14] {
        let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
        let mut bring = |world: &mut World, n: u8| {
            let sent = signer.reading(&mut node, &reading(n));
            world.post(&[sent.envelope()]);
        };
        bring(&mut world, 0);
        bring(&mut world, 1);
        let first = node.send(&signature_item(&signer.close()));
        world.post(&[first.envelope()]);
        assert_eq!(labels(&world), ["signed"; 2]);
        // Of the second batch the signature is here, and one of its readings is not; of the third, some parts of the signature.
        let late = [signer.reading(&mut node, &reading(2)), signer.reading(&mut node, &reading(3))];
        world.post(&[late[0].envelope()]);
        let second = node.send(&signature_item(&signer.close()));
        world.post(&[second.envelope()]);
        let third = signer.reading(&mut node, &reading(4));
        world.post(&[third.envelope()]);
        let parts: Vec<Sent> = carry::parts(&signer.close(), 30).iter().map(|part| node.send(part)).collect();
        world.post(&[parts[0].envelope()]);
        assert_eq!(labels(&world), ["signed", "signed", "node", "node"], "{version}");

        let mut world = world.stopped(|path| older::take_back(path, version));
        assert_eq!(labels(&world), ["signed", "signed", "node", "node"], "{version}");
        world.post(&[late[1].envelope()]);
        assert_eq!(labels(&world), ["signed", "signed", "signed", "signed", "node"], "{version}");
        for part in &parts[1..] {
            world.post(&[part.envelope()]);
        }
        assert_eq!(labels(&world), ["signed"; 5], "{version}");
        // What comes after is chained to what was there before, and nothing is a gap or a fork.
        let next = signer.reading(&mut node, &reading(5));
        world.post(&[next.envelope()]);
        let carrier = node.send(&signature_item(&signer.close()));
        world.post(&[carrier.envelope()]);
        assert_eq!(labels(&world), ["signed"; 6], "{version}");
        assert!(world.counts().is_empty(), "{version}: {:?}", world.counts());
    }
}

#[test]
fn a_boot_of_mode_r_goes_on_with_its_own_chain() {
    let (mut world, _, key) = signing_world(Profile::ToCloud, Mode::Random);
    let mut booted: Vec<_> = (3..5)
        .map(|boot| {
            let mut signer = key.clone();
            signer.boot(boot);
            (Node::boot(&world.source.devices[0], boot), signer)
        })
        .collect();
    let mut batch = |world: &mut World| {
        for (node, signer) in &mut booted {
            let sent = signer.reading(node, &reading(0));
            world.post(&[sent.envelope()]);
            let carrier = node.send(&signature_item(&signer.close()));
            world.post(&[carrier.envelope()]);
        }
    };
    batch(&mut world);
    // Both boots had their batches under one number, in one chain.
    let mut world = world.stopped(|path| older::take_back(path, 9));
    batch(&mut world);
    assert_eq!(labels(&world), ["signed"; 4]);
    assert!(world.counts().is_empty(), "{:?}", world.counts());
}

#[test]
fn of_more_than_is_kept_from_now_on_the_newest_stay_and_all_that_was_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("readings.db");
    drop(Store::open(&path).unwrap());
    older::take_back(&path, 9);
    let db = Connection::open(&path).unwrap();
    let context =
        "INSERT INTO context (id, net, did, level, epoch, bctx, standing, since) VALUES (?, 7, ?, 3, 1, ?, 1, 0)";
    let (one, boots) = ([1u8; 8], [2u8; 8]);
    db.execute(context, params![1, one, [0u8; 0]]).unwrap();
    db.execute(context, params![2, boots, [3u8; 8]]).unwrap();
    let batch = "INSERT INTO batch (id, did, number, first, bitmap, signature, ctx, at, state, cose)
                 VALUES (?1, ?2, ?1, ?1, x'01', x'00', ?3, 0, ?4, ?5)";
    let signed = Some([0xD2u8; 4]);
    // Verified ones first, then some that are open, and more that came to nothing.
    for id in 1..=3 {
        db.execute(batch, params![id, one, 1, 1, signed]).unwrap();
    }
    for id in 101..=170 {
        db.execute(batch, params![id, one, 1, 0, None::<[u8; 4]>]).unwrap();
    }
    for id in 201..=500 {
        db.execute(batch, params![id, one, 1, 2 + id % 2, None::<[u8; 4]>]).unwrap();
    }
    db.execute(batch, params![501, boots, 2, 1, signed]).unwrap();
    for (did, number, idx) in [(one, 900, 0), (one, 900, 1), (boots, 901, 0)] {
        db.execute("INSERT INTO batch_part VALUES (?, ?, ?, 3, x'AA')", params![did, number, idx]).unwrap();
        db.execute("INSERT INTO batch_leaf VALUES (?, ?, ?, ?)", params![did, number, idx, [7u8; 32]]).unwrap();
    }
    db.execute("INSERT INTO log_entry (kind, ref, idx) VALUES ('b1', 1, 0)", []).unwrap();
    drop(db);

    drop(Store::open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    let number = |sql: &str| db.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(number("SELECT count(*) FROM batch WHERE state = 0"), 64);
    assert_eq!(number("SELECT min(id) FROM batch WHERE state = 0"), 107, "the newest");
    assert_eq!(number("SELECT count(*) FROM batch WHERE state > 1"), 256);
    assert_eq!(number("SELECT min(id) FROM batch WHERE state > 1"), 245, "the newest");
    assert_eq!(
        number("SELECT count(*) FROM batch WHERE state = 1 AND cose = x'D2D2D2D2'"),
        4,
        "nothing that was verified goes"
    );
    assert_eq!(number("SELECT sum(chain) FROM batch WHERE did = x'0101010101010101'"), 0);
    assert_eq!(number("SELECT chain FROM batch WHERE id = 501"), 2, "that of its boot");
    assert_eq!(
        number("SELECT count(*) FROM batch_part WHERE level = 0 AND chain = 0 AND count = 3 AND bytes = x'AA'"),
        3
    );
    assert_eq!(
        number("SELECT count(*) FROM batch_part WHERE ctx = CASE did WHEN x'0101010101010101' THEN 1 ELSE 2 END"),
        3
    );
    assert_eq!(number("SELECT count(*) FROM batch_leaf WHERE chain = 0 AND at > 0 AND length(hash) = 32"), 3);
    assert_eq!(number("SELECT count(*) FROM log_entry WHERE ref = 1 AND idx = 0"), 1);
    assert_eq!(number("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"), 0);
}
