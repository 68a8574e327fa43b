//! Dumps of MySQL: a walk through one ends, gives the same however the bytes come, and goes on where it was left.
#![no_main]

#[allow(dead_code)]
#[path = "../../cli/src/meshlium/dump.rs"]
mod dump;
#[allow(dead_code)]
#[path = "../../cli/src/meshlium/event.rs"]
mod event;
#[path = "../../cli/src/meshlium/lexer.rs"]
mod lexer;

use std::io::Read;

use dump::{Dump, Event, LONGEST_VALUE, Place, Value};
use libfuzzer_sys::fuzz_target;

/// Gives a few bytes at a time.
struct Drip<'b>(&'b [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(out.len());
        Read::read(&mut self.0, &mut out[..n])
    }
}

/// What comes next, in one text; `None` at the end.
fn next<R: Read>(dump: &mut Dump<R>) -> Option<String> {
    match dump.next().expect("a slice can be read") {
        Event::End => None,
        Event::Skipped { why, table, line } => Some(format!("{} {table} {line}", why.as_str())),
        Event::Row(row) => {
            assert_eq!(row.columns.len(), row.values.len());
            for value in row.values {
                assert!(!matches!(value, Value::Text(text) if text.len() > LONGEST_VALUE));
            }
            Some(format!("{} {} {} {:?} {:?}", row.database, row.table, row.line, row.columns, row.values))
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (size, bytes) = bytes.split_first().map_or((1, bytes), |(first, rest)| (usize::from(first % 16) + 1, rest));
    let mut whole = Dump::at(Place::default(), bytes);
    let (mut events, mut places) = (Vec::new(), vec![whole.place()]);
    while let Some(event) = next(&mut whole) {
        events.push(event);
        places.push(whole.place());
        assert!(events.len() <= bytes.len());
    }
    let mut dripped = Dump::at(Place::default(), Drip(bytes, size));
    for event in &events {
        assert_eq!(next(&mut dripped).as_ref(), Some(event));
    }
    assert_eq!(next(&mut dripped), None);
    // From one of the places on.
    let at = size % places.len();
    let place = places.swap_remove(at);
    let rest = usize::try_from(place.offset).ok().and_then(|at| bytes.get(at..)).expect("it stands inside");
    let mut later = Dump::at(place, rest);
    for event in &events[at..] {
        assert_eq!(next(&mut later).as_ref(), Some(event));
    }
    assert_eq!(next(&mut later), None);
});
