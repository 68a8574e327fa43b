//! Templates with Meshlium's wildcards (W15), for topics and messages. Pure: values in, text out.

use std::fmt;
use std::str::FromStr;

use fivefold_core::time::Millis;
use fivefold_waspmote::Moment;

/// What takes the place of wildcards.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// `#MESHLIUM#`: the name of the machine.
    pub meshlium: &'a str,
    /// `#ID#`: number of the row.
    pub id: i64,
    /// `#ID_WASP#`: node id.
    pub id_wasp: &'a str,
    /// `#ID_SECRET#`: serial.
    pub id_secret: &'a str,
    /// `#SENSOR#`: tag.
    pub sensor: &'a str,
    /// `#VALUE#`.
    pub value: &'a str,
    /// `#TIMESTAMP#` and `#TS("FORMAT")#`, in UTC.
    pub timestamp: Millis,
    /// `#PROVEN#`, which Meshlium has not: `legacy`, `plain` or `signed`.
    pub proven: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Meshlium,
    Id,
    IdWasp,
    IdSecret,
    Sensor,
    Value,
    Timestamp,
    /// `#TS("FORMAT")#`, with the letters of PHP's `date`.
    Date(String),
    Proven,
}

/// A template that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateRefused {
    /// A wildcard that nobody knows.
    Unknown(String),
    /// A letter in `#TS("FORMAT")#` that we do not have.
    Letter(char),
    /// A topic with `+` or `#` in it, or an empty one.
    Topic,
}

impl fmt::Display for TemplateRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(
                f,
                "#{name}# is no wildcard; there are #MESHLIUM# #ID# #ID_WASP# #ID_SECRET# #SENSOR# #VALUE# #TIMESTAMP# \
                 #TS(\"c\")# #PROVEN#"
            ),
            Self::Letter(c) => write!(f, "#TS(..)# has no letter {c:?}; there are c U d m Y y H i s"),
            Self::Topic => f.write_str("a topic to publish to is not empty, and has no + and no # but wildcards"),
        }
    }
}

impl std::error::Error for TemplateRefused {}

impl FromStr for Template {
    type Err = TemplateRefused;

    fn from_str(text: &str) -> Result<Self, TemplateRefused> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('#') {
            literal.push_str(before);
            let Some((name, behind)) = after.split_once('#').filter(|(name, _)| is_name(name)) else {
                literal.push('#');
                rest = after;
                continue;
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(wildcard(name)?);
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }
}

fn is_name(name: &str) -> bool {
    format(name).is_some() || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

/// The format of `TS("FORMAT")`.
fn format(name: &str) -> Option<&str> {
    name.strip_prefix("TS(\"")?.strip_suffix("\")")
}

fn wildcard(name: &str) -> Result<Part, TemplateRefused> {
    if let Some(format) = format(name) {
        let unknown = format.chars().find(|c| c.is_ascii_alphabetic() && !"cUdmYyHis".contains(*c));
        return unknown.map_or_else(|| Ok(Part::Date(format.to_owned())), |c| Err(TemplateRefused::Letter(c)));
    }
    Ok(match name {
        "MESHLIUM" => Part::Meshlium,
        "ID" => Part::Id,
        "ID_WASP" => Part::IdWasp,
        "ID_SECRET" => Part::IdSecret,
        "SENSOR" => Part::Sensor,
        "VALUE" => Part::Value,
        "TIMESTAMP" => Part::Timestamp,
        "PROVEN" => Part::Proven,
        _ => return Err(TemplateRefused::Unknown(name.to_owned())),
    })
}

impl Template {
    /// As a topic to publish to.
    ///
    /// # Errors
    /// [`TemplateRefused::Topic`].
    pub fn topic(self) -> Result<Self, TemplateRefused> {
        let is_bad = |part: &Part| matches!(part, Part::Literal(text) if text.contains(['+', '#', '\0']));
        if self.0.is_empty() || self.0.iter().any(is_bad) { Err(TemplateRefused::Topic) } else { Ok(self) }
    }

    /// Whether it says how a value was proven.
    pub fn has_label(&self) -> bool {
        self.0.contains(&Part::Proven)
    }

    /// A topic. What a node says cannot name another level, nor what a broker refuses.
    pub fn fill_topic(&self, values: &Values<'_>) -> String {
        let tame = |c: char| if c.is_control() || "/+#".contains(c) { '_' } else { c };
        self.fill(values, |text, out| out.extend(text.chars().map(tame)))
    }

    /// A message. In JSON (the template begins with a brace or bracket), values are escaped as text within quotes.
    pub fn fill_message(&self, values: &Values<'_>) -> String {
        let is_json = matches!(self.0.first(), Some(Part::Literal(text)) if text.trim_start().starts_with(['{', '[']));
        self.fill(values, |text, out| {
            if is_json {
                let quoted = serde_json::Value::from(text).to_string();
                out.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
            } else {
                out.push_str(text);
            }
        })
    }

    fn fill(&self, v: &Values<'_>, put: impl Fn(&str, &mut String)) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Meshlium => put(v.meshlium, &mut out),
                Part::Id => out.push_str(&v.id.to_string()),
                Part::IdWasp => put(v.id_wasp, &mut out),
                Part::IdSecret => put(v.id_secret, &mut out),
                Part::Sensor => put(v.sensor, &mut out),
                Part::Value => put(v.value, &mut out),
                Part::Timestamp => put(&date("Y-m-d H:i:s", v.timestamp), &mut out),
                Part::Date(format) => put(&date(format, v.timestamp), &mut out),
                Part::Proven => put(v.proven, &mut out),
            }
        }
        out
    }
}

/// A time in UTC, by the letters of PHP's `date` that [`wildcard`] takes.
fn date(format: &str, at: Millis) -> String {
    let seconds = at.0 / 1000;
    // Milliseconds since 1970 are no number of seconds that an i64 does not hold.
    let Moment { year, month, day, hour, minute, second } = Moment::of_unix(seconds.cast_signed());
    let mut out = String::new();
    for letter in format.chars() {
        let text = match letter {
            'c' => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00"),
            'U' => seconds.to_string(),
            'Y' => format!("{year:04}"),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'H' => format!("{hour:02}"),
            'i' => format!("{minute:02}"),
            's' => format!("{second:02}"),
            other => other.to_string(),
        };
        out.push_str(&text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values {
        meshlium: "meshlium",
        id: 17,
        id_wasp: "node_01",
        id_secret: "111FFD1B3E500F56",
        sensor: "BAT",
        value: "80",
        timestamp: Millis(1_790_000_000_999),
        proven: "legacy",
    };

    fn template(text: &str) -> Template {
        text.parse().unwrap()
    }

    #[test]
    fn every_wildcard_is_filled() {
        let all = template(
            "#MESHLIUM#|#ID#|#ID_WASP#|#ID_SECRET#|#SENSOR#|#VALUE#|#TIMESTAMP#|#TS(\"c\")#|#TS(\"d/m/y H:i:s U\")#|#PROVEN#",
        );
        assert_eq!(
            all.fill_message(&VALUES),
            "meshlium|17|node_01|111FFD1B3E500F56|BAT|80|2026-09-21 14:13:20|2026-09-21T14:13:20+00:00|\
             21/09/26 14:13:20 1790000000|legacy"
        );
        assert_eq!(template("#MESHLIUM#/#SENSOR#").topic().unwrap().fill_topic(&VALUES), "meshlium/BAT");
    }

    #[test]
    fn what_is_no_wildcard_stays_or_is_named() {
        assert_eq!(template("50 # or # more#").fill_message(&VALUES), "50 # or # more#");
        assert_eq!("#FRAME#".parse::<Template>(), Err(TemplateRefused::Unknown("FRAME".into())));
        assert_eq!("#TS(\"F\")#".parse::<Template>(), Err(TemplateRefused::Letter('F')));
        for topic in ["", "a/+/b", "a/#"] {
            assert_eq!(template(topic).topic(), Err(TemplateRefused::Topic), "{topic}");
        }
    }

    #[test]
    fn what_a_node_says_stays_within_its_level_and_its_quotes() {
        let values = Values { sensor: "a/+\u{1b}", value: "\",\"admin\":true,\"x\":\"\u{1b}", ..VALUES };
        let topic = template("m/#SENSOR#").topic().unwrap();
        assert_eq!(topic.fill_topic(&values), "m/a___");
        let message = template("{\"value\":\"#VALUE#\"}").fill_message(&values);
        let read: serde_json::Value = serde_json::from_str(&message).unwrap();
        assert_eq!(read, serde_json::json!({ "value": values.value }));
        // As it is where the template is no JSON: there is nothing to break out of.
        assert_eq!(template("v=#VALUE#").fill_message(&values), format!("v={}", values.value));
        // A wildcard in a value is a text like any other.
        let values = Values { value: "#ID_SECRET#", ..VALUES };
        assert_eq!(template("#VALUE#").fill_message(&values), "#ID_SECRET#");
    }
}
