//! What the cloud shows to Prometheus. No device is named there: whose messages were refused, `/v1/rejections` says, and which
//! device has an old key, `/v1/devices`.

use std::collections::BTreeMap;
use std::fmt;

use fivefold_core::error::{Code, Severity};
use fivefold_core::id::{GatewayId, Net};
use fivefold_core::metric::{Page, cloud as shown};
use fivefold_core::time::Millis;
use fivefold_keep::registry::Certificate;

use crate::limits::Part;
use crate::service::Service;
use crate::store::{CountRow, GatewaySummary, OutboxRow, PartSize, Place, Reader, SinkRow, StoreError};

/// What is asked of the store and of the book's history.
struct Stored {
    counts: Vec<CountRow>,
    heard: Vec<GatewaySummary>,
    readings: u64,
    unknown_rows: u64,
    certificates: Vec<Certificate>,
    sinks: Vec<SinkRow>,
    parts: Vec<PartSize>,
    outbox: Vec<OutboxRow>,
    backup: Option<u64>,
}

/// The page, as things are. Blocks.
pub(super) fn page(service: &Service, reader: &Reader, now: Millis) -> Result<String, StoreError> {
    let certificates = service.certificates().unwrap_or_else(|error| {
        tracing::error!(%error, "metrics are without the certificates of gateways");
        Vec::new()
    });
    let stored = Stored {
        counts: reader.counts()?,
        heard: reader.gateways()?,
        readings: u64::try_from(reader.last_id()?).unwrap_or(0),
        unknown_rows: reader.all_unknown_rows()?,
        certificates,
        sinks: reader.alarm_sinks()?,
        parts: Part::ALL.into_iter().map(|part| reader.part(part)).collect::<Result<_, _>>()?,
        outbox: reader.outbox()?,
        backup: service.last_backup(),
    };
    // A text takes whatever is written to it.
    Ok(write(service, &stored, now).unwrap_or_default())
}

fn write(service: &Service, stored: &Stored, now: Millis) -> Result<String, fmt::Error> {
    let mut page = Page::new(String::new());
    refusals(&mut page, service, &stored.counts)?;
    page.one(&shown::READINGS, stored.readings)?;
    page.one(&shown::UNKNOWN_ROWS, stored.unknown_rows)?;
    let book = service.cloud.book();
    let mut devices: BTreeMap<Net, u64> = book.networks.iter().map(|n| (n.net, 0)).collect();
    for device in book.devices.values() {
        *devices.entry(device.net).or_default() += 1;
    }
    for device in book.classics.iter() {
        *devices.entry(device.source.net).or_default() += 1;
    }
    page.put(&shown::DEVICES, devices.into_iter().map(|(net, n)| ([net.to_string()], n)))?;
    page.one(&shown::REGISTRY_VERSION, book.version)?;
    let mut vitals = book.vitals();
    // Certificates in force, by gateway: the oldest key of each network, and each gateway's last day.
    let gateways: Vec<_> = book.all_gateways.iter().filter(|g| g.revoked_at.is_none()).collect();
    let mut ends = Vec::new();
    for gateway in &gateways {
        let own = |c: &&Certificate| c.gateway == Some(gateway.gateway) && c.revoked_at.is_none();
        let Some(last) = stored.certificates.iter().filter(own).max_by_key(|c| c.not_after) else { continue };
        let begins = Millis(last.not_before.saturating_mul(1000));
        let oldest = &mut vitals.entry((gateway.net, 4)).or_default().oldest;
        *oldest = Some(oldest.map_or(begins, |oldest| oldest.min(begins)));
        ends.push(([gateway.net.to_string(), gateway.gateway.to_string()], last.not_after));
    }
    let level = |net: Net, level: u8| [net.to_string(), format!("e{level}")];
    let ages = vitals.iter().filter_map(|((net, l), v)| Some((level(*net, *l), now.since(v.oldest?) / 1000)));
    page.put(&shown::KEY_AGE, ages)?;
    let left = vitals.iter().filter_map(|((net, l), v)| Some((level(*net, *l), v.numbers_left?.into())));
    page.put(&shown::NUMBERS_LEFT, left)?;
    let of = |value: &dyn Fn(GatewayId) -> Option<u64>| {
        let of = gateways.iter().filter_map(|g| Some(([g.net.to_string(), g.gateway.to_string()], value(g.gateway)?)));
        of.collect::<Vec<_>>()
    };
    let before = |id: GatewayId| stored.heard.iter().find(|h| h.gateway == id).map(|h| h.last);
    let seen = |id: GatewayId| Some(service.cloud.health(id).1.or_else(|| before(id))?.0 / 1000);
    page.put(&shown::GATEWAY_SEEN, of(&seen))?;
    page.put(&shown::GATEWAY_SPOOL, of(&|id| Some(service.cloud.health(id).0?.spool_used)))?;
    page.put(&shown::GATEWAY_SPOOL_LIMIT, of(&|id| Some(service.cloud.health(id).0?.spool_max)))?;
    page.put(&shown::GATEWAY_CERTIFICATE, ends)?;
    let own = [("cloud", service.certificate_ends()), ("issuer", service.desk.issuing_ends())];
    page.put(&shown::CERTIFICATE, own.into_iter().filter_map(|(holder, ends)| Some(([holder], ends?))))?;
    let sinks = || stored.sinks.iter();
    page.put(&shown::ALARMS_WAITING, sinks().map(|sink| ([&sink.name], sink.waiting)))?;
    let wait = |sink: &SinkRow| sink.oldest.map_or(0, |at| now.since(at) / 1000);
    page.put(&shown::ALARMS_WAIT, sinks().map(|sink| ([&sink.name], wait(sink))))?;
    let usage = service.usage();
    page.one(&shown::DISK, usage.map(|u| u.used))?;
    page.one(&shown::DISK_LIMIT, usage.and_then(|u| u.limit))?;
    page.one(&shown::DISK_FREE, usage.map(|u| u.free))?;
    page.one(&shown::REFUSING, usage.map(|u| u.refusing.map_or(0, |since| now.since(since).div_ceil(1000).max(1))))?;
    page.one(&shown::AGES_BEHIND, usage.map(|u| u.behind.div_ceil(1000)))?;
    let parts = || stored.parts.iter().map(|p| ([p.part.as_str()], p));
    page.put(&shown::KEPT_ROWS, parts().map(|(name, p)| (name, p.rows)))?;
    page.put(&shown::KEPT_BYTES, parts().map(|(name, p)| (name, p.bytes)))?;
    let age = |p: &PartSize| p.oldest.map_or(0, |at| now.since(at) / 1000);
    page.put(&shown::KEPT_AGE, parts().map(|(name, p)| (name, age(p))))?;
    page.put(&shown::PRUNED, parts().map(|(name, p)| (name, p.pruned)))?;
    let outbox = || stored.outbox.iter().filter(|sink| sink.gone.is_none());
    page.put(&shown::OUTBOX_WAITING, outbox().map(|sink| ([&sink.name], sink.waiting)))?;
    // A sink that gathers on purpose is not late before that is over.
    let wait = |sink: &OutboxRow| {
        sink.oldest.map_or(0, |at| (now.since(at) / 1000).saturating_sub(service.gathers(&sink.name)))
    };
    page.put(&shown::OUTBOX_WAIT, outbox().map(|sink| ([&sink.name], wait(sink))))?;
    page.put(&shown::OUTBOX_DEAD, outbox().map(|sink| ([&sink.name], sink.dead)))?;
    page.put(&shown::OUTBOX_SENT, outbox().map(|sink| ([&sink.name], sink.sent)))?;
    page.put(&shown::OUTBOX_RETRIED, outbox().map(|sink| ([&sink.name], sink.retried)))?;
    let is_up = |sink: &OutboxRow| u64::from(sink.failed.is_none() && sink.paused.is_none());
    page.put(&shown::OUTBOX_UP, outbox().map(|sink| ([&sink.name], is_up(sink))))?;
    page.put(&shown::OUTBOX_PAUSED, outbox().map(|sink| ([&sink.name], u64::from(sink.paused.is_some()))))?;
    page.one(&shown::BACKUP, stored.backup)?;
    let audit = service.selfcheck().map(|own| own.standing());
    page.one(&shown::AUDIT_GRADE, audit.and_then(|a| a.grade()))?;
    let open = audit.map(|a| a.open()).unwrap_or_default().into_iter();
    page.put(&shown::AUDIT_FINDINGS, open.map(|((rule, severity), n)| ([rule.to_owned(), severity.to_string()], n)))?;
    Ok(page.end())
}

/// Every code of every network from the start: what was never 0 cannot be seen to rise.
fn refusals(page: &mut Page<String>, service: &Service, counts: &[CountRow]) -> fmt::Result {
    let book = service.cloud.book();
    let mut by_code: BTreeMap<(Code, Option<Net>, Place), u64> = BTreeMap::new();
    for code in Code::ALL {
        by_code.insert((*code, None, Place::Cloud), 0);
        for network in &book.networks {
            by_code.insert((*code, Some(network.net), Place::Cloud), 0);
            by_code.insert((*code, Some(network.net), Place::Gateway), 0);
        }
    }
    let mut by_gateway: BTreeMap<(Net, GatewayId, Severity), u64> = BTreeMap::new();
    for gateway in book.all_gateways.iter().filter(|g| g.revoked_at.is_none()) {
        for severity in [Severity::Info, Severity::Warning, Severity::High, Severity::Critical] {
            by_gateway.insert((gateway.net, gateway.gateway, severity), 0);
        }
    }
    for row in counts {
        let k = row.key;
        *by_code.entry((k.code, k.net, k.place)).or_default() += row.count;
        if let (Some(net), Some(gateway)) = (k.net, k.gateway) {
            *by_gateway.entry((net, gateway, k.code.severity())).or_default() += row.count;
        }
    }
    let known = |net: Option<Net>| net.map_or(String::new(), |net| net.to_string());
    let by_code = by_code.into_iter();
    let samples = by_code.map(|((c, net, p), n)| ([c.as_str().to_owned(), known(net), p.as_str().to_owned()], n));
    page.put(&shown::REJECTED, samples)?;
    let by_gateway = by_gateway.into_iter();
    let samples = by_gateway.map(|((net, g, s), n)| ([net.to_string(), g.to_string(), s.as_str().to_owned()], n));
    page.put(&shown::GATEWAY_REJECTED, samples)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use fivefold_keep::registry::Registry;
    use fivefold_keep::share::CloudOutbox;
    use fivefold_keep::vault::Vault;

    use super::*;
    use crate::cloud::RenewalSettings;
    use crate::service::by_itself;
    use crate::store::Store;
    use crate::{clock, outbox};

    #[test]
    fn a_sink_that_gathers_on_purpose_is_late_when_that_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        let (book, path) = (folder.path().join("registry.db"), folder.path().join("readings.db"));
        drop(Registry::create(&book, by_itself(clock::now())).unwrap());
        let words = |name: &str, every| CloudOutbox {
            name: name.into(),
            parquet: Some(".".into()),
            from: Some("start".into()),
            every_s: Some(every),
            ..CloudOutbox::default()
        };
        let sinks = fivefold_sinks::check(&[words("day", 86_400), words("now", 0)], folder.path()).unwrap();
        assert_eq!(sinks[0].gathers(), Duration::from_secs(86_400));
        let store = Store::open(&path).unwrap();
        let settings = RenewalSettings::default();
        let service = Service::open(store, book, vault, settings, Millis(0)).unwrap().with_outbox(&sinks);
        let memory = service.cloud.memory();
        memory.store().commit_now(outbox::enter(memory, &sinks, Millis(0)).unwrap()).unwrap();
        let came = "INSERT INTO reading (ctx, piv, variant, hash, sid, origin, gateway, seq, received, ingested, link, fresh, flags,
                    payload) VALUES (1, 1, 0, x'00', 1, 1, 1, 1, 1000, 1000, 0, 1, 0, x'00')";
        rusqlite::Connection::open(&path).unwrap().execute(came, []).unwrap();
        let waits = |seconds: u64| {
            let page = memory.read(|r| page(&service, r, Millis(1000 + seconds * 1000))).unwrap();
            let name = shown::OUTBOX_WAIT.row().name;
            let of = |sink| {
                let sample = format!("{name}{{sink=\"{sink}\"}} ");
                page.lines().find_map(|line| line.strip_prefix(&sample)).unwrap().parse::<u64>().unwrap()
            };
            [of("day"), of("now")]
        };
        assert_eq!(waits(80_000), [0, 80_000]);
        assert_eq!(waits(90_000), [3_600, 90_000]);
    }
}
