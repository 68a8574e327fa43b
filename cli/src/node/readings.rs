//! Where readings come from: a simulated sensor, or lines of JSON.

use std::io::BufRead as _;

use anyhow::bail;
use fivefold_core::reading::{Fields, Number, Reading, Template, Value};
use serde::Deserialize;
use tokio::sync::mpsc;

/// What a made-up sensor measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Measures {
    /// The level of water, in metres.
    Level,
    /// The temperature, in degrees.
    #[default]
    Temperature,
}

/// A thermometer or a gauge with a battery, made up.
pub(super) struct Sensor {
    measures: Measures,
    /// Its readings are rows of this template.
    template: Option<u64>,
    /// Tenths of a degree, or centimetres.
    value: i64,
    /// Millivolts.
    battery: i64,
}

impl Sensor {
    pub(super) fn new(measures: Measures, template: Option<u64>) -> Self {
        let value = match measures {
            Measures::Level => 4100 + i64::from(random()),
            Measures::Temperature => 180 + i64::from(random() % 80),
        };
        Self { measures, template, value, battery: 3600 + 2 * i64::from(random()) }
    }

    /// The next reading, without the battery where there is no room for it.
    pub(super) fn reading(&mut self, room: usize) -> Vec<u8> {
        self.value += i64::from(random() % 7) - 3;
        self.battery -= i64::from(random().is_multiple_of(16));
        let measured = match self.measures {
            Measures::Level => ("level", "m", self.value as f64 / 100.0),
            Measures::Temperature => ("temp", "Cel", self.value as f64 / 10.0),
        };
        if let Some(id) = self.template {
            let values = [Value::Number(Number::Float(measured.2)), Value::Number(Number::Integer(self.battery))];
            let mut out = [0; 64];
            // Two numbers fit, and are finite.
            let len = Template::emit(id, &values.map(Some), &mut out).unwrap_or(0);
            return out.get(..len).unwrap_or_default().to_vec();
        }
        let whole = pack(&[measured, ("batt", "mV", self.battery as f64)]);
        if whole.len() <= room { whole } else { pack(&[measured]) }
    }
}

fn pack(records: &[(&str, &str, f64)]) -> Vec<u8> {
    let mut out = [0; 128];
    let mut reading = Reading::new(&mut out);
    for &(name, unit, value) in records {
        // Three short records fit, and their values are finite.
        let _ = reading.measure(name, unit, Number::Float(value));
    }
    reading.finish().map(<[u8]>::to_vec).unwrap_or_default()
}

fn random() -> u8 {
    let mut byte = [0];
    // A made-up sensor may stand still.
    let _ = getrandom::fill(&mut byte);
    u8::from_ne_bytes(byte)
}

/// One SenML record in JSON (RFC 8428 5), as far as a sensor needs it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    n: Option<String>,
    u: Option<String>,
    v: Option<f64>,
    vs: Option<String>,
    vb: Option<bool>,
    s: Option<f64>,
    t: Option<f64>,
}

/// Lines of standard input, read by a thread of its own.
pub(super) struct Lines {
    template: Option<u64>,
    lines: mpsc::Receiver<String>,
    next: Option<String>,
    number: u64,
    over: bool,
}

impl Lines {
    /// Lines are rows of this template, or else SenML.
    pub(super) fn start(template: Option<u64>) -> Self {
        let (sender, lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if !line.trim().is_empty() && sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        Self { template, lines, next: None, number: 0, over: false }
    }

    /// Input has ended and all of it was taken.
    pub(super) const fn is_over(&self) -> bool {
        self.over && self.next.is_none()
    }

    pub(super) const fn has_one(&self) -> bool {
        self.next.is_some()
    }

    /// Waits for a line. Never returns without standard input.
    pub(super) async fn wait(lines: Option<&mut Self>) {
        let Some(lines) = lines else { return std::future::pending().await };
        if lines.over {
            return std::future::pending().await;
        }
        match lines.lines.recv().await {
            Some(line) => (lines.next, lines.number) = (Some(line), lines.number + 1),
            None => lines.over = true,
        }
    }

    /// The reading of the line that waits. It stays until [`Self::taken`].
    ///
    /// # Errors
    /// One sentence about what is wrong with the line.
    pub(super) fn reading(&self, room: usize) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(line) = &self.next else { return Ok(None) };
        let (reading, what, example) = match self.template {
            Some(id) => (row(id, line), "row of values", "[21.5,null,true]"),
            None => (parse(line), "SenML record", "{\"n\":\"temp\",\"u\":\"Cel\",\"v\":21.5}"),
        };
        let reading = reading
            .map_err(|e| anyhow::anyhow!("line {} is no {what} in JSON ({e}); write e.g. {example}", self.number))?;
        if reading.len() > room {
            bail!(
                "line {}: {} bytes are more than the {room} that one message of this node carries; split it",
                self.number,
                reading.len()
            );
        }
        Ok(Some(reading))
    }

    pub(super) fn taken(&mut self) {
        self.next = None;
    }
}

/// A line as a row of a template: an array of values, null for one that is missing.
fn row(id: u64, line: &str) -> anyhow::Result<Vec<u8>> {
    let values: Vec<serde_json::Value> = serde_json::from_str(line)?;
    let values: Vec<Option<Value<'_>>> = values.iter().map(value).collect::<anyhow::Result<_>>()?;
    let mut out = [0; 512];
    let len = Template::emit(id, &values, &mut out).map_err(|_| anyhow::anyhow!("it is too long"))?;
    Ok(out.get(..len).unwrap_or_default().to_vec())
}

fn value(json: &serde_json::Value) -> anyhow::Result<Option<Value<'_>>> {
    use serde_json::Value as Json;
    Ok(match json {
        Json::Null => None,
        Json::Bool(b) => Some(Value::Bool(*b)),
        Json::String(text) => Some(Value::Text(text)),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Some(Value::Number(Number::Integer(i))),
            (None, Some(f)) => Some(Value::Number(Number::Float(f))),
            (None, None) => bail!("{n} is no number of 64 bits"),
        },
        Json::Array(_) | Json::Object(_) => bail!("a value is a number, a text, true, false or null"),
    })
}

/// A line as a SenML pack: one record, or an array of them.
fn parse(line: &str) -> anyhow::Result<Vec<u8>> {
    let records: Vec<Line> = if line.trim_start().starts_with('[') {
        serde_json::from_str(line)?
    } else {
        vec![serde_json::from_str(line)?]
    };
    let mut out = [0; 512];
    let mut reading = Reading::new(&mut out);
    for record in &records {
        let values = [
            record.v.map(|v| Value::Number(Number::Float(v))),
            record.vs.as_deref().map(Value::Text),
            record.vb.map(Value::Bool),
        ];
        let mut given = values.into_iter().flatten();
        let value = given.next();
        if given.next().is_some() || (value.is_none() && record.s.is_none()) {
            bail!("a record has one of v, vs and vb, or s");
        }
        let is_over = |text: Option<&str>, most| text.is_some_and(|t: &str| t.len() > most);
        if is_over(record.n.as_deref(), Fields::NAME) || is_over(record.u.as_deref(), Fields::UNIT) {
            bail!("a name has {} bytes at most, and a unit {}", Fields::NAME, Fields::UNIT);
        }
        reading.push(&Fields {
            name: record.n.as_deref(),
            unit: record.u.as_deref(),
            value,
            sum: record.s.map(Number::Float),
            time: record.t.map(Number::Float),
            ..Fields::default()
        })?;
    }
    Ok(reading.finish().map_err(|_| anyhow::anyhow!("an empty pack"))?.to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use fivefold_core::reading::Payload;

    #[test]
    fn a_made_up_reading_is_a_senml_pack_that_fits() {
        for measures in [Measures::Level, Measures::Temperature] {
            let mut sensor = Sensor::new(measures, None);
            for room in [84, 75, 25] {
                let reading = sensor.reading(room);
                assert!(reading.len() <= room, "{} > {room}", reading.len());
                assert!(matches!(Payload::parse(&reading), Ok(Payload::Sequence(_))));
            }
        }
    }

    #[test]
    fn a_made_up_reading_is_a_row_where_a_template_is_named() {
        let row = Sensor::new(Measures::Level, Some(300)).reading(84);
        let row = Template::parse(&row).unwrap();
        assert_eq!((row.id(), row.len(), row.values().flatten().count()), (300, 2, 2));
    }

    #[test]
    fn a_line_is_a_row_of_values_where_a_template_is_named() {
        let row = |line| super::row(3, line);
        let bytes = row(r#"[21.5, null, true, "on", -7]"#).unwrap();
        assert_eq!(hex::encode(bytes), "8603f94d60f6f5626f6e26");
        for line in ["", "{}", "7", "[[]]", "[{}]", "[1", "[1e400]"] {
            assert!(row(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_line_is_a_record_or_an_array_of_them() {
        for line in
            [r#"{"n":"temp","u":"Cel","v":21.5}"#, r#"[{"n":"a","vb":true},{"n":"b","vs":"on"}]"#, r#"{"n":"a","s":3}"#]
        {
            assert!(Payload::parse(&parse(line).unwrap()).is_ok(), "{line}");
        }
        let long = format!(r#"{{"n":"{}","v":1}}"#, "a".repeat(129));
        for line in ["", "{}", "[]", "7", r#"{"n":"a","v":1,"vb":true}"#, r#"{"n":"a","x":1}"#, &long] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
