//! Sensors that a user added to the nodes' software: rows of a TOML or JSON file.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use fivefold_waspmote::{Kind, Sensor, Sensors, Table};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    sensor: Vec<Row>,
}

/// A row of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    id: u8,
    tag: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "one")]
    fields: u8,
    #[serde(default)]
    decimals: u8,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    description: String,
}

const fn one() -> u8 {
    1
}

/// Reads a file: JSON if its name ends so, else TOML.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("sensors of {}", path.display()))?;
    let file: File = if path.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).with_context(|| format!("sensors of {}", path.display()))?
    } else {
        toml::from_str(&text).with_context(|| format!("sensors of {}", path.display()))?
    };
    Ok(file.sensor)
}

/// A table with these rows.
///
/// # Errors
/// A row that cannot be added.
pub fn table(table: Table, rows: &[Row]) -> anyhow::Result<Sensors> {
    let mut sensors = Sensors::of(table);
    for row in rows {
        let words = "uint8, int16, uint16, float32, string or uint32";
        let kind = Kind::from_word(&row.kind)
            .ok_or_else(|| anyhow!("sensor {} ({}): type '{}' is none of {words}", row.id, row.tag, row.kind))?;
        let sensor = Sensor {
            id: row.id,
            tag: row.tag.clone().into(),
            kind,
            fields: row.fields,
            decimals: row.decimals,
            unit: row.unit.clone().into(),
            description: row.description.clone().into(),
        };
        sensors.add(sensor).with_context(|| format!("sensor {} ({}) and table {}", row.id, row.tag, table.as_str()))?;
    }
    Ok(sensors)
}
