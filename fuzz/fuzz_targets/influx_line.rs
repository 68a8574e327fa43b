//! Line protocol: whatever a device calls its values, and whatever they are, it is one line of three parts.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The writer alone, without the sink that it stands in.
#[allow(dead_code, reason = "which values have which type is the sink's")]
#[path = "../../sinks/src/influx/line.rs"]
mod line;

use line::{Field, Line};

/// Where a space stands that divides a line: neither behind a backslash nor in a text. Of a text the end is found.
fn spaces(line: &str) -> Vec<usize> {
    let (mut all, mut is_text, mut before, mut is_escaped) = (Vec::new(), false, ' ', false);
    for (at, c) in line.char_indices() {
        match c {
            _ if is_text => {
                is_text = is_escaped || c != '"';
                is_escaped = !is_escaped && c == '\\';
            }
            '"' if before == '=' && !all.is_empty() => is_text = true,
            ' ' if before != '\\' => all.push(at),
            '\n' => assert_eq!(at + 1, line.len(), "one line: {line:?}"),
            _ => {}
        }
        before = c;
    }
    assert!(!is_text, "{line:?}");
    all
}

fuzz_target!(|words: (&str, &str, &str, f64, i64)| {
    let (measurement, name, text, number, at) = words;
    // Ours is never empty.
    let measurement = format!("m{measurement}");
    let mut out = String::new();
    let mut line = Line::new(&mut out, &measurement);
    line.tag("name", name).tag("unit", text);
    line.field("text", Field::Text(text)).field("value", Field::Float(number)).field("whole", Field::Integer(at));
    line.end(at);
    let [first, second] = spaces(&out)[..] else { panic!("{out:?}") };
    assert!(out[..first].starts_with('m') && out[first + 1..].starts_with("text=\""));
    assert_eq!(out[second + 1..].trim_end_matches('\n').parse(), Ok(at));
});
