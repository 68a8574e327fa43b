//! Every attack, one file each: its name in docs/threats.md, the level and the property that it tests, and how it is done.
//! A new one is a file here, a line below, and a row of that page.

use super::Attack;

macro_rules! attacks {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*
        /// All of them, in the order of docs/threats.md.
        pub static ALL: &[&Attack] = &[$(&$name::ATTACK),*];
    };
}

attacks!(
    stranger_no_key,
    stranger_wrong_key,
    recorder_reads,
    recorder_replays_hop,
    recorder_replays_elsewhere,
    recorder_replays_restart,
    recorder_flips,
    insider_reads,
    insider_forges,
    insider_replays,
    insider_flips,
    backhaul_reads,
    backhaul_flips,
    backhaul_impersonates,
    gateway_disk_memory,
    gateway_decrypts,
    gateway_alters,
    gateway_splices,
    gateway_replays,
    gateway_withholds,
    gateway_drops,
    gateway_invents,
    gateway_as_cloud,
    database_keys,
    database_readings,
    stolen_node_others,
    stolen_node_itself,
    classic_stranger_speaks,
    classic_stranger_guesses,
    classic_shell_text,
    classic_recorder_reads,
    classic_recorder_replays,
    classic_recorder_flips,
    classic_recorder_cuts,
    classic_recorder_relabels,
    classic_insider_reads,
    classic_insider_forges,
    classic_gateway_reads,
    classic_gateway_alters,
    classic_gateway_replays,
    classic_gateway_invents,
    classic_gateway_withholds,
    classic_gateway_drops,
    classic_database_keys,
    classic_database_readings,
    classic_recorder_restarts,
    classic_stolen_node_itself,
);

/// The one of this name.
pub fn named(name: &str) -> Option<&'static Attack> {
    ALL.iter().copied().find(|attack| attack.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::threats::Table;

    #[test]
    fn the_attacks_are_those_of_the_page_and_in_its_order() {
        let (networks, classic) = (Table::of_threats_page().unwrap(), Table::of_classic_nodes().unwrap());
        let page: Vec<&str> = networks.attacks.iter().chain(&classic.attacks).map(|a| a.name.as_str()).collect();
        let here: Vec<&str> = ALL.iter().map(|a| a.name).collect();
        assert_eq!(here, page);
        assert!(ALL.iter().all(|a| a.property.len() > 10 && named(a.name).is_some()));
        assert!(named("classic-stranger").is_none());
    }
}
