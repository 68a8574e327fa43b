//! What the benchmarks over live processes share: an operator's folder with many devices, child processes and their use
//! of the machine.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::Parser as _;
use fivefold::{gateway, init, operator::Folder, operator::Operator};
use fivefold_core::id::{Did, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_keep::registry::{Device, DeviceSecrets, NewDevice};
use fivefold_keep::share::{self, CLOUD_FILE, CloudSettings};

#[derive(clap::Parser)]
struct InitLine {
    #[command(flatten)]
    args: init::Args,
}

#[derive(clap::Parser)]
struct GatewayLine {
    #[command(flatten)]
    new: gateway::New,
}

/// An operator's folder in memory, and what is measured on disk.
pub struct Yard {
    pub operator: Operator,
    /// Removed at the end.
    pub disk: tempfile::TempDir,
    _memory: tempfile::TempDir,
}

pub fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Yard {
    /// The folder lies in memory where that is possible: what enrolling costs is not measured. Stores lie beside the build.
    pub fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let memory = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let disk = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let dir = memory.path().join("operator");
        let (ingest, api) = (free_tcp().to_string(), free_tcp().to_string());
        let line = ["init", dir.to_str().unwrap(), "--ingest", &ingest, "--api", &api];
        init::create(&InitLine::parse_from(line).args).unwrap();
        let file = dir.join("cloud").join(CLOUD_FILE);
        let mut settings: CloudSettings = share::read_config(&file).unwrap();
        settings.store = disk.path().join("readings.db");
        share::write_config(&file, "A benchmark's cloud.", &settings).unwrap();
        let operator = Folder { dir, passphrase_file: None }.open().unwrap();
        Self { operator, disk, _memory: memory }
    }

    pub fn cloud(&self) -> PathBuf {
        self.operator.dir.join("cloud")
    }

    pub fn network(&mut self, name: &str, profile: Profile) -> Net {
        self.operator.registry.add_network(&self.operator.vault, name, profile, None).unwrap().net
    }

    pub fn gateway(&mut self, net: &str, name: &str, more: &[&str]) -> PathBuf {
        let line = ["gateway", "--net", net, name].into_iter().chain(more.iter().copied());
        gateway::create(&mut self.operator, &GatewayLine::parse_from(line).new).unwrap();
        self.operator.gateway_folder(name)
    }

    /// Enrols the `n`-th device of a network.
    pub fn device(&mut self, net: Net, profile: Profile, n: u32) -> (Device, DeviceSecrets) {
        let mut did = (0x0242_0000_0000_0000 | u64::from(n)).to_be_bytes();
        did[2..4].copy_from_slice(&(net.0 as u16).to_be_bytes());
        let sid = Sid(0x0101 + n as u16);
        let (policy, overrides) = (Policy::new(profile), Overrides::NONE);
        let new = NewDevice { did: Some(Did(did)), sid: Some(sid), net, policy, overrides, words: None, key: None };
        self.operator.registry.add_device(&self.operator.vault, &new, now_s()).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a rim")]
pub fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// This program again, in another role.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// Starts it, and waits until it says that it is ready.
    pub fn start_ready(args: &[&str]) -> Self {
        let mut process = Self::start(args);
        assert_eq!(process.hear(), "ready");
        process
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "a process of the benchmark ended");
        line.trim().to_owned()
    }

    /// Processor time so far, in seconds.
    pub fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

impl Process {
    /// Resident memory at most so far, in bytes.
    pub fn most_resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    /// Without a warning: what was acknowledged must be in the store all the same.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the process that started this one.
pub fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// The first number of the command line; `or` without one. What else `cargo bench` passes is left alone.
pub fn seconds(or: f64) -> f64 {
    std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(or)
}
