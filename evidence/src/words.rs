//! What a verdict says to a person: who measured what, in what order, since when at the latest, what others claim, and what
//! is not proven. Times are UTC. No device time is ever stated: nothing proves it.

use std::fmt::Write as _;

use crate::verify::{Report, Value, Verdict};

/// One report, in sentences; `number` says which reading of the file it is, from 1, of how many.
pub fn report(report: &Report, number: usize, of: usize) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut text, report, number, of);
    text
}

fn write_report(out: &mut String, report: &Report, number: usize, of: usize) -> std::fmt::Result {
    let which = if of == 1 { "This reading".to_owned() } else { format!("Reading {number} of {of}") };
    // What others wrote may hold what a terminal obeys.
    let (step, reason) = (report.step.unwrap_or_default(), plain(report.reason.as_deref().unwrap_or_default()));
    match report.verdict {
        Verdict::Unreadable => {
            return writeln!(out, "UNREADABLE. {which} cannot be read as evidence: {reason}.");
        }
        Verdict::Refused => {
            writeln!(out, "NOT PROVEN. {which} is refused at the step `{step}`: {reason}.")?;
            return writeln!(out, "Nothing that it says may be relied on.");
        }
        Verdict::Proven => writeln!(out, "PROVEN. {which} is what the device signed, and the log has it.")?,
    }
    if let Some(device) = &report.device {
        let sid = report.sid.as_deref().unwrap_or_default();
        let net = report.net.as_deref().unwrap_or_default();
        writeln!(out, "  Who     device {device}, enrolled as {sid} in network {net}")?;
    }
    write_values(out, &report.values, report.payload.as_deref().unwrap_or_default())?;
    if let (Some(epoch), Some(piv), Some(batch), Some(order), Some(count)) =
        (report.epoch, report.piv, report.batch, report.order, report.of)
    {
        let boot = report.boot.as_ref().map(|b| format!(", boot {b}")).unwrap_or_default();
        writeln!(
            out,
            "  Order   number {piv} of key epoch {epoch}{boot}; {} of {count} in signed batch {batch}",
            order + 1
        )?;
    }
    if let (Some(key), Some(made)) = (&report.key, report.key_made) {
        let made = match made {
            "device" => "made on the device",
            "secure-element" => "made in a secure element",
            "elsewhere" => "made elsewhere",
            _ => "made nobody knows where",
        };
        writeln!(out, "  Key     {key}, {made}, as the operator says")?;
    }
    if let Some(before) = report.existed_before {
        writeln!(out, "  Time    existed before {}", time(before))?;
        for w in &report.witnesses {
            let how = if w.pq { ", and signed by ML-DSA-44" } else { "" };
            writeln!(out, "          witness {} saw it at {}{how}", plain(&w.name), time(w.time))?;
        }
    }
    for stamp in &report.timestamps {
        let checked = if stamp.revocation_checked { "" } else { "; whether its certificate was revoked is not known" };
        let authority = plain(&stamp.authority);
        writeln!(out, "          {authority} says that it existed at {}{checked}", time(stamp.at))?;
    }
    for heard in &report.heard {
        let at = time(heard.at_ms / 1000);
        writeln!(out, "  Heard   by gateway {} of network {} at {at} (its claim)", heard.gateway, heard.net)?;
    }
    if let Some(at) = report.revoked_later {
        writeln!(out, "  Note    the key was revoked later, at {}", time(at))?;
    }
    for stranger in &report.ignored {
        let stranger = plain(stranger);
        writeln!(out, "  Note    a signature of {stranger}, whom the trust file does not name, was not looked at")?;
    }
    writeln!(out, "  NOT proven:")?;
    report.not_proven.iter().try_for_each(|sentence| writeln!(out, "    - {sentence}"))
}

/// Without what a terminal obeys: control characters, and those that turn the direction of text.
fn plain(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200E}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::new(), |mut out, c| {
        if obeyed(c) {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
        out
    })
}

fn write_values(out: &mut String, values: &[Value], payload: &str) -> std::fmt::Result {
    if values.is_empty() {
        return writeln!(out, "  What    {payload} (nothing that is decoded here)");
    }
    for (at, value) in values.iter().enumerate() {
        let head = if at == 0 { "What" } else { "" };
        let unit = value.unit.as_deref().map(|u| format!(" {}", u.escape_debug())).unwrap_or_default();
        let shown = match (&value.value, value.sum) {
            (Some(value), _) => value.to_string(),
            (None, Some(sum)) => format!("sum {sum}"),
            (None, None) => "nothing".into(),
        };
        writeln!(out, "  {head:<7} {} = {shown}{unit}", value.name.escape_debug())?;
    }
    Ok(())
}

/// RFC 3339, to the second.
pub fn time(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // From days to a date of the proleptic Gregorian calendar, counted from 0000-03-01.
    let Some(days) = days.checked_add(719_468).filter(|d| *d < 3_652_425 + 719_468) else { return "?".into() };
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month, year) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 }, year + era * 400);
    let year = if month <= 2 { year + 1 } else { year };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Refused, Step};

    #[test]
    fn what_a_stranger_wrote_gives_a_terminal_no_orders() {
        let attack = "a\u{9b}2J\u{9b}HPROVEN\u{7f}\u{202e}";
        let refused = Report::refused(&Refused { step: Step::Log, reason: attack.into() });
        let proven = Report { verdict: Verdict::Proven, ignored: vec![attack.into()], ..refused.clone() };
        for said in [refused, proven].map(|r| report(&r, 1, 1)) {
            assert!(said.contains("PROVEN\\u{7f}") && !said.chars().any(|c| c.is_control() && c != '\n'), "{said}");
            assert!(!said.contains('\u{202e}'), "{said}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_790_000_000, "2026-09-21T14:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (u64::MAX, "?"),
        ] {
            assert_eq!(time(at), text);
        }
    }
}
