//! `fivefold why`: why something was refused: which check, what was expected, what came, what to do now.

mod capture;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::suite::CiphertextHash;
use fivefold_core::why::FrameId;
use fivefold_core::wire::coap::{Outer, Protected};
use fivefold_core::wire::ieee802154::append_fcs;
use fivefold_core::wire::tiny::{KidLength, Tiny};
use fivefold_gateway::config::Config;
use fivefold_gateway::daemon::wall_clock;
use fivefold_gateway::spool::SpoolReader;
use fivefold_keep::why::{Kept, MOST, Question};
use serde_json::{Value, json};

use crate::api::Api;
use crate::clock;
use crate::output::{Output, answer};
use crate::reading::{Cloud, is_gateway};

/// Bytes of a capture file, at most.
const CAPTURE: u64 = 256 << 20;

/// Arguments of `fivefold why`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A frame in hex, a capture file with frames, the id of a refusal (16 hex digits), or a code; without one, what was
    /// refused last.
    #[arg(value_name = "FRAME-OR-ID")]
    what: Option<String>,
    #[command(flatten)]
    cloud: Cloud,
    /// Of who has or claims this short id alone: 4 hex digits.
    #[arg(long, value_name = "SID")]
    sid: Option<Sid>,
    /// How many, at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    limit: u32,
}

/// What is asked about.
enum What {
    All,
    Code(Code),
    /// A message may have more than one name: as it came over the radio, and as the cloud calls what is in it.
    Frames(Vec<Vec<FrameId>>),
    Id(FrameId),
}

/// Who knows.
enum Source {
    Cloud(Api),
    Gateway(SpoolReader),
    /// A gateway that has refused nothing yet, for it never ran.
    Nobody,
}

/// Runs the command. Exit code 1: nothing is known of it.
///
/// # Errors
/// The question is none, or who knows cannot be asked.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let what = What::parse(args.what.as_deref())?;
    let code = match what {
        What::Code(code) => Some(code),
        _ => None,
    };
    // What a code is about is known without anybody.
    let kept = match (open(&args.cloud), code) {
        (Ok(source), _) => ask(&source, &what, args)?,
        (Err(_), Some(_)) if args.cloud.token_file.is_none() && args.cloud.api.is_none() => Vec::new(),
        (Err(why), _) => return Err(why),
    };
    let shown: Vec<Value> = kept.iter().map(refusal).collect();
    answer(output, &json!({ "code": code.map(of_code), "refusals": shown }), || text(code, &kept));
    Ok(if code.is_some() || !kept.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl What {
    fn parse(text: Option<&str>) -> anyhow::Result<Self> {
        let Some(text) = text else { return Ok(Self::All) };
        if let Ok(code) = text.to_uppercase().parse() {
            return Ok(Self::Code(code));
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let file = Path::new(text);
        if file.is_file() {
            let size = file.metadata().with_context(|| format!("cannot read {text}"))?.len();
            anyhow::ensure!(size <= CAPTURE, "{text} has more than {CAPTURE} bytes: cut it, for example with editcap");
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {text}"))?;
            let frames = capture::frames(&bytes).with_context(|| {
                format!("{text} is no capture: pcap or pcapng of 802.15.4 or IP, as --pcap writes it")
            })?;
            anyhow::ensure!(!frames.is_empty(), "there is no frame in {text}");
            return Ok(Self::Frames(frames.iter().map(|frame| names(frame)).collect()));
        }
        let hex: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
        let frame = hex::decode(&hex).ok().filter(|frame| !frame.is_empty()).with_context(|| {
            format!("`{text}` is no frame in hex, no capture file, no id of 16 hex digits and no code like E1-05")
        })?;
        Ok(Self::Frames(vec![names(&frame)]))
    }
}

/// What a frame may be called: as it is, with the check sequence that a sniffer left out, and by the C3 message in it.
fn names(frame: &[u8]) -> Vec<FrameId> {
    let mut names = vec![FrameId::of(frame)];
    let mut checked = [frame, &[0; 2]].concat();
    if append_fcs(&mut checked, frame.len()).is_ok() {
        names.push(FrameId::of(&checked));
    }
    if let Ok(message) = Protected::parse_request(frame, Outer::StockClient) {
        names.push(CiphertextHash::of(message.ciphertext).into());
    }
    for kid in [KidLength::None, KidLength::Two] {
        if let Ok(Tiny::Request { ciphertext, .. }) = Tiny::parse(frame, kid) {
            names.push(CiphertextHash::of(ciphertext).into());
        }
    }
    names
}

fn open(cloud: &Cloud) -> anyhow::Result<Source> {
    if !is_gateway(&cloud.dir) {
        return Ok(Source::Cloud(cloud.connect()?));
    }
    let config = Config::read(&cloud.dir, wall_clock())?;
    Ok(SpoolReader::open(&config.store)?.map_or(Source::Nobody, Source::Gateway))
}

fn ask(source: &Source, what: &What, args: &Args) -> anyhow::Result<Vec<Kept>> {
    let all = Question { id: None, code: None, sid: args.sid, limit: args.limit };
    match what {
        What::All => source.ask(&all),
        What::Code(code) => source.ask(&Question { code: Some(*code), ..all }),
        What::Id(id) => source.ask(&Question { id: Some(*id), ..all }),
        What::Frames(frames) => {
            let mut kept = Vec::new();
            // Of a long capture all that is kept is asked for at once.
            let known = match frames.len() {
                1..=8 => None,
                _ => Some(source.ask(&Question { limit: MOST, ..all })?),
            };
            for names in frames {
                match &known {
                    None => {
                        for id in names {
                            kept.extend(source.ask(&Question { id: Some(*id), ..all })?);
                        }
                    }
                    Some(known) => {
                        let names: Vec<String> = names.iter().map(FrameId::to_string).collect();
                        kept.extend(known.iter().filter(|k| names.contains(&k.id)).cloned());
                    }
                }
            }
            kept.sort_by(|a, b| (b.at_ms, &a.id).cmp(&(a.at_ms, &b.id)));
            kept.dedup();
            kept.truncate(args.limit as usize);
            Ok(kept)
        }
    }
}

impl Source {
    fn ask(&self, question: &Question) -> anyhow::Result<Vec<Kept>> {
        match self {
            Self::Nobody => Ok(Vec::new()),
            Self::Gateway(reader) => Ok(reader.why(question)?),
            Self::Cloud(api) => {
                let Question { id, code, sid, limit } = question;
                let one = |key: &str, value: Option<String>| value.map(|v| format!("&{key}={v}")).unwrap_or_default();
                let (id, sid) = (one("id", id.map(|v| v.to_string())), one("sid", sid.map(|v| v.to_string())));
                let code = one("code", code.map(|v| v.to_string()));
                Ok(serde_json::from_value(api.fetch(&format!("/v1/why?limit={limit}{id}{code}{sid}"))?)?)
            }
        }
    }
}

fn of_code(code: Code) -> Value {
    let about = code.about();
    json!({
        "code": code.as_str(),
        "severity": code.severity().as_str(),
        "condition": code.condition(),
        "check": about.check,
        "expected": about.expected,
        "came": about.came,
        "advice": about.advice,
    })
}

fn refusal(kept: &Kept) -> Value {
    let about = kept.code.parse::<Code>().ok().map(Code::about);
    let mut value = json!(kept);
    if let (Some(object), Some(about)) = (value.as_object_mut(), about) {
        object.insert("check".to_owned(), json!(about.check));
        object.insert("advice".to_owned(), json!(about.advice));
    }
    value
}

fn text(code: Option<Code>, kept: &[Kept]) -> String {
    let mut parts = Vec::new();
    if let Some(code) = code {
        let about = code.about();
        parts.push(format!(
            "{code}  {}  ({})\n  check     {}\n  expected  {}\n  refused   {}\n  do now    {}",
            code.condition(),
            code.severity().as_str(),
            about.check,
            about.expected,
            about.came,
            about.advice
        ));
    }
    for k in kept {
        let about = k.code.parse::<Code>().ok().map(Code::about);
        let (check, advice) = about.map_or(("unknown here", "use the newer program"), |a| (a.check, a.advice));
        let who: String = [("network", &k.net), ("gateway", &k.gateway), ("short id", &k.sid)]
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!(", {name} {value}")))
            .collect();
        parts.push(format!(
            "{}  {}  {}{who}\n  check     {check}\n  reason    {}\n  expected  {}\n  came      {}\n  do now    {advice}",
            k.id,
            clock::text(k.at_ms / 1000),
            k.code,
            k.reason,
            k.expected,
            k.came,
        ));
    }
    if parts.is_empty() {
        "Nothing is known of it here: it was not refused, or long ago, or in a flood of which a sample is kept. A gateway \
         keeps a day (--dir GATEWAY-FOLDER), the cloud a week (--token-file FILE)."
            .to_owned()
    } else {
        parts.join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_code_an_id_or_a_frame_and_else_says_what_it_may_be() {
        assert!(matches!(What::parse(Some("e1-05")).unwrap(), What::Code(Code::LinkForged)));
        assert!(matches!(What::parse(Some("00112233445566ff")).unwrap(), What::Id(_)));
        assert!(matches!(What::parse(None).unwrap(), What::All));
        for frame in ["49 98:01", "499801"] {
            let What::Frames(frames) = What::parse(Some(frame)).unwrap() else { panic!("{frame}") };
            assert_eq!(frames[0][0], FrameId::of(&[0x49, 0x98, 1]));
        }
        for nothing in ["", "E9-99", "no-such-file.pcapng", "4"] {
            let why = What::parse(Some(nothing)).err().unwrap().to_string();
            assert!(why.contains("no frame in hex"), "{why}");
        }
    }

    #[test]
    fn a_frame_without_its_check_sequence_has_the_name_of_the_whole_one() {
        let mut whole = [&[0x49, 0x98, 1, 2, 3][..], &[0; 2]].concat();
        append_fcs(&mut whole, 5).unwrap();
        assert!(names(&whole[..5]).contains(&FrameId::of(&whole)));
    }

    #[test]
    fn advice_names_commands_that_there_are() {
        let commands = crate::commands();
        for code in Code::ALL {
            for quoted in code.about().advice.split('`').skip(1).step_by(2) {
                let Some(words) = quoted.strip_prefix("fivefold ") else { continue };
                let known = |c: &String| words == c || words.starts_with(&format!("{c} "));
                assert!(commands.iter().any(known) || words == "audit", "{code}: `{quoted}`");
            }
        }
    }
}
