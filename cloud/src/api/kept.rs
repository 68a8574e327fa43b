//! Readings that a gateway without a cloud keeps, in the form in which the cloud shows its own.

use fivefold_core::e4_channel::{GatewayName, Origin};
use fivefold_core::id::Did;
use fivefold_core::wire::coap::{PAYLOAD_MARKER, POST};
use fivefold_core::wire::envelope::{Envelope, Kind};

use super::show::{Contents, ReadingShown};

impl ReadingShown {
    /// Of what a gateway without a cloud keeps: the payload that it opened, and who `device` is. `None` for anything else in
    /// its store.
    pub fn kept(envelope: &Envelope<'_>, gateway: GatewayName, device: Option<Did>) -> Option<Self> {
        let opened = envelope.opened.filter(|_| envelope.kind == Kind::GatewayOpened)?;
        let payload = envelope.bytes.strip_prefix(&[POST, PAYLOAD_MARKER])?;
        let Contents { records, templates, other } = Contents::of(payload, envelope.received, |_| None);
        Some(Self {
            id: i64::try_from(envelope.seq).unwrap_or(i64::MAX),
            net: gateway.net.to_string(),
            network: gateway.net.to_string(),
            device: device.map(|did| did.to_string()).unwrap_or_default(),
            sid: opened.kid.to_string(),
            proof: Origin::Gateway(gateway.gateway).as_str().into(),
            insecure: !envelope.link.is_e1(),
            conflict: false,
            e1: envelope.link.as_str().into(),
            gateway: gateway.gateway.to_string(),
            hops: envelope.hops,
            key_index: envelope.key_index,
            rssi: envelope.rssi,
            lqi: envelope.lqi,
            epoch: opened.epoch.0,
            boot: opened.bctx.map(|b| b.to_string()),
            number: opened.piv,
            freshness: "fresh".into(),
            received_ms: envelope.received.0,
            ingested_ms: envelope.received.0,
            records,
            templates,
            other,
            payload: hex::encode(payload),
            classic: None,
        })
    }
}
