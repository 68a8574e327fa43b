//! What is the deployment's own: every address at which something of it listens, by its own config files.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_keep::share::{
    CLOUD_FILE, CloudSettings, GATEWAY_FILE, GatewaySettings, NODE_FILE, NodeSettings, read_config,
};

/// All of them.
///
/// # Errors
/// A config cannot be read.
pub fn addresses(dir: &Path) -> anyhow::Result<BTreeSet<SocketAddr>> {
    let cloud: CloudSettings = read_config(&dir.join("cloud").join(CLOUD_FILE))?;
    let mut all = vec![cloud.ingest.bind, cloud.api.bind];
    for folder in folders(&dir.join("gateways"), GATEWAY_FILE)? {
        let gateway: GatewaySettings = read_config(&folder.join(GATEWAY_FILE))?;
        all.push(gateway.link.bind);
        all.extend(gateway.coap.map(|coap| coap.bind));
        all.extend(gateway.metrics.map(|metrics| metrics.bind));
        all.extend(gateway.insecure_http.map(|http| http.bind));
    }
    for folder in folders(&dir.join("nodes"), NODE_FILE)? {
        let node: NodeSettings = read_config(&folder.join(NODE_FILE))?;
        all.push(node.link.bind);
    }
    Ok(all.into_iter().map(reached).filter(|address| address.port() != 0).collect())
}

/// Where somebody who listens everywhere is reached from here.
pub(super) fn reached(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

/// Folders below `above` that have this file, in the order of their names.
fn folders(above: &Path, file: &str) -> anyhow::Result<Vec<PathBuf>> {
    if !above.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(above).with_context(|| format!("cannot read {}", above.display()))?;
    let mut all = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    all.retain(|folder| folder.join(file).is_file());
    all.sort();
    Ok(all)
}
