//! As SARIF 2.1.0 (OASIS), which code hosts and editors show at the line that a finding is about.

use std::path::Path;

use fivefold_core::suite::sha256;
use serde_json::{Value, json};

use super::json::letter;
use crate::rule::{Finding, Rule, Severity, Subject};
use crate::waiver::{self, Waived};
use crate::{Audit, Outcome};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The report as SARIF.
pub fn sarif(audit: &Audit) -> Value {
    // The place of a rule in this list is what results name.
    let rules: Vec<&'static Rule> = audit.rules.iter().map(|j| j.rule).chain([&waiver::RULE]).collect();
    let index = |id: &str| rules.iter().position(|r| r.id == id);
    let open = audit.open().map(|f| result(f, index(f.rule.id), json!([])));
    let waived = audit.waived.iter().map(|w| result(&w.finding, index(w.finding.rule.id), json!([suppression(w)])));
    let unknown = audit.rules.iter().flat_map(|judged| {
        judged.unknown.iter().map(move |u| {
            json!({
                "ruleId": judged.rule.id, "kind": "open", "level": "none",
                "message": { "text": format!("{} was not looked at: that needs {}", u.subject, u.needs) },
                "locations": [location(&u.subject)], "suppressions": [],
            })
        })
    });
    let results: Vec<Value> = open.chain(waived).chain(unknown).collect();
    let unread = audit.unread.iter().map(|what| json!({ "level": "error", "message": { "text": what } }));
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "fivefold audit",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|rule| descriptor(rule)).collect::<Vec<_>>(),
            }},
            "invocations": [{
                "executionSuccessful": audit.outcome() != Outcome::Unreadable,
                "toolExecutionNotifications": unread.collect::<Vec<_>>(),
            }],
            "results": results,
            "properties": { "grade": letter(audit.grades.whole) },
        }],
    })
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

fn descriptor(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "shortDescription": { "text": rule.title },
        "fullDescription": { "text": rule.why },
        "help": { "text": format!("{}\n\n{}\n\nSource: {}", rule.why, rule.cure, rule.source) },
        "defaultConfiguration": { "level": level(rule.severity) },
        "properties": { "severity": rule.severity.as_str(), "tags": ["security"] },
    })
}

fn result(finding: &Finding, index: Option<usize>, suppressions: Value) -> Value {
    // What stays the same from one audit to the next, which a line does not: so a host knows an old finding again.
    let (subject, part) = (finding.subject.to_string(), finding.subject.part.as_bytes());
    let same = sha256(&[finding.rule.id.as_bytes(), &[0], subject.as_bytes(), &[0], part]);
    let mut value = json!({
        "ruleId": finding.rule.id,
        "kind": "fail",
        "level": level(finding.severity),
        "message": { "text": format!("{}: {}. {}", finding.subject, finding.sentence.trim_end_matches('.'), finding.cure) },
        "locations": [location(&finding.subject)],
        "partialFingerprints": { "ruleSubjectPart/v1": hex::encode(same) },
        "suppressions": suppressions,
        "properties": { "severity": finding.severity.as_str() },
    });
    if let (Some(object), Some(index)) = (value.as_object_mut(), index) {
        object.insert("ruleIndex".into(), index.into());
    }
    value
}

fn suppression(waived: &Waived) -> Value {
    let waiver = &waived.waiver;
    json!({
        "kind": "external",
        "status": "accepted",
        "justification": format!("{} ({}, until {})", waiver.reason, waiver.owner, waiver.until),
    })
}

fn location(subject: &Subject) -> Value {
    let mut all = json!({ "logicalLocations": [{
        "name": if subject.name.is_empty() { subject.kind.as_str() } else { &subject.name },
        "fullyQualifiedName": subject.to_string(), "kind": subject.kind.as_str(),
    }]});
    if let (Some(object), Some(place)) = (all.as_object_mut(), &subject.place) {
        let mut physical = json!({ "artifactLocation": { "uri": uri(&place.path) } });
        if let (Some(physical), Some(line)) = (physical.as_object_mut(), place.line) {
            physical.insert("region".into(), json!({ "startLine": line.max(1) }));
        }
        object.insert("physicalLocation".into(), physical);
    }
    all
}

/// A path as a URI reference (RFC 3986).
fn uri(path: &Path) -> String {
    let mut text = String::from(if path.is_absolute() { "file://" } else { "" });
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(*byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{WAIVED_AT, audit};

    #[test]
    fn each_result_names_its_rule_its_place_and_whether_it_is_waived() {
        let report = sarif(&audit());
        assert_eq!(report["version"], "2.1.0");
        let run = &report["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        let results = run["results"].as_array().unwrap();
        assert!(results.iter().filter(|r| r["kind"] == "fail").count() >= 3, "{results:#?}");
        for result in results.iter().filter(|r| r["kind"] == "fail") {
            let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"]);
            assert!(rule["help"]["text"].as_str().unwrap().len() > 40);
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
            // All have the list, or none has (3.27.23).
            let suppressions = result["suppressions"].as_array().unwrap();
            let is_waived = result["ruleId"] == "FX-07";
            assert_eq!(suppressions.len(), usize::from(is_waived), "{result:#}");
            if is_waived {
                assert!(suppressions[0]["justification"].as_str().unwrap().contains(WAIVED_AT));
            }
        }
        let open = results.iter().find(|r| r["ruleId"] == "FX-02").unwrap();
        assert_eq!(open["level"], "error");
        let place = &open["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "file:///etc/mos%20quitto%3C%26/m.conf");
        assert_eq!(place["region"]["startLine"], 3);
        assert_eq!(run["invocations"][0]["executionSuccessful"], true);
    }

    #[test]
    fn a_finding_that_moved_to_another_line_is_the_same_and_what_was_not_looked_at_is_said_in_a_sentence() {
        let mut moved = audit();
        let finding = moved.findings.iter_mut().find(|f| f.rule.id == "FX-02").unwrap();
        finding.subject.place.as_mut().unwrap().line = Some(77);
        let print = |audit: &Audit| {
            let results = sarif(audit)["runs"][0]["results"].clone();
            let open = results.as_array().unwrap().iter().find(|r| r["ruleId"] == "FX-02").unwrap().clone();
            open["partialFingerprints"].clone()
        };
        assert_eq!(print(&audit()), print(&moved));
        let report = sarif(&audit());
        let results = report["runs"][0]["results"].as_array().unwrap();
        let cloud = results.iter().find(|r| r["ruleId"] == "AR-30" && r["kind"] == "open").unwrap();
        assert_eq!(cloud["message"]["text"], "cloud was not looked at: that needs its cloud.toml");
    }

    #[test]
    fn the_same_finding_has_the_same_fingerprint_and_another_has_another() {
        let prints = |report: Value| -> Vec<String> {
            let results = report["runs"][0]["results"].as_array().unwrap().clone();
            results
                .iter()
                .filter_map(|r| Some(r["partialFingerprints"]["ruleSubjectPart/v1"].as_str()?.to_owned()))
                .collect()
        };
        let (first, second) = (prints(sarif(&audit())), prints(sarif(&audit())));
        assert_eq!(first, second);
        let different: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(different.len(), first.len());
    }
}
