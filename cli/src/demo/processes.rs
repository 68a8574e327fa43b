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
    /// Where it finds its credentials.
    credentials: Option<PathBuf>,
    life: Life,
}

/// Names the folder in which a service finds its credentials.
pub const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Whether a process runs, and whose child it is.
#[derive(Debug)]
enum Life {
    None,
    Child(Child),
    /// Somebody else's, by its id: it is ended only when it is told to, and goes on when this one ends.
    Found(u32),
}

impl Life {
    fn id(&self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Child(child) => Some(child.id()),
            Self::Found(id) => Some(*id),
        }
    }

    fn is_over(&mut self) -> bool {
        match self {
            Self::None => true,
            Self::Child(child) => matches!(child.try_wait(), Ok(Some(_))),
            Self::Found(id) => !is_alive(*id),
        }
    }
}

/// Whether there is a process of this id that does something: one whose parent has not looked yet is over.
fn is_alive(id: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn tell(signal: &str, id: u32) {
    let _ = Command::new("kill").args([signal, &id.to_string()]).status();
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
        Self { name: name.to_owned(), arguments, log, credentials: None, life: Life::None }
    }

    /// One that somebody else started, with these words and this log.
    pub fn found(name: &str, id: u32, arguments: Vec<String>, log: PathBuf) -> Self {
        Self { name: name.to_owned(), arguments, log, credentials: None, life: Life::Found(id) }
    }

    /// The same, which finds its credentials in this folder.
    #[must_use]
    pub fn with_credentials(mut self, folder: Option<&Path>) -> Self {
        self.credentials = folder.map(Path::to_owned);
        self
    }

    /// Where it finds its credentials.
    pub fn credentials(&self) -> Option<&Path> {
        self.credentials.as_deref()
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
        command.envs(self.credentials.iter().map(|folder| (CREDENTIALS, folder)));
        self.life = Life::Child(command.spawn().with_context(|| format!("cannot start {}", self.name))?);
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
        self.life.id()
    }

    /// Whether it ended by itself, and what it said last.
    pub fn has_died(&mut self) -> Option<String> {
        let status = match &mut self.life {
            Life::None => return None,
            Life::Child(child) => child.try_wait().ok()??.to_string(),
            Life::Found(id) if is_alive(*id) => return None,
            Life::Found(id) => format!("process {id}"),
        };
        let said = std::fs::read_to_string(self.log.with_extension("err")).unwrap_or_default();
        Some(format!("{} ended ({status}): {}", self.name, said.lines().last().unwrap_or("without a word")))
    }

    /// Asks it to stop (SIGTERM) and waits; kills it after five seconds.
    pub fn stop(&mut self) {
        self.end(&["-TERM", "-KILL"]);
    }

    /// Kills it (SIGKILL), as a power cut would.
    pub fn kill(&mut self) {
        self.end(&["-KILL"]);
    }

    /// Tells it so, one way after the other, until it is over.
    fn end(&mut self, signals: &[&str]) {
        let mut life = std::mem::replace(&mut self.life, Life::None);
        let Some(id) = life.id() else { return };
        for signal in signals {
            // Whoever is over and waited for has given its id back.
            if life.is_over() {
                return;
            }
            tell(signal, id);
            for _ in 0..500 {
                if life.is_over() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Lets it run on when this one ends. Returns its process id, if it runs.
    pub fn leave_running(&mut self) -> Option<u32> {
        std::mem::replace(&mut self.life, Life::None).id()
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
        if !matches!(self.life, Life::Found(_)) {
            self.kill();
        }
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
