//! Tokens for the cloud's API: good for ever, or for everything.

use fivefold_keep::registry::Scope;

use crate::facts::Facts;
use crate::rule::{Found, Rule, Severity, Sight, Subject};

/// How long a token may be good, in days. A year, and time to change it.
const LONGEST: u64 = 400;

pub(super) static RULES: &[Rule] = &[Rule {
    id: "AR-45",
    severity: Severity::Medium,
    title: "a token without an end, or one that may do everything",
    why: "Tokens lie in scripts, dashboards and mailboxes for years. One without an end opens the API to whoever finds it there; one \
          of scope admin ends the tokens of everybody else.",
    cure: "Make another that ends, of the least scope that does (fivefold token add NAME --scope read --ends 365d), put it where the \
           old one is used, and revoke that: fivefold token revoke OLD.",
    source: "docs/protocol.md 15; NIST SP 800-63B, 4 (bearer secrets end); OWASP API Security 2023, API2",
    sight: Sight::Book,
    check: lasting_or_mighty,
}];

fn lasting_or_mighty(facts: &Facts, found: &mut Found) {
    if facts.has_book && facts.tokens.is_empty() {
        found.good();
    }
    for token in &facts.tokens {
        let name = &token.name;
        let subject = |part: &str| Subject::cloud().on(format!("token {name}, {part}"));
        let revoke = format!("fivefold token add NAME --ends 365d, then: fivefold token revoke {name}");
        if token.ends.is_some_and(|end| end <= facts.now) {
            found.good();
            continue;
        }
        match token.ends {
            None => found.bad(subject("end"), format!("token {name} of the cloud's API has no end"), revoke),
            Some(end) if end.saturating_sub(token.made) > LONGEST * 86_400 => {
                let days = (end - token.made) / 86_400;
                found.bad(subject("end"), format!("token {name} of the cloud's API is good for {days} days"), revoke);
            }
            Some(_) => found.good(),
        }
        if token.scope == Scope::Admin {
            found.bad_as(
                Severity::Low,
                subject("scope"),
                format!("token {name} of the cloud's API may do everything (scope admin)"),
                format!("fivefold token add NAME --scope operate, then: fivefold token revoke {name}"),
            );
        }
    }
}
