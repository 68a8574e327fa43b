//! InfluxDB: points in line protocol, to `/write` of version 1 or `/api/v2/write` of version 2 and what speaks like it.
//!
//! A point is named by its measurement, tags and time. Proof and E1 class are fields: where a label is raised, the point is
//! written over, and there is no second one. Two values of one device with one name and one time would be one point, too, so
//! what is below a millisecond of the time comes of the reading's id: always the same for the same value, and another for
//! another.

mod line;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_core::suite::sha256;
use fivefold_keep::share::CloudOutbox;
use line::{Field, Line};
use zeroize::Zeroizing;

use crate::post::{Post, Reply, check_url};
use crate::settings::Files;
use crate::{Answer, Most, Outbound, Quantity, Scalar, Sending, Sink};

/// Readings of a request, of which InfluxData recommend that it has 5,000 points. A server of version 1 takes 25 MB.
const MOST: Most = Most { readings: 1000, bytes: 1 << 20 };
/// The last millisecond that a point can have, and one second less.
const LAST: f64 = 9_223_372_035_000.0;
/// Whole numbers up to this are the same as a float.
const EXACT: u64 = 1 << 53;

/// Checked words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// With the place that points go to.
    url: reqwest::Url,
    measurement: String,
    login: Login,
}

/// How to log in. The secret is the password, or the token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Login {
    None,
    Password(String),
    Token,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfluxDB at {}, measurement {}", self.url.origin().ascii_serialization(), self.measurement)
    }
}

impl Settings {
    pub(crate) fn check(at: &str, words: &CloudOutbox) -> Result<Self, String> {
        let mut url = check_url("influx", at, words.ca_file.is_some())?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("influx: write its address alone; database or bucket are words of their own".into());
        }
        // It may stand behind a proxy, under a path.
        let start = url.path().trim_end_matches('/').to_owned();
        match (&words.database, &words.organisation, &words.bucket) {
            (Some(database), None, None) => {
                url.set_path(&format!("{start}/write"));
                url.query_pairs_mut().append_pair("db", database);
            }
            (None, Some(organisation), Some(bucket)) => {
                url.set_path(&format!("{start}/api/v2/write"));
                url.query_pairs_mut().append_pair("org", organisation).append_pair("bucket", bucket);
            }
            _ => return Err("database: write it for version 1, or organisation and bucket for version 2".into()),
        }
        url.query_pairs_mut().append_pair("precision", "ns");
        let login = match (&words.username, &words.bucket) {
            (Some(_), Some(_)) => return Err("username: a bucket is opened by a token, which is the secret".into()),
            (Some(name), None) if name.is_empty() || name.contains(':') => {
                return Err("username: it is empty, or holds a colon".into());
            }
            (Some(name), None) => Login::Password(name.clone()),
            (None, Some(_)) => Login::Token,
            (None, None) => Login::None,
        };
        let measurement = words.measurement.clone().unwrap_or_else(|| "fivefold".into());
        let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=100).contains(&measurement.len()) || !measurement.bytes().all(is_char) {
            return Err("measurement: expected 1 to 100 letters, digits, dashes, underlines and dots".into());
        }
        Ok(Self { url, measurement, login })
    }

    pub(crate) const fn secret_use(&self) -> Option<&'static str> {
        match &self.login {
            Login::None => None,
            Login::Password(_) => Some("the password at InfluxDB"),
            Login::Token => Some("the token of InfluxDB"),
        }
    }

    pub(crate) fn prepare(&self, files: Files) -> Result<Influx, String> {
        let Files { secret, tls, .. } = files;
        let text = std::str::from_utf8(&secret).map_err(|_| "its secret is no text".to_owned())?;
        let authorization = match &self.login {
            Login::None => None,
            Login::Token => Some(Zeroizing::new(format!("Token {text}"))),
            Login::Password(name) => {
                let both = Zeroizing::new(format!("{name}:{text}"));
                Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(both.as_bytes()))))
            }
        };
        let post = Post::new(self.url.clone(), tls).map_err(|e| e.to_string())?;
        Ok(Influx { post, measurement: self.measurement.clone(), authorization })
    }
}

/// An InfluxDB.
pub(crate) struct Influx {
    post: Post,
    measurement: String,
    authorization: Option<Zeroizing<String>>,
}

impl Influx {
    async fn deliver(&self, batch: &[Arc<Outbound>]) -> Answer {
        let mut body = String::new();
        for reading in batch {
            points(&mut body, &self.measurement, reading);
        }
        let mut headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
        headers.extend(self.authorization.as_ref().map(|value| ("authorization", value.to_string())));
        match self.post.send(&headers, body).await {
            Ok(reply) => answer(&reply),
            Err(error) => Answer::away(error),
        }
    }
}

/// InfluxDB says 204. A page of somebody else's may say 200, and keeps nothing.
fn answer(reply: &Reply) -> Answer {
    match reply.status {
        204 => Answer::Taken,
        200..=299 => Answer::away(format!("it answered {}, and InfluxDB answers 204", reply.status)),
        _ => reply.answer(),
    }
}

impl Sink for Influx {
    fn most(&self) -> Most {
        MOST
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        Box::pin(self.deliver(batch))
    }
}

/// All points of a reading: one for each value, or one that says that it came.
fn points(out: &mut String, measurement: &str, reading: &Outbound) {
    let start = sha256(&[reading.id.as_bytes()]).iter().take(4).fold(0_u64, |n, b| (n << 8) | u64::from(*b));
    // In nanoseconds; none where a device claims what no point can have.
    let at = |seconds: f64, index: usize| {
        let millis = (seconds * 1000.0).round();
        let below = start.wrapping_add(index as u64) % 1_000_000;
        (0.0..=LAST).contains(&millis).then(|| millis as i64 * 1_000_000 + below as i64)
    };
    let came = |index| at((reading.ingested.0 as f64).min(LAST) / 1000.0, index).unwrap_or_default();
    let (net, device, gateway) = (reading.net.to_string(), reading.did.to_string(), reading.gateway.to_string());
    let mut point = |quantity: Option<&Quantity>, index: usize| {
        let mut line = Line::new(out, measurement);
        line.tag("device", &device);
        if let Some(q) = quantity {
            line.tag("name", &q.name);
        }
        line.tag("net", &net);
        if let Some(unit) = quantity.and_then(|q| q.unit.as_ref()) {
            line.tag("unit", unit);
        }
        line.field("id", Field::Text(&reading.id))
            .field("proof", Field::Text(reading.proof.as_str()))
            .field("e1", Field::Text(reading.e1.as_str()))
            .field("insecure", Field::Bool(reading.insecure))
            .field("conflict", Field::Bool(reading.conflict))
            .field("freshness", Field::Text(reading.freshness))
            .field("gateway", Field::Text(&gateway));
        let Some(q) = quantity else {
            line.field("payload", Field::Text(&hex::encode(&reading.payload)));
            return line.end(came(index));
        };
        // A field has one type for ever: whole numbers are floats here as others are.
        match &q.value {
            None => {}
            Some(Scalar::Bool(b)) => drop(line.field("bool", Field::Bool(*b))),
            Some(Scalar::Bytes(b)) => drop(line.field("bytes", Field::Text(&hex::encode(b)))),
            Some(Scalar::Float(n)) => drop(line.field("value", Field::Float(*n))),
            Some(Scalar::Integer(n)) => {
                line.field("value", Field::Float(*n as f64));
                if n.unsigned_abs() > EXACT {
                    line.field("whole", Field::Integer(*n));
                }
            }
            Some(Scalar::Text(text)) => drop(line.field("text", Field::Text(text))),
        }
        if let Some(sum) = q.sum {
            line.field("sum", Field::Float(sum));
        }
        let time = at(q.time, index);
        if time.is_none() {
            line.field("claimed", Field::Text(&q.time.to_string()));
        }
        line.end(time.unwrap_or_else(|| came(index)));
    };
    if reading.values.is_empty() {
        point(None, 0);
    }
    for (index, quantity) in reading.values.iter().enumerate() {
        point(Some(quantity), index);
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::e4_channel::Origin;
    use fivefold_core::time::Millis;

    use super::*;
    use crate::About;
    use crate::example::reading;

    fn of(reading: &Outbound) -> Vec<String> {
        let mut out = String::new();
        points(&mut out, "fivefold", reading);
        out.lines().map(str::to_owned).collect()
    }

    /// What names a point: its tags and its time.
    fn point(line: &str) -> (&str, i64) {
        let (head, rest) = line.split_once(' ').unwrap();
        (head, rest.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    #[test]
    fn each_value_is_a_point_and_says_how_it_was_proven() {
        let lines = of(&reading(1, 7));
        assert_eq!(lines.len(), 4);
        let (head, at) = point(&lines[0]);
        assert_eq!(head, "fivefold,device=acde480000000001,name=temperature,net=00000007,unit=Cel");
        assert_eq!(at / 1_000_000, 1_790_000_007_000);
        for says in ["proof=\"node\"", "e1=\"mac-ccm\"", "insecure=false", "value=21.5", "freshness=\"fresh\""] {
            assert!(lines[0].contains(says), "{says}: {}", lines[0]);
        }
        assert!(lines[1].contains("name=door") && lines[1].contains("bool=true"), "{}", lines[1]);
        assert!(lines[2].contains("value=7.0"), "{}", lines[2]);
        assert!(lines[3].contains(r#"text="quiet, \"calm\" = yes""#), "{}", lines[3]);
    }

    #[test]
    fn a_raised_label_writes_over_the_same_points_and_no_other_reading_does() {
        let first = reading(1, 7);
        let raised = Outbound { about: About::Label, proof: Origin::Signed, ..first.clone() };
        let (before, after) = (of(&first), of(&raised));
        for (b, a) in before.iter().zip(&after) {
            assert_eq!(point(b), point(a));
            assert!(a.contains("proof=\"signed\"") && b.contains("proof=\"node\""));
        }
        // Another reading of the same device with the same names at the same time, e.g. after a boot without a clock.
        let other = of(&Outbound { values: first.values.clone(), ..reading(1, 8) });
        assert_eq!(point(&other[0]).0, point(&before[0]).0);
        assert_ne!(point(&other[0]).1, point(&before[0]).1);
        // Nor do two values of one reading, whatever it calls them.
        let same = Outbound { values: vec![first.values[0].clone(), first.values[0].clone()], ..first };
        let lines = of(&same);
        assert_ne!(point(&lines[0]).1, point(&lines[1]).1);
    }

    #[test]
    fn what_has_no_values_or_an_impossible_time_comes_all_the_same() {
        let empty = Outbound { values: Vec::new(), ..reading(1, 7) };
        let lines = of(&empty);
        assert!(lines[0].contains("payload=\"81a0\"") && lines.len() == 1, "{}", lines[0]);
        assert_eq!(point(&lines[0]).1 / 1_000_000, empty.ingested.0 as i64);
        for time in [-1.0, 1e300, f64::NAN, f64::INFINITY] {
            let mut odd = reading(1, 7);
            odd.values[0].time = time;
            let lines = of(&odd);
            assert_eq!(point(&lines[0]).1 / 1_000_000, odd.ingested.0 as i64, "{time}");
            assert!(lines[0].contains("claimed=\""), "{}", lines[0]);
        }
        let far = Outbound { ingested: Millis(u64::MAX), values: Vec::new(), ..reading(1, 7) };
        assert!(point(&of(&far)[0]).1 > 0);
        let mut whole = reading(1, 7);
        whole.values[2].value = Some(Scalar::Integer(i64::MAX));
        assert!(of(&whole)[2].contains("whole=9223372036854775807i"));
    }

    #[test]
    fn only_204_is_a_yes() {
        let of = |status| answer(&Reply { status, retry_after: None, words: String::new() });
        assert_eq!(of(204), Answer::Taken);
        assert!(matches!(of(400), Answer::Refused(_)));
        for status in [200, 201, 302, 401, 404, 429, 500] {
            assert!(matches!(of(status), Answer::Away { .. }), "{status}");
        }
    }
}
