//! As JUnit's XML, which every build server shows: a suite for each rule, a case for each thing that it says something of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Audit;
use crate::rule::{Finding, Rule};
use crate::waiver;

/// What became of one thing under one rule.
#[derive(Debug, Default)]
struct Case<'a> {
    open: Vec<&'a Finding>,
    skipped: Vec<String>,
}

/// The report as XML.
pub fn junit(audit: &Audit) -> String {
    let mut suites = String::new();
    let (mut tests, mut failures, mut skipped) = (0, 0, 0);
    let good = |rule: &Rule| audit.rules.iter().find(|j| j.rule.id == rule.id).map_or(0, |j| j.good);
    for rule in audit.rules.iter().map(|j| j.rule).chain([&waiver::RULE]) {
        let cases = cases(audit, rule);
        let good = good(rule);
        if cases.is_empty() && good == 0 {
            continue;
        }
        let failed = cases.values().filter(|c| !c.open.is_empty()).count();
        let passed_over = cases.len() - failed;
        let all = cases.len() + usize::from(good > 0);
        (tests, failures, skipped) = (tests + all, failures + failed, skipped + passed_over);
        let name = escaped(&format!("{} {}", rule.id, rule.title));
        let _ = writeln!(
            suites,
            "  <testsuite name=\"{name}\" tests=\"{all}\" failures=\"{failed}\" errors=\"0\" skipped=\"{passed_over}\">"
        );
        if good > 0 {
            let things = if good == 1 { "1 thing is" } else { &format!("{good} things are") };
            let _ = writeln!(suites, "    <testcase classname=\"{}\" name=\"{things} as it should be\"/>", rule.id);
        }
        for (subject, case) in &cases {
            write_case(&mut suites, rule, subject, case);
        }
        suites.push_str("  </testsuite>\n");
    }
    let errors = audit.unread.len();
    if errors > 0 {
        let _ = writeln!(
            suites,
            "  <testsuite name=\"unreadable\" tests=\"{errors}\" failures=\"0\" errors=\"{errors}\" skipped=\"0\">"
        );
        for (number, what) in audit.unread.iter().enumerate() {
            let (number, what) = (number + 1, escaped(what));
            let _ = writeln!(
                suites,
                "    <testcase classname=\"unreadable\" name=\"{number}\"><error message=\"{what}\"/></testcase>"
            );
        }
        suites.push_str("  </testsuite>\n");
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"fivefold audit\" tests=\"{}\" failures=\"{failures}\" \
         errors=\"{errors}\" skipped=\"{skipped}\">\n{suites}</testsuites>\n",
        tests + errors
    )
}

fn cases<'a>(audit: &'a Audit, rule: &Rule) -> BTreeMap<String, Case<'a>> {
    let mut cases: BTreeMap<String, Case<'a>> = BTreeMap::new();
    for finding in audit.open().filter(|f| f.rule.id == rule.id) {
        cases.entry(finding.subject.to_string()).or_default().open.push(finding);
    }
    for waived in audit.waived.iter().filter(|w| w.finding.rule.id == rule.id) {
        let by = &waived.waiver;
        let said = format!("waived until {} by {}: {}", by.until, by.owner, by.reason);
        cases.entry(waived.finding.subject.to_string()).or_default().skipped.push(said);
    }
    for unknown in audit.rules.iter().filter(|j| j.rule.id == rule.id).flat_map(|j| &j.unknown) {
        cases.entry(unknown.subject.to_string()).or_default().skipped.push(format!("not looked at: {}", unknown.needs));
    }
    cases
}

/// A case has one failure at most: readers of the format expect that. Its text has all of them.
fn write_case(out: &mut String, rule: &Rule, subject: &str, case: &Case<'_>) {
    let _ = write!(out, "    <testcase classname=\"{}\" name=\"{}\">", rule.id, escaped(subject));
    if let Some(first) = case.open.first() {
        let more = if case.open.len() > 1 { format!(" (and {} more)", case.open.len() - 1) } else { String::new() };
        let message = escaped(&format!("{}{more}", first.sentence));
        let _ = write!(out, "<failure type=\"{}\" message=\"{message}\">", first.severity);
        for finding in &case.open {
            let place = finding.subject.place.as_ref().map(|p| format!("{p}: ")).unwrap_or_default();
            let _ = writeln!(out, "{}", escaped(&format!("{place}{}", finding.sentence)));
        }
        let _ = write!(out, "{}</failure>", escaped(&first.cure));
    } else {
        let _ = write!(out, "<skipped message=\"{}\"/>", escaped(&case.skipped.join("; ")));
    }
    out.push_str("</testcase>\n");
}

/// Text for XML 1.0: what it gives a meaning to is written otherwise, and what it does not allow is a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::audit;

    /// The tags of a well-formed document in order, each with its text of attributes; what is not well formed panics.
    fn tags(xml: &str) -> Vec<(String, String)> {
        let (mut open, mut all): (Vec<String>, _) = (Vec::new(), Vec::new());
        let mut rest = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").unwrap();
        while let Some(at) = rest.find('<') {
            assert!(
                !rest[..at].contains('>') || rest[..at].contains("/>"),
                "a sign that is not escaped: {}",
                &rest[..at]
            );
            let end = at + rest[at..].find('>').unwrap();
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            let is_closed = tag.ends_with('/');
            let (name, attributes) = tag.trim_end_matches('/').split_once(' ').unwrap();
            assert_eq!(attributes.matches('"').count() % 2, 0, "{tag}");
            assert!(!attributes.contains('<'), "{tag}");
            all.push((name.to_owned(), attributes.to_owned()));
            if !is_closed {
                open.push(name.to_owned());
            }
        }
        assert!(open.is_empty(), "{open:?}");
        all
    }

    #[test]
    fn the_report_is_well_formed_and_counts_what_is_in_it() {
        let xml = junit(&audit());
        let tags = tags(&xml);
        let count = |name: &str| tags.iter().filter(|(tag, _)| tag == name).count();
        let whole = &tags[0].1;
        for (attribute, name) in
            [("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")]
        {
            assert!(whole.contains(&format!("{attribute}=\"{}\"", count(name))), "{attribute}: {whole}\n{xml}");
        }
        assert!(count("failure") >= 2 && count("skipped") >= 1, "{xml}");
        let place = "name=\"file /etc/mos quitto&lt;&amp;/m.conf\"";
        assert!(tags.iter().any(|(tag, a)| tag == "testcase" && a.contains("FX-02") && a.contains(place)), "{xml}");
        assert!(xml.contains("waived until"), "{xml}");
    }

    #[test]
    fn nothing_that_a_file_says_becomes_markup() {
        assert_eq!(escaped("a<b>&\"'\u{1b}[2J\u{0}\n"), "a&lt;b&gt;&amp;&quot;&apos;?[2J?&#10;");
    }
}
