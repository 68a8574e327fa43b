//! The steps at which codes are alarms are those of docs/protocol.md 14, for every code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::error::{At, Code, Severity, Step};

const PAGE: &str = include_str!("../../docs/protocol.md");

fn severity(letter: &str) -> Option<Severity> {
    match letter {
        "I" => Some(Severity::Info),
        "W" => Some(Severity::Warning),
        "H" => Some(Severity::High),
        "C" => Some(Severity::Critical),
        _ => None,
    }
}

/// The steps that a cell of the page's last column states.
fn steps(cell: &str) -> Vec<Step> {
    let cell = cell.replace('*', "");
    let once = |letter, at| Step { severity: severity(letter).expect(letter), at };
    if cell == "by rule" {
        return vec![once("C", At::Times(1)), once("H", At::Said), once("W", At::Said)];
    }
    // Two conditions, each with its severity.
    if let Some((first, other)) = cell.split_once(" / ") {
        return vec![once(first, At::Times(1)), once(other, At::Said)];
    }
    let mut all = Vec::new();
    for clause in cell.split([',', ';']) {
        let words: Vec<&str> = clause.split_whitespace().collect();
        let Some(loud) = severity(words[0]).filter(|s| *s > Severity::Info || words.len() > 1) else { continue };
        let step = match &words[1..] {
            [] => Step { severity: loud, at: At::Times(1) },
            ["thr", times, louder] if severity(louder).is_some() => once(louder, At::Times(times.parse().unwrap())),
            ["thr", times, ..] => Step { severity: loud, at: At::Times(times.parse().unwrap()) },
            [">" | "after", ..] => Step { severity: loud, at: At::Said },
            other => panic!("{other:?}"),
        };
        all.push(step);
    }
    all
}

#[test]
fn every_code_is_an_alarm_when_the_page_says_so() {
    let section = PAGE.split("\n## ").find(|s| s.starts_with("14. ")).unwrap();
    let mut seen = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for code in cells[0].split(" / ") {
            let code: Code = code.parse().unwrap();
            assert_eq!(code.steps(), steps(cells[3]), "{code}: {}", cells[3]);
            seen.push(code);
        }
    }
    let mut all = Code::ALL.to_vec();
    all.sort();
    seen.sort();
    assert_eq!(seen, all, "every code is on the page once");
}

#[test]
fn a_louder_step_takes_more_and_no_step_is_without_a_cause() {
    for code in Code::ALL {
        let times: Vec<(u32, Severity)> = code
            .steps()
            .iter()
            .filter_map(|step| if let At::Times(n) = step.at { Some((n, step.severity)) } else { None })
            .collect();
        assert!(times.is_sorted() && times.iter().all(|(n, s)| *n > 0 && *s > Severity::Info), "{code}");
        assert!(code.severity() == Severity::Info || !code.steps().is_empty(), "{code}");
    }
}
