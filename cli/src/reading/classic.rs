//! Classic frames for people: what they say, what was kept apart, and who speaks that is in no book.

use fivefold_cloud::api::{ClassicShown, QuarantinedShown, UnknownShown};
use serde_json::Value;

use super::{Cloud, safe};
use crate::clock;
use crate::output::{Output, answer, table};

/// `fivefold reading quarantine`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Quarantine {
    #[command(flatten)]
    cloud: Cloud,
    /// How many, at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// `fivefold reading unknown`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Unknown {
    #[command(flatten)]
    cloud: Cloud,
}

/// Lists what was kept apart.
///
/// # Errors
/// The cloud cannot be reached, or refuses.
pub(super) fn quarantine(args: &Quarantine, output: Output) -> anyhow::Result<()> {
    let mut kept = args.cloud.connect()?.fetch(&format!("/v1/quarantine?limit={}", args.limit))?;
    if let Some(list) = kept.as_array_mut() {
        list.reverse();
    }
    let shown: Vec<QuarantinedShown> = serde_json::from_value(kept.clone())?;
    answer(output, &kept, || {
        if shown.is_empty() {
            return "Nothing was kept apart.".to_owned();
        }
        let mut t = table(&["CAME", "NETWORK", "DEVICE", "NUMBER", "CODE", "WHY", "GATEWAY", "IT SAYS"]);
        for q in &shown {
            let [device, number, _, says] = match &q.classic {
                Some(c) => columns(c),
                None => [q.device.clone(), q.number.to_string(), String::new(), q.payload.clone()],
            };
            let (came, network) = (clock::text(q.ingested_ms / 1000), q.network.clone());
            t.add_row([came, network, device, number, q.code.clone(), q.condition.clone(), q.gateway.clone(), says]);
        }
        t.trim_fmt()
    });
    Ok(())
}

/// Lists strangers.
///
/// # Errors
/// The cloud cannot be reached, or refuses.
pub(super) fn unknown(args: &Unknown, output: Output) -> anyhow::Result<()> {
    let heard = args.cloud.connect()?.fetch("/v1/classic/unknown")?;
    let shown: Vec<UnknownShown> = serde_json::from_value(heard.clone())?;
    answer(output, &heard, || {
        if shown.is_empty() {
            return "No unknown classic device was heard.".to_owned();
        }
        let mut t = table(&["LAST HEARD", "FIRST HEARD", "NETWORK", "SERIAL", "BY", "GATEWAY", "REPORTS"]);
        for u in &shown {
            t.add_row([
                clock::text(u.last_ms / 1000),
                clock::text(u.first_ms / 1000),
                u.network.clone(),
                safe(&u.serial),
                u.carrier.clone(),
                u.gateway.clone(),
                u.reports.to_string(),
            ]);
        }
        format!("{}\n\nOne of yours: fivefold device add --classic SERIAL", t.trim_fmt())
    });
    Ok(())
}

/// Of a classic frame: device, number, what to add to how it was proven, and what it says.
pub(super) fn columns(c: &ClassicShown) -> [String; 4] {
    let number = c.sequence.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let flags: String = c.flags.iter().map(|flag| format!(" {flag}")).collect();
    let mut says: Vec<String> = c.fields.iter().map(field).collect();
    if !c.opened {
        says.push(format!("{}, not opened", c.r#type));
    }
    says.extend(c.rest.as_ref().map(|rest| format!("raw {}", word(&rest["raw"]))));
    says.extend(c.refused_fields.iter().map(|f| format!("unread {}", word(&f["text"]))));
    let name = if c.node_id.is_empty() { String::new() } else { format!(" {}", safe(&c.node_id)) };
    [format!("{}{name}", safe(&c.serial)), number, format!(" {}{flags}", c.suite), says.join(", ")]
}

fn field(field: &Value) -> String {
    let values = field["values"].as_array().map(Vec::as_slice).unwrap_or_default();
    let values: Vec<String> = values.iter().map(word).collect();
    format!("{} {}", word(&field["tag"]), values.join(";"))
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => safe(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_frame_is_shown_with_what_it_is_called_and_nothing_that_a_terminal_obeys() {
        let shown: ClassicShown = serde_json::from_value(json!({
            "proven": "legacy", "suite": "classic", "generation": "v15", "serial": "111ffd1b3e500f56",
            "node_id": "\u{1b}[2J", "type": "information", "encoding": "ascii", "sequence": 7, "opened": true,
            "fields": [{ "id": 63, "tag": "ACC", "values": [996, -250, -100] },
                       { "id": 65, "tag": "STR", "values": ["\u{1b}]0;x\u{7}"] }],
            "rest": null, "flags": ["CL-05"], "equal_blocks": 1
        }))
        .unwrap();
        let [device, number, label, says] = columns(&shown);
        assert_eq!(device, "111ffd1b3e500f56 \\x1b[2J");
        assert_eq!((number.as_str(), label.as_str()), ("7", " classic CL-05"));
        assert_eq!(says, "ACC 996;-250;-100, STR \\x1b]0;x\\x07");
    }
}
