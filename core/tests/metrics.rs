//! The table of metrics, docs/metrics.md, the alert rules and the dashboard say the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../examples/alerts/rules.rs"]
mod rules;

use std::collections::BTreeSet;

use fivefold_core::error::{At, Code};
use fivefold_core::metric::{Kind, Label, Row, cloud, gateway};
use serde_json::Value;

fn page(name: &str) -> String {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn all() -> impl Iterator<Item = &'static Row> {
    gateway::ALL.iter().chain(cloud::ALL)
}

fn labels(row: &Row) -> String {
    row.labels.iter().map(|l| format!("`{}`", l.as_str())).collect::<Vec<_>>().join(", ")
}

#[test]
fn names_say_whose_page_unit_and_kind_and_no_label_names_a_device() {
    for (rows, prefix) in [(gateway::ALL, "fivefold_gateway_"), (cloud::ALL, "fivefold_cloud_")] {
        for row in rows {
            let stem = row.name.strip_prefix(prefix).unwrap_or_else(|| panic!("{} is of another page", row.name));
            let stem = match row.kind {
                Kind::Counter => stem.strip_suffix("_total").unwrap_or_else(|| panic!("{} is a counter", row.name)),
                Kind::Gauge => stem,
            };
            assert!(!stem.ends_with("_total"), "{}", row.name);
            assert!(stem.ends_with(row.unit.suffix()), "{} is in {}", row.name, row.unit.as_str());
            assert!(stem.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.name);
            assert!(row.help.ends_with('.') && !row.help.contains(['\n', '\\', '|']), "{}", row.help);
        }
    }
    let names: BTreeSet<&str> = all().map(|row| row.name).collect();
    assert_eq!(names.len(), all().count(), "a name is there twice");
    let devices = ["device", "did", "sid", "serial", "eui", "node", "neighbour", "address"];
    assert!(Label::ALL.iter().all(|l| devices.iter().all(|d| !l.as_str().contains(d))));
}

/// Rows of the tables under a heading, as cells.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.skip(1).map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_page_documents_every_metric_and_label_and_no_other() {
    let page = page("docs/metrics.md");
    for (heading, table) in [("The page of a gateway", gateway::ALL), ("The page of the cloud", cloud::ALL)] {
        let written = rows(&page, heading);
        let ours: Vec<Vec<String>> = table
            .iter()
            .map(|r| {
                [format!("`{}`", r.name), r.kind.as_str().into(), r.unit.as_str().into(), labels(r), r.help.into()]
            })
            .map(Vec::from)
            .collect();
        for (written, ours) in written.iter().zip(&ours) {
            assert_eq!(written, ours);
        }
        assert_eq!(written.len(), ours.len(), "{heading}");
    }
    let written: Vec<String> = rows(&page, "Labels").into_iter().map(|row| row[0].clone()).collect();
    let ours: Vec<String> = Label::ALL.iter().map(|l| format!("`{}`", l.as_str())).collect();
    assert_eq!(written, ours);
    for label in Label::ALL {
        assert!(all().any(|row| row.labels.contains(&label)), "nothing has the label {}", label.as_str());
    }
}

/// Metrics that an expression of PromQL names, each with the labels of its matchers.
fn named(expr: &str) -> Vec<(&str, Vec<&str>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(at) = rest.find("fivefold_") {
        rest = &rest[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let matchers = after.strip_prefix('{').and_then(|m| m.split_once('}')).map_or("", |(m, _)| m);
        let labels = matchers.split(',').filter(|m| !m.trim().is_empty());
        let labels = labels.map(|m| m.trim().split(|c| !is_word(c)).next().unwrap());
        found.push((name, labels.collect()));
        rest = after;
    }
    found
}

/// What is between `open` and `close`, wherever it stands.
fn between<'t>(text: &'t str, open: &str, close: &str) -> Vec<&'t str> {
    text.split(open).skip(1).filter_map(|part| Some(part.split_once(close)?.0)).collect()
}

/// Fails where an expression, or a text beside it that shows labels, names what there is not.
fn check(expr: &str, legend: &str) {
    let named = named(expr);
    assert!(!named.is_empty(), "it names nothing of ours: {expr}");
    let mut known = BTreeSet::from(["instance", "job"]);
    for (name, matchers) in named {
        let row = all().find(|row| row.name == name).unwrap_or_else(|| panic!("there is no {name}: {expr}"));
        let own: Vec<&str> = row.labels.iter().map(|l| l.as_str()).collect();
        for label in matchers {
            assert!(own.contains(&label) || label == "instance", "{name} has no label {label}: {expr}");
        }
        known.extend(own);
    }
    let grouped = between(expr, " by (", ")").into_iter().flat_map(|labels| labels.split(',')).map(str::trim);
    let shown = between(legend, "$labels.", " ").into_iter();
    let in_legend = between(legend, "{{", "}}").into_iter().map(str::trim).filter(|l| !l.contains('$'));
    for label in grouped.chain(shown).chain(in_legend) {
        assert!(known.contains(label), "nothing in it has the label {label}: {expr} {legend}");
    }
}

#[test]
fn the_alert_rules_are_those_of_the_table_of_codes() {
    let file = page("monitoring/alerts.yml");
    assert_eq!(
        file,
        rules::text(),
        "write it anew: cargo run -p fivefold-core --example alerts > monitoring/alerts.yml"
    );
    for code in Code::ALL {
        let steps = code.steps().iter().filter(|step| matches!(step.at, At::Times(_))).count();
        assert_eq!(file.matches(&format!("- alert: '{code}'\n")).count(), steps, "{code}");
    }
    let mut checked = 0;
    for rule in file.split("- alert: ").skip(1) {
        let expr = between(rule, "expr: '", "'\n")[0];
        check(expr, rule);
        checked += 1;
    }
    assert!(checked > 60, "only {checked} rules were found");
}

#[test]
fn every_panel_of_the_dashboard_shows_metrics_that_there_are() {
    let board: Value = serde_json::from_str(&page("monitoring/dashboard.json")).unwrap();
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        assert_eq!(panel["datasource"]["uid"], "${source}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            check(expr, target["legendFormat"].as_str().unwrap());
            shown.extend(named(expr).into_iter().map(|(name, _)| name.to_owned()));
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap().iter().filter(|v| v["type"] == "query") {
        check(variable["query"].as_str().unwrap(), "");
    }
    assert!(shown.len() > 12, "it shows {shown:?} alone");
}

#[test]
fn what_there_is_not_is_found() {
    let fails = |expr: &str, legend: &str| std::panic::catch_unwind(|| check(expr, legend)).is_err();
    assert!(!fails("sum by (net) (rate(fivefold_cloud_rejected_total{code=\"E1-05\"}[5m]))", "{{ net }}"));
    assert!(fails("up", ""));
    assert!(fails("fivefold_cloud_nothing", ""));
    assert!(fails("fivefold_cloud_rejected_total{sid=\"0a17\"}", ""));
    assert!(fails("sum by (device) (fivefold_cloud_rejected_total)", ""));
    assert!(fails("fivefold_cloud_rejected_total", "{{gateway}}"));
    assert!(fails("fivefold_cloud_rejected_total", "of {{ $labels.gateway }}"));
}
