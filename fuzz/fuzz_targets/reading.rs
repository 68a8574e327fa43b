//! Payloads: SenML packs, template rows and their definitions.
#![no_main]

use fivefold_core::reading::{BaseName, Definition, Fields, Item, Pack, Payload, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 8192];
    if let Ok(Payload::Sequence(items)) = Payload::parse(bytes) {
        for item in items {
            match item {
                Item::Control(map) => assert!(!map.is_empty()),
                Item::Senml(pack) => pack.records().for_each(|r| {
                    assert!(r.base_name.len() + r.name.len() <= Fields::NAME);
                    assert!(r.unit.is_none_or(|unit| unit.len() <= Fields::UNIT));
                    drop(r.time.to_string());
                }),
                Item::Template(row) => drop(row.values().count()),
            }
        }
    }
    for base in [BaseName::Implied, BaseName::Required] {
        if let Ok(pack) = Pack::parse(bytes, base) {
            let fields: Vec<_> = pack.fields().collect();
            let len = Pack::emit(&fields, &mut out).expect("it fits");
            let again = Pack::parse(&out[..len], base).expect("what we write we read");
            assert!(again.records().count() == pack.records().count());
        }
    }
    if let Ok(row) = Template::parse(bytes) {
        let values: Vec<_> = row.values().collect();
        let len = Template::emit(row.id(), &values, &mut out).expect("it fits");
        assert!(Template::parse(&out[..len]).is_ok());
    }
    if let Ok(definition) = Definition::parse(bytes) {
        let columns: Vec<_> = definition.columns().collect();
        let len = Definition::emit(definition.id, &columns, &mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
});
