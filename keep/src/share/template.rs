//! Config files with every setting there is, for people to copy from. A test compares them with what is read.

/// `cloud.toml`.
pub const CLOUD: &str = include_str!("templates/cloud.toml");
/// `gateway.toml`.
pub const GATEWAY: &str = include_str!("templates/gateway.toml");
/// `node.toml`.
pub const NODE: &str = include_str!("templates/node.toml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde::de::DeserializeOwned;

    use super::super::{CloudSettings, GatewaySettings, NodeSettings, PolicySettings, parse_config};
    use super::*;

    /// With every setting that is commented out.
    fn whole(template: &str) -> String {
        let line = |l: &str| match l.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
            _ => l.to_owned(),
        };
        template.lines().map(|l| line(l) + "\n").collect()
    }

    /// The settings that a table may have, by what is said of one that it may not have.
    fn known<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> BTreeSet<String> {
        let wrong = parse_config::<T>(Path::new("x.toml"), text).unwrap_err().to_string();
        let (_, list) = wrong.split_once("expected ").unwrap_or_else(|| panic!("{wrong}"));
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// That each table of the template has all that it may have.
    fn has_all<T: DeserializeOwned + std::fmt::Debug>(template: &str) {
        const NONE: &str = "no_such_setting = 1\n";
        let text = whole(template);
        parse_config::<T>(Path::new("x.toml"), &text).unwrap();
        // What runs as it is does too.
        parse_config::<T>(Path::new("x.toml"), template).unwrap();
        let mut tables = vec![(String::new(), 0, BTreeSet::new())];
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            at += line.len();
            if let Some(name) = line.strip_prefix('[') {
                let name = name.trim().trim_matches(|c| c == '[' || c == ']').to_owned();
                let (parent, last) = name.rsplit_once('.').unwrap_or(("", &name));
                for table in tables.iter_mut().filter(|t| t.0 == parent) {
                    table.2.insert(last.to_owned());
                }
                tables.push((name, at, BTreeSet::new()));
            } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                tables.last_mut().unwrap().2.insert(key.to_owned());
            }
        }
        assert!(tables.len() > 2);
        for (name, at, has) in tables {
            let known = known::<T>(&format!("{}{NONE}{}", &text[..at], &text[at..]));
            assert_eq!(has, known, "[{name}]");
        }
    }

    #[test]
    fn every_setting_stands_in_its_template_and_nothing_else() {
        has_all::<CloudSettings>(CLOUD);
        has_all::<GatewaySettings>(GATEWAY);
        has_all::<NodeSettings>(NODE);
    }

    #[test]
    fn the_policy_of_the_template_makes_sense() {
        let node: NodeSettings = parse_config(Path::new("node.toml"), NODE).unwrap();
        let policy: PolicySettings = node.policy;
        policy.check().unwrap();
    }
}
