//! How far a rotation has come, for people: a summary, and the devices that are late, by where they stand. Fits 80 columns.

use std::fmt::Write as _;

use fivefold_cloud::api::{CampaignShown, MemberShown};

use crate::clock;

/// Devices that are listed for one place without --all, at most.
const LISTED: usize = 40;

/// The places, as the API names them, and in words.
const PLACES: [(&str, &str); 4] = [
    ("not-told", "have not said that they have it"),
    ("has-it", "have it, and send under the key before"),
    ("sends-under-it", "send under it, and take the key before"),
    ("gave-up-the-old", "have it alone"),
];

/// How many devices are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// All.
    All,
    /// Those who are late, and not all of them if they are many.
    Late,
}

/// What stands below the two lines about the rotation itself.
pub(super) fn text(c: &CampaignShown, listing: Listing, dir: &str) -> String {
    let counts = [c.not_told, c.has_it, c.sends_under_it, c.gave_up_the_old];
    let mut out = summary(c);
    for ((_, words), n) in PLACES.iter().zip(counts) {
        let _ = write!(out, "\n  {n:>6}  {words}");
    }
    for gateway in &c.gateways_away {
        let heard = gateway.heard.map_or("yet".into(), |at| format!("since {}", clock::minute(at)));
        let _ = write!(out, "\nGateway {} was not heard {heard}: it may not know.", gateway.name);
    }
    for did in &c.known_outside {
        let _ = write!(out, "\nDevice {did} was revoked since and may know the key: {}", outside(c, did, dir));
    }
    for (place, words) in PLACES {
        let members: Vec<_> = c.members.iter().filter(|m| m.place == place).collect();
        if members.is_empty() {
            continue;
        }
        let listed = if listing == Listing::All { members.len() } else { LISTED };
        let _ = write!(out, "\n\n{} {words}:\n  {:<16}  {:<17}  ", members.len(), "DEVICE", "SINCE");
        out.push_str(if listing == Listing::All { "LATE BECAUSE" } else { "BECAUSE" });
        for member in members.iter().take(listed) {
            let line = format!("\n  {}  {}  {}", member.device, clock::minute(member.since), because(member));
            out.push_str(line.trim_end());
        }
        if members.len() > listed {
            let _ = write!(out, "\n  and {} more; all of them: --all, or -o json", members.len() - listed);
        }
    }
    out
}

fn summary(c: &CampaignShown) -> String {
    let have = c.devices - c.not_told;
    match c.late {
        0 if c.devices == 0 => "No device holds this key.".into(),
        0 => format!("{have} of {} devices have it, nobody is late.", c.devices),
        1 => format!("{have} of {} devices have it, 1 is late.", c.devices),
        n => format!("{have} of {} devices have it, {n} are late.", c.devices),
    }
}

fn outside(c: &CampaignShown, did: &str, dir: &str) -> String {
    if c.starts_over {
        return "another rotation follows".into();
    }
    format!("\n  fivefold device revoke --dir {dir} {did} --rotate")
}

fn because(m: &MemberShown) -> String {
    let at = m.why_at.map(clock::minute).unwrap_or_default();
    match m.why.as_deref() {
        None => String::new(),
        Some("being-told") => "is told in its next answer".into(),
        Some("never-heard") => "never heard".into(),
        Some("no-downlink") => "heard, asks for no answers".into(),
        Some("paused") => "paused".into(),
        Some("refused") => format!("refused (E1-04), last {at}"),
        Some("silent") => format!("not heard since {at}"),
        Some("sleeps") => format!("sleeps, heard {at}"),
        Some("unanswered") => format!("answers lost since {at}"),
        Some(_) => m.because.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_cloud::api::GatewayAway;

    fn member(n: usize, place: &str, why: Option<&str>) -> MemberShown {
        MemberShown {
            device: format!("acde48{n:010x}"),
            sid: format!("{n:04x}"),
            place: place.into(),
            since: 1_790_000_000,
            why: why.map(Into::into),
            why_at: why.map(|_| 1_790_000_000),
            because: why.map(Into::into),
        }
    }

    fn campaign(members: Vec<MemberShown>) -> CampaignShown {
        CampaignShown {
            net: "00000007".into(),
            network: "field-7".into(),
            previous: 253,
            index: 254,
            stage: "handing out".into(),
            since: 1_790_000_000,
            paused: false,
            urgent: true,
            starts_over: false,
            devices: 10_000,
            not_told: 6_000,
            has_it: 3_000,
            sends_under_it: 900,
            gave_up_the_old: 100,
            late: members.len(),
            known_outside: vec!["acde480000000001".into()],
            gateways_away: vec![GatewayAway { name: "north".into(), heard: Some(1_790_000_000) }],
            members,
        }
    }

    #[test]
    fn it_fits_eighty_columns_and_a_screen_for_thousands_of_devices() {
        let whys = ["never-heard", "silent", "sleeps", "refused", "no-downlink", "unanswered", "being-told", "paused"];
        let late = |n: usize| member(n, PLACES[n % 2].0, Some(whys[n % whys.len()]));
        let c = campaign((0..9_000).map(late).collect());
        let shown = text(&c, Listing::Late, "farm");
        let longest = shown.lines().max_by_key(|l| l.chars().count()).unwrap();
        assert!(longest.chars().count() <= 80, "{longest}");
        assert!(shown.lines().count() <= 2 * LISTED + 25);
        assert!(shown.contains("and 4460 more") && shown.contains("9000 are late"), "{shown}");
        assert!(text(&c, Listing::All, "farm").lines().count() > 9_000);
    }

    #[test]
    fn it_says_who_may_know_too_much_and_which_gateway_is_away() {
        let shown = text(&campaign(Vec::new()), Listing::Late, "farm");
        assert!(shown.contains("fivefold device revoke --dir farm acde480000000001 --rotate"), "{shown}");
        assert!(shown.contains("Gateway north was not heard since 2026-09-21 14:13Z"), "{shown}");
        let follows = CampaignShown { starts_over: true, ..campaign(Vec::new()) };
        assert!(text(&follows, Listing::Late, "farm").contains("another rotation follows"));
    }
}
