//! A cloud with a million registered devices and a gateway with ten thousand, at rest: what they take of memory, how long they
//! take to start, and when a change of the book is in force.
//!
//! `cargo bench -p fivefold-sim --bench large -- DEVICES OF_A_GATEWAY`; without numbers 20,000 and 1,000, which takes seconds. A
//! million needs some 2 GB in `/dev/shm` for the book, 1 GB on disk and the memory that is measured. Cloud and gateway are the
//! real daemons, each in a process of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Process, Yard, free_tcp, now_s, say};
use fivefold::api::Api;
use fivefold_core::id::{Did, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_keep::registry::{Entry, NewDevice, Scope};
use fivefold_keep::share::{self, CA_FILE, CLOUD_FILE, CloudSettings, GATEWAY_FILE, GatewayMetrics, GatewaySettings};

/// Devices of one network: short ids have 16 bits.
const OF_A_NET: u32 = 50_000;
/// Devices that are entered at a time.
const AT_A_TIME: u32 = 10_000;
/// The network of the gateway that is measured.
const SMALL: &str = "small";

/// Enters so many devices into a network.
fn enter(yard: &mut Yard, net: Net, profile: Profile, count: u32) {
    for from in (0..count).step_by(AT_A_TIME as usize) {
        let new = (from..count.min(from + AT_A_TIME)).map(|n| {
            let mut did = (0x0242_0000_0000_0000 | u64::from(n)).to_be_bytes();
            did[2..4].copy_from_slice(&(net.0 as u16).to_be_bytes());
            let (did, sid) = (Some(Did(did)), Some(Sid(0x0101 + n as u16)));
            let (policy, overrides) = (Policy::new(profile), Overrides::NONE);
            NewDevice { did, sid, net, policy, overrides, words: None, key: None }
        });
        let new: Vec<NewDevice> = new.collect();
        let registry = &mut yard.operator.registry;
        let examined = registry.examine(&new, now_s(), |n| n.to_string()).unwrap();
        let entries: Vec<Entry> = examined.into_iter().map(|d| Entry::draw(d.unwrap(), None).unwrap()).collect();
        registry.enter(&yard.operator.vault, &entries).unwrap();
    }
}

/// Waits until a process does nothing more of weight, for ten minutes at most.
fn rests(process: &Process) {
    for _ in 0..200 {
        let before = process.cpu();
        std::thread::sleep(Duration::from_secs(3));
        if process.cpu() - before < 0.15 {
            return;
        }
    }
    panic!("it does not rest");
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Says what a process takes of memory.
fn tell(process: &Process, devices: u64, when: &str) {
    let (now, peak) = (process.resident(), process.most_resident());
    println!("  {when}: {:.0} MiB resident, {} bytes a device; {:.0} MiB at most", mib(now), now / devices, mib(peak));
}

/// A page of a gateway's metrics, once it offers them.
fn page(metrics: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(metrics).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Starts a daemon; how long it took until it said that it is ready.
fn started(role: &str, folder: &str) -> (Process, f64) {
    let begun = Instant::now();
    let process = Process::start_ready(&[role, folder]);
    (process, begun.elapsed().as_secs_f64())
}

/// How long it takes until the running cloud has the book as it is now.
fn in_force(api: &Api, version: u64) -> f64 {
    let begun = Instant::now();
    while api.fetch("/v1/health").unwrap()["registry_version"].as_u64() < Some(version) {
        std::thread::sleep(Duration::from_millis(10));
        assert!(begun.elapsed() < Duration::from_secs(600), "it never is");
    }
    begun.elapsed().as_secs_f64()
}

fn cloud(yard: &mut Yard, devices: u64) -> Process {
    let folder = yard.cloud().display().to_string();
    let year = now_s() + 365 * 86_400;
    let token = yard.operator.registry.add_token("bench", Scope::Read, year, now_s()).unwrap();
    println!("cloud, {devices} devices");
    let (first, took) = started("as-cloud", &folder);
    println!("  started in {took:.2} s with an empty store");
    rests(&first);
    tell(&first, devices, "at rest");
    drop(first);
    let (cloud, took) = started("as-cloud", &folder);
    println!("  started again in {took:.2} s");
    tell(&cloud, devices, "just started");
    rests(&cloud);
    tell(&cloud, devices, "at rest");
    let settings: CloudSettings = share::read_config(&yard.cloud().join(CLOUD_FILE)).unwrap();
    let base = format!("https://localhost:{}", settings.api.bind.port());
    let api = Api::new(&yard.operator.dir.join(CA_FILE), &base, &token).unwrap();
    let before = cloud.cpu();
    std::thread::sleep(Duration::from_secs(10));
    println!("  does nothing by {:.1} % of a processor", (cloud.cpu() - before) * 10.0);
    let registry = &mut yard.operator.registry;
    registry.add_token("another", Scope::Read, year, now_s()).unwrap();
    let took = in_force(&api, registry.version().unwrap());
    println!("  a token that was made is known after {took:.2} s");
    // Not of the gateway that is measured.
    let small = registry.networks().unwrap().into_iter().find(|n| n.name == SMALL).unwrap().net;
    if let Some(device) = registry.devices().unwrap().into_iter().find(|d| d.net != small) {
        registry.revoke_device(device.did, now_s()).unwrap();
        let took = in_force(&api, registry.version().unwrap());
        println!("  a device that was revoked is refused after {took:.2} s");
    }
    cloud
}

fn gateway(yard: &Yard, folder: &Path, devices: u64) {
    let metrics = free_tcp();
    let file = folder.join(GATEWAY_FILE);
    let mut settings: GatewaySettings = share::read_config(&file).unwrap();
    settings.metrics = Some(GatewayMetrics { bind: metrics });
    settings.store.path = yard.disk.path().join("spool.db");
    share::write_config(&file, "A benchmark's gateway.", &settings).unwrap();
    let knows = || {
        let line = format!("\nfivefold_gateway_devices {devices}\n");
        let begun = Instant::now();
        while !page(metrics, "/metrics").is_some_and(|page| page.contains(&line)) {
            std::thread::sleep(Duration::from_millis(10));
            assert!(begun.elapsed() < Duration::from_secs(300), "it does not know its devices");
        }
    };
    println!("gateway, {devices} devices");
    let begun = Instant::now();
    let (first, took) = started("as-gateway", folder.to_str().unwrap());
    knows();
    println!(
        "  started in {took:.2} s with an empty store, told all by the cloud after {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    rests(&first);
    drop(first);
    let begun = Instant::now();
    let (gateway, took) = started("as-gateway", folder.to_str().unwrap());
    knows();
    println!("  started again in {took:.2} s, knows all of them after {:.2} s", begun.elapsed().as_secs_f64());
    rests(&gateway);
    tell(&gateway, devices, "at rest");
    assert!(page(metrics, "/readyz").unwrap().ends_with("\r\n\r\nready"));
}

fn bench(devices: u32, of_a_gateway: u32) {
    let begun = Instant::now();
    let mut yard = Yard::new();
    let small = yard.network(SMALL, Profile::ToBoth);
    let folder = yard.gateway(SMALL, "north", &[]);
    enter(&mut yard, small, Profile::ToBoth, of_a_gateway);
    let mut left = devices.saturating_sub(of_a_gateway);
    while left > 0 {
        let count = left.min(OF_A_NET);
        let net = yard.network(&format!("n{left}"), Profile::ToCloud);
        enter(&mut yard, net, Profile::ToCloud, count);
        left -= count;
    }
    println!("{} devices were enrolled in {:.0} s", devices.max(of_a_gateway), begun.elapsed().as_secs_f64());
    let cloud = cloud(&mut yard, devices.max(of_a_gateway).into());
    gateway(&yard, &folder, of_a_gateway.into());
    drop(cloud);
}

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("as-cloud") => {
            fivefold_cloud::daemon::run(&PathBuf::from(args.next().unwrap()), |_| say("ready"), || ()).unwrap();
        }
        Some("as-gateway") => {
            let folder = PathBuf::from(args.next().unwrap());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(fivefold_gateway::daemon::run(&folder, None, |_| say("ready"), || ())).unwrap();
        }
        _ => {
            let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse().ok());
            bench(numbers.next().unwrap_or(20_000), numbers.next().unwrap_or(1_000));
        }
    }
}
