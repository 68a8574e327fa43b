//! Readings for tests of sinks.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

use std::sync::Arc;

use fivefold_core::e4_channel::Origin;
use fivefold_core::id::{Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::time::Millis;
use fivefold_sinks::{About, Outbound, Quantity, Scalar};

/// The `number`th reading of the `device`th device.
pub fn reading(device: u8, number: u64) -> Outbound {
    let did = Did([0xac, 0xde, 0x48, 0, 0, 0, 0, device]);
    let received = Millis(1_790_000_000_000 + number * 1000);
    let value = |name: &str, unit: Option<&str>, value| Quantity {
        name: name.into(),
        unit: unit.map(str::to_owned),
        value: Some(value),
        sum: None,
        time: received.0 as f64 / 1000.0,
    };
    Outbound {
        id: format!("00000007-{did}-3-1-p-{number}-0123456789abcdef"),
        about: About::Reading,
        net: Net(7),
        network: "farm".into(),
        did,
        sid: Sid(u16::from(device)),
        proof: Origin::Node,
        e1: LinkClass::MacCcm,
        insecure: false,
        conflict: false,
        freshness: "fresh",
        gateway: GatewayId(1),
        hops: Some(3),
        rssi: Some(-71),
        lqi: None,
        epoch: Epoch(1),
        bctx: None,
        number,
        received,
        ingested: received.plus(250),
        values: vec![
            value("temperature", Some("Cel"), Scalar::Float(21.5)),
            value("door", None, Scalar::Bool(true)),
            value("count", None, Scalar::Integer(number as i64)),
            value("note", None, Scalar::Text("quiet, \"calm\" = yes".into())),
        ],
        payload: vec![0x81, 0xa0],
    }
}

/// `count` readings of each of `devices` devices, in turn.
pub fn readings(devices: u8, count: u64) -> Vec<Arc<Outbound>> {
    (1..=count).flat_map(|n| (1..=devices).map(move |d| Arc::new(reading(d, n)))).collect()
}
