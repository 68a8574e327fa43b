//! An alarm as a mail (RFC 5322).

use fivefold_core::time::Millis;

use crate::Alarm;

/// The whole message, lines ended by CR LF. Everything in it is of ours, or an address that was checked ([`is_address`]).
pub fn message(alarm: &Alarm, from: &str, to: &[String], now: Millis) -> String {
    let domain = from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let (id, sentence) = (alarm.id(), alarm.sentence());
    let subject = format!("[{}] {}: {}", alarm.severity.as_str(), alarm.cause.as_str(), alarm.cause.condition());
    let lines = [
        format!("From: Fivefold <{from}>"),
        format!("To: {}", to.join(",\r\n ")),
        format!("Subject: {subject}"),
        format!("Date: {}", date(now)),
        format!("Message-ID: <{id}@{domain}>"),
        format!("Fivefold-Alarm-Id: {id}"),
        "Auto-Submitted: auto-generated".into(),
        "MIME-Version: 1.0".into(),
        "Content-Type: text/plain; charset=utf-8".into(),
        String::new(),
        sentence.replace("; ", "\r\n"),
        String::new(),
        format!("Raised {}", date(alarm.at)),
        format!("Id {id}: a mail with the same id is the same alarm again."),
        format!("Do now: {}", alarm.cause.advice()),
        String::new(),
    ];
    lines.join("\r\n")
}

/// Whether this is an address as we take them: printable ASCII without what has a meaning in headers or in SMTP.
pub fn is_address(text: &str) -> bool {
    let good =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"<>()[]\\,;:\"@".contains(&b));
    text.len() <= 254
        && text.split_once('@').is_some_and(|(local, domain)| local.len() <= 64 && good(local) && good(domain))
}

/// As RFC 5322 3.3 writes it, in UTC.
fn date(at: Millis) -> String {
    let seconds = at.0 / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400 of them.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let (month, later) = if march_month < 10 { (march_month + 2, 0) } else { (march_month - 10, 1) };
    let year = era * 400 + year_of_era + later;
    let name = |names: &'static str, n: u64| names.split(' ').nth(n as usize).unwrap_or("?");
    format!(
        "{}, {day} {} {year:04} {:02}:{:02}:{:02} +0000",
        name("Thu Fri Sat Sun Mon Tue Wed", days % 7),
        name("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, Subject};
    use fivefold_core::error::{Code, Severity};

    #[test]
    fn dates_are_those_of_date_dash_r() {
        for (seconds, text) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_800, "Wed, 1 Mar 2000 00:00:00 +0000"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 +0000"),
            (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
        ] {
            assert_eq!(date(Millis(seconds * 1000)), text);
        }
    }

    #[test]
    fn a_message_is_short_lines_of_ascii_for_every_cause() {
        let causes = Code::ALL.iter().copied().map(Cause::Code).chain([Cause::Dropped, Cause::Test]);
        for cause in causes {
            let alarm = Alarm {
                cause,
                severity: Severity::Critical,
                of: Subject::default(),
                times: 3,
                at: Millis(1_790_000_000_000),
            };
            let text =
                message(&alarm, "cloud@farm.example", &["a@farm.example".into(), "b@farm.example".into()], alarm.at);
            assert!(
                text.is_ascii() && text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']),
                "{text}"
            );
            assert!(text.split("\r\n").all(|line| line.len() < 998), "{text}");
            assert!(text.contains(&format!("\r\nDo now: {}\r\n", cause.advice())));
            assert!(text.contains(&format!("\r\nMessage-ID: <{}@farm.example>\r\n", alarm.id())));
            assert!(text.contains("\r\nTo: a@farm.example,\r\n b@farm.example\r\n"));
        }
    }

    #[test]
    fn an_address_that_says_more_than_an_address_is_none() {
        assert!(is_address("ops+alarm@farm.example"));
        for wrong in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b>\r\nRCPT TO:<c@d", "a@b\n", "<a@b>", "a,b@c", "ä@b"]
        {
            assert!(!is_address(wrong), "{wrong:?}");
        }
    }
}
