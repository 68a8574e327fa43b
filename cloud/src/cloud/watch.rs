//! What shows only over time: numbers that never came (E3-11), and silence (E3-12).

use fivefold_core::error::{Code, Severity};
use fivefold_core::id::{Did, Net, Sid};
use fivefold_core::time::Millis;

use super::evidence::{BATCH, Whose, watch_dossier};
use super::{Cloud, Memory};
use crate::accepted::Row;
use crate::book::Live;
use crate::store::{CountKey, Place, Write};

/// Over what time missing numbers are counted, unless set otherwise: a day, in milliseconds.
const GAP_PERIOD: u64 = 24 * 3600 * 1000;

/// Settings of the watch.
#[derive(Debug)]
pub(super) struct Watch {
    gap_period: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { gap_period: GAP_PERIOD }
    }
}

/// A reading of the device became durable.
pub(super) fn heard(live: &mut Live, row: &Row) {
    let counts = live.active().is_some_and(|c| c.id == row.context);
    let now = row.way.ingested;
    live.pulse.beat(now);
    match &mut live.gap {
        // Late ones of a context before: they are no part of the row of numbers.
        _ if !counts => {}
        Some((base, came, _)) if row.piv >= *base => *came += 1,
        // From before the count began.
        Some(_) => {}
        None => live.gap = Some((row.piv, 1, now)),
    }
}

impl<M: Memory> Cloud<M> {
    /// Counts missing numbers over `period` instead of a day.
    pub fn set_gap_period(&self, period: Millis) {
        let mut watch = self.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        watch.gap_period = period.0.max(1);
    }

    /// To be called every few seconds. What comes back is to be committed, unless it is empty.
    pub fn handle_timeout(&self, now: Millis) -> Write {
        let gap_period = self.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).gap_period;
        let mut write = Write { now, ..Write::default() };
        for device in self.book.load().devices.values() {
            let mut live = device.live();
            let batches = self.watch_batches(device, &mut live, &mut write).map(|code| (code, code.severity()));
            let silence = live.pulse.misses(now).map(|loud| (Code::CloudSilence, loud));
            let overdue = self.overdue(device, &mut live, now);
            let mut codes = [silence, None, overdue, batches];
            self.forget(device, &mut live, &mut write);
            let highest = live.active().and_then(|c| c.recent).and_then(|r| r.highest);
            let gap = &mut live.gap;
            if let Some((base, came, began)) = *gap
                && now.since(began) >= gap_period
            {
                let highest = highest.unwrap_or(base);
                let span = (highest + 1).saturating_sub(base);
                let missing = span.saturating_sub(came);
                if missing > 1 && missing * 10 > span {
                    codes[1] = Some((Code::CloudPivGap, Code::CloudPivGap.severity()));
                }
                *gap = (span > 0).then_some((highest + 1, 0, now));
            }
            drop(live);
            for said in codes.into_iter().flatten() {
                say(&mut write, (device.did, device.net, device.sid), said);
            }
        }
        for device in self.book.load().classics.iter() {
            let source = &device.source;
            if source.signs
                && let Some(code) =
                    watch_dossier(&mut device.live().dossier, Whose::of_classic(device), BATCH, &mut write)
            {
                say(&mut write, (source.did, source.net, source.sid), (code, code.severity()));
            }
            if let Some(loud) = device.live().pulse.misses(now) {
                say(&mut write, (source.did, source.net, source.sid), (Code::CloudSilence, loud));
            }
        }
        write
    }
}

/// Counts what shows of a device, and logs it.
fn say(write: &mut Write, (did, net, sid): (Did, Net, Sid), (code, loud): (Code, Severity)) {
    if loud >= Severity::High {
        tracing::error!(%did, %code, "{}", code.condition());
    } else {
        tracing::warn!(%did, %code, "{}", code.condition());
    }
    write.said.push((CountKey { code, net: Some(net), gateway: None, sid: Some(sid), place: Place::Cloud }, 1, loud));
}
