//! Line protocol, as InfluxDB reads it: a measurement, tags, fields and a time in a line.
//!
//! What is escaped where stands in the page of InfluxData ("Line protocol reference"): commas and spaces in the name of a
//! measurement, equals signs as well in keys and tags, quotes and backslashes in texts. A tag can have no line end, and no
//! backslash at its end, which would escape what comes behind it: these go as percent codes.

use std::fmt::Write as _;

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'f> {
    /// True or false.
    Bool(bool),
    /// A number. What is not finite has no form here, and is left out.
    Float(f64),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(&'f str),
}

/// Writes a line.
pub(super) struct Line<'o> {
    out: &'o mut String,
    has_field: bool,
}

impl<'o> Line<'o> {
    /// Begins with the name of the measurement.
    pub(super) fn new(out: &'o mut String, measurement: &str) -> Self {
        push(out, measurement, ", ");
        Self { out, has_field: false }
    }

    /// A tag. One without a value is no tag. They come before the fields.
    pub(super) fn tag(&mut self, key: &str, value: &str) -> &mut Self {
        debug_assert!(!self.has_field, "tags come first");
        if !value.is_empty() {
            self.out.push(',');
            push(self.out, key, ", =");
            self.out.push('=');
            push(self.out, value, ", =");
        }
        self
    }

    /// A field.
    pub(super) fn field(&mut self, key: &str, value: Field<'_>) -> &mut Self {
        if matches!(value, Field::Float(f) if !f.is_finite()) {
            return self;
        }
        self.out.push(if self.has_field { ',' } else { ' ' });
        self.has_field = true;
        push(self.out, key, ", =");
        self.out.push('=');
        // Writing to a `String` does not fail.
        let _ = match value {
            Field::Bool(b) => write!(self.out, "{b}"),
            Field::Float(f) => write!(self.out, "{f:?}"),
            Field::Integer(i) => write!(self.out, "{i}i"),
            Field::Text(text) => {
                self.out.push('"');
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        self.out.push('\\');
                    }
                    self.out.push(c);
                }
                self.out.push('"');
                Ok(())
            }
        };
        self
    }

    /// Ends it, with its time in nanoseconds since 1970.
    pub(super) fn end(&mut self, at: i64) {
        let _ = writeln!(self.out, " {at}");
    }
}

/// A name, key or tag, with a backslash before what is special there.
fn push(out: &mut String, text: &str, special: &str) {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_control() || (c == '\\' && chars.peek().is_none()) {
            let mut bytes = [0; 4];
            for b in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "%{b:02X}");
            }
            continue;
        }
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Pairs = Vec<(String, String)>;

    /// Reads one line as the reference says, and by nothing of the writer.
    fn read(line: &str) -> Option<(Pairs, Pairs, i64)> {
        let mut rest: &[char] = &line.strip_suffix('\n')?.chars().collect::<Vec<_>>();
        let mut tags = vec![("measurement".to_owned(), until(&mut rest, ", ")?)];
        while next(&mut rest)? == ',' {
            let key = until(&mut rest, "=")?;
            next(&mut rest)?;
            tags.push((key, until(&mut rest, ", ")?));
        }
        let mut fields = Vec::new();
        loop {
            let key = until(&mut rest, "=")?;
            next(&mut rest)?;
            let value = if rest.first() == Some(&'"') { quoted(&mut rest)? } else { until(&mut rest, ", ")? };
            fields.push((key, value));
            if next(&mut rest)? == ' ' {
                return Some((tags, fields, rest.iter().collect::<String>().parse().ok()?));
            }
        }
    }

    fn next(rest: &mut &[char]) -> Option<char> {
        let (first, others) = rest.split_first()?;
        *rest = others;
        Some(*first)
    }

    /// Up to one of these. A backslash before a comma, a space or an equals sign is dropped, any other stays.
    fn until(rest: &mut &[char], ends: &str) -> Option<String> {
        let mut out = String::new();
        loop {
            match **rest {
                ['\\', c @ (',' | ' ' | '='), ..] => {
                    out.push(c);
                    next(rest);
                }
                [c, ..] if ends.contains(c) => return Some(out),
                [c, ..] => out.push(c),
                [] => return None,
            }
            next(rest);
        }
    }

    /// A text in quotes. A backslash before a quote or a backslash is dropped.
    fn quoted(rest: &mut &[char]) -> Option<String> {
        let mut out = String::from("text:");
        next(rest);
        loop {
            match next(rest)? {
                '"' => return Some(out),
                '\\' if matches!(rest.first(), Some('"' | '\\')) => out.push(next(rest)?),
                c => out.push(c),
            }
        }
    }

    #[test]
    fn a_point_is_one_line_in_the_form_of_the_reference() {
        let mut out = String::new();
        Line::new(&mut out, "my, points")
            .tag("device", "02000000000000a1")
            .tag("unit", "")
            .tag("na me", "a=b,c d\\e")
            .field("value", Field::Float(21.5))
            .field("sum", Field::Float(f64::NAN))
            .field("whole", Field::Integer(-3))
            .field("proof", Field::Text("say \"node\" \\ here"))
            .field("insecure", Field::Bool(false))
            .end(1_700_000_000_000_000_001);
        assert_eq!(
            out,
            "my\\,\\ points,device=02000000000000a1,na\\ me=a\\=b\\,c\\ d\\e value=21.5,whole=-3i,\
             proof=\"say \\\"node\\\" \\\\ here\",insecure=false 1700000000000000001\n"
        );
    }

    #[test]
    fn what_a_tag_cannot_hold_goes_as_percent_codes() {
        let mut out = String::new();
        Line::new(&mut out, "m").tag("name", "a\nb\\").field("v", Field::Bool(true)).end(0);
        assert_eq!(out, "m,name=a%0Ab%5C v=true 0\n");
    }

    proptest! {
        #[test]
        fn whatever_a_device_calls_its_values_they_stay_in_their_place(
            name in "[^\\p{Cc}]{0,20}", text in "(?s).{0,40}", number in any::<f64>(), at in any::<i64>(),
        ) {
            let mut out = String::new();
            Line::new(&mut out, "fivefold").tag("name", &name).tag("unit", "Cel").field("text", Field::Text(&text))
                .field("value", Field::Float(number)).end(at);
            let (tags, fields, time) = read(&out).unwrap();
            prop_assert_eq!(time, at);
            let expected = match name.strip_suffix('\\') {
                Some(start) => format!("{start}%5C"),
                None => name.clone(),
            };
            let mut wanted = vec![("measurement".to_owned(), "fivefold".to_owned())];
            if !expected.is_empty() {
                wanted.push(("name".into(), expected));
            }
            wanted.push(("unit".into(), "Cel".into()));
            prop_assert_eq!(tags, wanted);
            prop_assert_eq!(&fields[0], &("text".to_owned(), format!("text:{text}")));
            if number.is_finite() {
                prop_assert_eq!(fields[1].1.parse::<f64>().unwrap(), number);
            } else {
                prop_assert_eq!(fields.len(), 1);
            }
        }
    }
}
