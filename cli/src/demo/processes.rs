//! Processes of the demo: this very program, started again as cloud, gateway, node or attacker, with its words in a log.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// A process that runs until it is told to stop.
#[derive(Debug)]
pub struct Process {
    /// What the demo calls it.
    pub name: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts `fivefold ARGUMENTS`, both outputs going to `folder/NAME.log` (errors to `NAME.err`).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(folder: &Path, name: &str, arguments: Vec<String>) -> anyhow::Result<Self> {
        let mut process = Self::prepare(folder, name, arguments);
        process.resume()?;
        Ok(process)
    }

    /// The same, not started yet.
    pub fn prepare(folder: &Path, name: &str, arguments: Vec<String>) -> Self {
        let log = folder.join(format!("{}.log", name.replace([' ', '/'], "-")));
        Self { name: name.to_owned(), arguments, log, child: None }
    }

    /// Starts it again, with the same words.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let open = |path: &Path| File::options().create(true).append(true).open(path);
        let (out, err) = (open(&self.log)?, open(&self.log.with_extension("err"))?);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(out).stderr(err);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.name))?);
        Ok(())
    }

    /// Starts it again, with another value of an option.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn resume_with(&mut self, option: &str, value: &str) -> anyhow::Result<()> {
        if let Some(at) = self.arguments.iter().position(|a| a == option)
            && let Some(slot) = self.arguments.get_mut(at + 1)
        {
            value.clone_into(slot);
        }
        self.resume()
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it ended by itself, and what it said last.
    pub fn has_died(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        let said = std::fs::read_to_string(self.log.with_extension("err")).unwrap_or_default();
        Some(format!("{} ended ({status}): {}", self.name, said.lines().last().unwrap_or("without a word")))
    }

    /// Asks it to stop (SIGTERM) and waits; kills it after five seconds.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        for _ in 0..250 {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Kills it (SIGKILL), as a power cut would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Lets it run on when the demo ends. Returns its process id, if it runs.
    pub fn leave_running(&mut self) -> Option<u32> {
        self.child.take().map(|child| child.id())
    }

    /// The command line, for people.
    pub fn command_line(&self) -> String {
        format!("fivefold {}", self.arguments.join(" "))
    }

    /// The JSON lines it said from byte `from` of its log on, and where to go on reading.
    pub fn said(&self, from: u64) -> (Vec<Value>, u64) {
        let Ok(mut file) = File::open(&self.log) else { return (Vec::new(), from) };
        let mut text = Vec::new();
        if file.seek(SeekFrom::Start(from)).is_err() || file.read_to_end(&mut text).is_err() {
            return (Vec::new(), from);
        }
        // A line that is still being written is read next time.
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let lines = text.get(..whole).unwrap_or_default().split(|&b| b == b'\n');
        (lines.filter_map(|line| serde_json::from_slice(line).ok()).collect(), from + whole as u64)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that is spoken to: the machine in the middle.
#[derive(Debug)]
pub struct Obedient {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Obedient {
    /// Starts `fivefold ARGUMENTS` with its standard input and output in our hands.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the backhaul")?;
        let orders = child.stdin.take().context("no way to speak to the backhaul")?;
        let answers = BufReader::new(child.stdout.take().context("no way to hear the backhaul")?);
        Ok(Self { child, orders, answers })
    }

    /// Gives an order and returns the answer.
    ///
    /// # Errors
    /// It is gone.
    pub fn order(&mut self, order: &str) -> anyhow::Result<Value> {
        writeln!(self.orders, "{order}").context("the backhaul is gone")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the backhaul is gone")?;
        serde_json::from_str(&line).with_context(|| format!("the backhaul answered `{}` to `{order}`", line.trim()))
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `n` UDP ports on loopback that are free now.
///
/// # Errors
/// The system has none.
pub fn free_udp(n: usize) -> anyhow::Result<Vec<std::net::SocketAddr>> {
    let sockets: Vec<UdpSocket> = (0..n).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?)
}

/// `n` TCP ports on loopback that are free now.
///
/// # Errors
/// The system has none.
pub fn free_tcp(n: usize) -> anyhow::Result<Vec<std::net::SocketAddr>> {
    let sockets: Vec<TcpListener> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(sockets.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}
