//! The other end of the node that scripts/classic-node.sh runs on a simulated ATmega1281.
//!
//! ```text
//! classic_node scene          prints the C header of the scene: what the node is given, and what it hears, sealed here
//! classic_node check FILE     opens what the node wrote to its serial port, and fails unless all of it is right
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::process::ExitCode;

use fivefold_waspmote::hardened::{
    ANSWER, Answer, Epoch, Key, LONGEST, Lease, Number, OVERHEAD, Peer, Sealed, Window, Wish, seal,
};
use fivefold_waspmote::key_message::{Assembly, Cut, LONGEST_FRAME, Part};
use fivefold_waspmote::{Frame, Serial};
use serde_json::Value;

/// Bytes of the frames that are sealed: those of the vendor's table, and the longest.
const SIZES: [usize; 6] = [32, 48, 64, 96, 128, LONGEST - OVERHEAD];
/// Room of the frames of a key message: what an 802.15.4 module carries.
const ROOM: usize = 100;
const ID: u8 = 0x51;
const TIME: u32 = 1_795_651_200;
const PEER: Peer = Peer::Cloud;

/// One key message of vectors/key-message.json, whose randomness and answer are known, and what goes before and after it.
struct Scene {
    serial: [u8; 8],
    epoch: u32,
    key: [u8; 32],
    next_key: [u8; 32],
    seed: [u8; 4],
    random: Vec<u8>,
    modulus: Vec<u8>,
    server: Vec<u8>,
    enrolment_key: Vec<u8>,
    kr1: Vec<u8>,
    kr2: Vec<u8>,
}

fn hex_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn named<'b>(cases: &'b Value, field: &str, name: &str) -> &'b Value {
    cases.as_array().unwrap().iter().find(|case| case[field] == name).unwrap()
}

impl Scene {
    fn load() -> Self {
        let book: Value = serde_json::from_str(include_str!("../../vectors/key-message.json")).unwrap();
        let case = named(&book["accepted"], "id", "mac-2048");
        let server = named(&book["keys"], "name", case["server"].as_str().unwrap());
        let kr1 = hex_of(&case["kr1"]);
        let (seed, next_key) = (hex_of(&case["seed"]), hex_of(&case["newkey"]));
        // An SPKI ends in the modulus, an INTEGER of 257 bytes whose first is 00, and the exponent 65537.
        let spki = hex_of(&server["spki"]);
        let modulus = spki.strip_suffix(&[2, 3, 1, 0, 1]).unwrap().last_chunk::<256>().unwrap();
        Self {
            serial: kr1[6..14].try_into().unwrap(),
            epoch: u32::try_from(case["epoch"].as_u64().unwrap() - 1).unwrap(),
            key: core::array::from_fn(|n| 0x10 + n as u8),
            next_key: next_key.clone().try_into().unwrap(),
            seed: [0xD1, 0xCE, 0x00, 0x01],
            random: [hex_of(&case["oaep_seed"]), seed, next_key].concat(),
            modulus: modulus.to_vec(),
            server: hex_of(&server["kid"]),
            enrolment_key: hex_of(&book["enrolment_key"]),
            kr1,
            kr2: hex_of(&case["kr2"]),
        }
    }

    /// A binary frame of so many bytes: the node's buffer, cut, with another N.
    fn clear(&self, bytes: usize) -> Vec<u8> {
        let mut frame = [&b"<=>\x06\0"[..], &self.serial, b"plant1#\x07"].concat();
        let filler = (0..).map(|n: usize| (n * 7) as u8);
        frame.extend(filler.take(bytes - frame.len()));
        frame[4] = u8::try_from(bytes - 5).unwrap();
        frame
    }

    /// The answer to a frame that the node is going to seal, sealed by this crate.
    fn answer(&self, sequence: u32, bytes: usize) -> [u8; ANSWER] {
        let number = Number { epoch: Epoch(self.epoch), sequence, seed: self.seed };
        let (key, mut out) = (Key::from_bytes(self.key), [0; LONGEST]);
        let len = seal(PEER, &key, &number, &self.clear(bytes), &mut out).unwrap();
        let opened = Sealed::parse(&out[..len]).unwrap().open(&key).unwrap();
        Answer { wish: Wish::Renew, time: TIME }.seal(PEER, &self.serial, &opened, &key).unwrap()
    }

    fn kr2_frame(&self) -> Vec<u8> {
        let cut = Cut::new(self.serial, 1, &self.kr2, ROOM).unwrap();
        let mut out = [0; LONGEST_FRAME];
        let len = cut.part(0).unwrap().emit(&mut out).unwrap();
        out[..len].to_vec()
    }
}

fn print_scene() {
    let scene = Scene::load();
    let mut out =
        String::from("/* Made by the example classic_node of fivefold-waspmote. */\n#include <avr/pgmspace.h>\n");
    let mut array = |name: &str, bytes: &[u8]| {
        write!(out, "static const uint8_t {name}[{}] PROGMEM = {{", bytes.len()).unwrap();
        for byte in bytes {
            write!(out, "{byte},").unwrap();
        }
        out.push_str("};\n");
    };
    array("SERIAL", &scene.serial);
    array("KEY", &scene.key);
    array("SEED", &scene.seed);
    array("RANDOM", &scene.random);
    array("MODULUS", &scene.modulus);
    array("SERVER", &scene.server);
    array("ENROLMENT_KEY", &scene.enrolment_key);
    array("CLEAR", &scene.clear(LONGEST - OVERHEAD));
    array("ANSWER", &scene.answer(SIZES.len() as u32 - 1, LONGEST - OVERHEAD));
    array("KR2", &scene.kr2_frame());
    array("SIZES", &SIZES.map(|size| u8::try_from(size).unwrap()));
    writeln!(out, "#define EPOCH {}UL\n#define ID {ID}\n#define ROOM {ROOM}\n#define TIME {TIME}UL", scene.epoch)
        .unwrap();
    print!("{out}");
}

/// Counts what is right; says what is not.
#[derive(Default)]
struct Tally {
    right: usize,
    wrong: usize,
}

impl Tally {
    fn hold(&mut self, what: &str, right: bool) {
        if right {
            self.right += 1;
        } else {
            self.wrong += 1;
            eprintln!("classic_node: {what}");
        }
    }
}

/// Opens the frames, and holds contents and numbers to the scene.
fn check_frames(tally: &mut Tally, scene: &Scene, frames: &[Vec<u8>]) {
    tally.hold("another number of frames than the scene has", frames.len() == SIZES.len() + 2);
    let mut window = Window::new();
    let mut numbers = Vec::new();
    for (n, frame) in frames.iter().enumerate() {
        // The last was sealed after the renewal, the one before it after a boot.
        let renewed = n == SIZES.len() + 1;
        let (key, epoch) = if renewed { (scene.next_key, scene.epoch + 1) } else { (scene.key, scene.epoch) };
        let size = SIZES.get(n).copied().unwrap_or(SIZES[0]);
        let Ok(Frame::Hardened(whole)) = Frame::parse(frame) else {
            tally.hold(&format!("frame {n} is no hardened frame"), false);
            continue;
        };
        let sealed = Sealed::parse(whole).unwrap();
        let from = (sealed.peer, sealed.serial()) == (PEER, Serial::V15(scene.serial));
        tally.hold(&format!("frame {n}: another peer or serial"), from);
        match sealed.open(&Key::from_bytes(key)) {
            Ok(opened) => {
                let number = opened.number();
                tally.hold(&format!("frame {n}: another content"), opened.frame() == scene.clear(size));
                let right = (number.epoch, number.seed) == (Epoch(epoch), scene.seed);
                tally.hold(&format!("frame {n}: another epoch or seed"), right);
                let fresh = window.check(number.sequence).map(|fresh| window.mark(fresh));
                tally.hold(&format!("frame {n}: number {} again", number.sequence), fresh.is_ok());
                numbers.push(number.sequence);
            }
            Err(why) => tally.hold(&format!("frame {n} does not open: {why}"), false),
        }
    }
    let mut expected: Vec<u32> = (0..SIZES.len() as u32).collect();
    // After each of the two boots it goes on at the end of the lease.
    expected.extend([Lease::BLOCK, 2 * Lease::BLOCK]);
    tally.hold(&format!("the numbers are {numbers:?}"), numbers == expected);
}

fn check(text: &str) -> ExitCode {
    let scene = Scene::load();
    let mut tally = Tally::default();
    let text = text.replace("\nmore ", "");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let last = |word: &str| -> Vec<&str> {
        lines.iter().filter(|line| line.first() == Some(&word)).filter_map(|line| line.last().copied()).collect()
    };
    let of = |word: &str| last(word).into_iter().map(|hex| hex::decode(hex).unwrap_or_default()).collect::<Vec<_>>();

    check_frames(&mut tally, &scene, &of("frame"));
    let mut assembly = Assembly::new();
    let mut message = None;
    for frame in of("part") {
        let part = Part::parse(&frame);
        tally.hold("a part is no part", part.is_ok_and(|part| part.serial == scene.serial && part.id == ID));
        message = message.or(part.ok().and_then(|part| assembly.take(&part).unwrap_or_default()));
    }
    tally.hold("KR1 is not the one of vectors/key-message.json", message.as_ref() == Some(&scene.kr1));
    for word in ["no-key", "forged-answer", "answer", "answer-again", "kr1-again", "forged-kr2", "kr2", "kr2-again"] {
        let said = last(word);
        tally.hold(&format!("{word}: the node says {said:?}"), said == ["right"]);
    }
    println!("{} values are right, {} wrong", tally.right, tally.wrong);
    if tally.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["scene"] => {
            print_scene();
            ExitCode::SUCCESS
        }
        ["check", file] => match std::fs::read_to_string(file) {
            Ok(text) => check(&text),
            Err(why) => {
                eprintln!("classic_node: {file}: {why}");
                ExitCode::from(2)
            }
        },
        _ => {
            eprintln!("usage: classic_node scene | check FILE");
            ExitCode::from(2)
        }
    }
}
