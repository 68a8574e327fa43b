//! The codes in docs/protocol.md 14 and those in `error` are one list.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::error::{Code, Severity};

#[test]
fn the_page_and_the_code_have_the_same_list() {
    let path = format!("{}/../docs/protocol.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    let section = page.split("\n## 14. ").nth(1).unwrap().split("\n## 15. ").next().unwrap();
    let mut listed = Vec::new();
    for row in section.lines().filter(|l| l.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for text in cells[0].split(" / ") {
            let code: Code = text.parse().unwrap_or_else(|_| panic!("{text} is in no code"));
            assert_eq!(code.condition(), cells[2], "{text}");
            // The first severity of a row is that of one occurrence; where the row leaves it to a rule, the code says it.
            let severity = match cells[3].trim_start_matches('*').chars().next().unwrap() {
                'I' => Some(Severity::Info),
                'W' => Some(Severity::Warning),
                'H' => Some(Severity::High),
                'C' => Some(Severity::Critical),
                _ => None,
            };
            assert!(severity.is_none_or(|s| s == code.severity()), "{text}: {}", cells[3]);
            listed.push(code);
        }
    }
    listed.sort();
    let mut ours = Code::ALL.to_vec();
    ours.sort();
    assert_eq!(listed, ours);
}
