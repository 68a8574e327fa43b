//! `fivefold key`: rotation of a network's key (docs/protocol.md 4.3). It goes on by itself; here the operator starts it,
//! looks at it, and has the last word.

mod campaign;

use std::path::PathBuf;
use std::process::ExitCode;

use fivefold_cloud::api::CampaignShown;
use fivefold_core::profile::Profile;
use fivefold_keep::registry::{Network, Why};
use fivefold_keep::rotation::{DRAIN_S, Rotation, SWITCH_AT, Stage};
use serde_json::{Value, json};

use crate::clock;
use crate::operator::Folder;
use crate::output::{Output, answer};
use crate::reading::Cloud;
use campaign::Listing;

/// Arguments of `fivefold key`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Nothing goes on by itself, and nobody is handed the new key.
    Pause(Which),
    /// Give up the key before: seven days after the switch it goes by itself. Gateways keep it in recovery for 30 days.
    Retire(Retire),
    /// Go on after a pause.
    Resume(Which),
    /// Go back to the key before. The new one is given up when nobody sends under it any more.
    Rollback(Which),
    /// Draw a new network key, and hand it to every device of the network that is not revoked, under E3 or E2.
    Rotate(Which),
    /// Show where the rotation of a network stands, and with a token which devices are late, and why.
    Show(Show),
    /// Send under the new key now: it switches by itself when 95 of 100 devices have it. Those who have it not yet are
    /// heard and handed it until the key before is retired.
    Switch(Which),
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    folder: Folder,
    /// The network: its name or id.
    #[arg(long)]
    network: String,
}

#[derive(Clone, Debug, clap::Args)]
struct Retire {
    #[command(flatten)]
    which: Which,
    /// Before the seven days are over. Whoever does not send under the new key by then is cut off.
    #[arg(long)]
    now: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    which: Which,
    /// All devices, not only those who are late.
    #[arg(long)]
    all: bool,
    /// The cloud's API, if not where the folder says.
    #[arg(long, env = "FIVEFOLD_API", value_name = "URL")]
    api: Option<String>,
    /// File with a token, made by: fivefold token add NAME > FILE.
    #[arg(long, env = "FIVEFOLD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The book refuses, or the cloud cannot be asked.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let now = clock::now()?;
    match &args.verb {
        Verb::Pause(which) => step(which, output, Rotation::paused)?,
        Verb::Resume(which) => step(which, output, Rotation::resumed)?,
        Verb::Retire(retire) => {
            let (_, registry) = retire.which.folder.open_book()?;
            let network = registry.network(&retire.which.network)?;
            if let Some(rotation) = registry.rotation(network.net)?.filter(|_| !retire.now) {
                check_retire(&rotation, &network, now)?;
            }
            step(&retire.which, output, |r| r.retired(now))?;
        }
        Verb::Rollback(which) => step(which, output, |r| r.rolled_back(now))?,
        Verb::Switch(which) => step(which, output, |r| r.switched(now))?,
        Verb::Rotate(which) => {
            let mut operator = which.folder.open()?;
            let network = operator.registry.network(&which.network)?;
            check_rotate(&network)?;
            let rotation = operator.registry.rotate_network_key(&operator.vault, network.net, Why::Planned, now)?;
            tell(output, &network, Some(&rotation));
        }
        Verb::Show(show) => look(show, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn step(
    which: &Which,
    output: Output,
    step: impl FnOnce(&Rotation) -> Result<Rotation, fivefold_keep::rotation::NotNow>,
) -> anyhow::Result<()> {
    let (_, mut registry) = which.folder.open_book()?;
    let network = registry.network(&which.network)?;
    let rotation = registry.step_rotation(network.net, step)?;
    tell(output, &network, Some(&rotation));
    Ok(())
}

/// Whether a network's key can be handed out at all.
///
/// # Errors
/// What to do instead.
pub fn check_rotate(network: &Network) -> anyhow::Result<()> {
    anyhow::ensure!(
        network.profile != Profile::DangerLinkOnly,
        "network {} is {}: nothing protects a new key on its way to its devices; make a network with E2 or E3 \
         (fivefold network add) and enrol them there by cable (fivefold device add)",
        network.name,
        network.profile
    );
    Ok(())
}

/// Whether nobody is cut off.
fn check_retire(rotation: &Rotation, network: &Network, now: u64) -> anyhow::Result<()> {
    let by = rotation.since().saturating_add(DRAIN_S);
    let is_early = matches!(rotation.stage(), Stage::Draining | Stage::RollingBack) && now < by;
    anyhow::ensure!(
        !is_early,
        "the key before goes by itself at {}; whoever does not send under the other by now would be cut off: see \
         fivefold key show --network {}, or add --now",
        clock::minute(by),
        network.name
    );
    Ok(())
}

/// The book's side, and the cloud's if there is a token to ask it with.
fn look(show: &Show, output: Output) -> anyhow::Result<()> {
    let (_, registry) = show.which.folder.open_book()?;
    let network = registry.network(&show.which.network)?;
    let rotation = registry.rotation(network.net)?;
    let dir = show.which.folder.dir.clone();
    let has_token = show.token_file.is_some() || std::env::var("FIVEFOLD_TOKEN").is_ok();
    if rotation.is_none() || !has_token {
        let hint = || match rotation {
            Some(_) => format!(
                "\nWhich devices are late, and why: add --token-file FILE, made by: fivefold token add --dir {} NAME",
                dir.display()
            ),
            None => String::new(),
        };
        answer(output, &json_of(&network, rotation.as_ref()), || text_of(&network, rotation.as_ref()) + &hint());
        return Ok(());
    }
    let cloud = Cloud { dir: dir.clone(), api: show.api.clone(), token_file: show.token_file.clone() };
    let listing = if show.all { Listing::All } else { Listing::Late };
    let all = if show.all { "?all=true" } else { "" };
    let fetched = cloud.connect()?.fetch(&format!("/v1/networks/{}/rotation{all}", network.net))?;
    let mut whole = json_of(&network, rotation.as_ref());
    let shown: CampaignShown = serde_json::from_value(fetched.clone())?;
    if let Some(object) = whole.as_object_mut() {
        object.insert("campaign".into(), fetched);
    }
    answer(output, &whole, || {
        let head = text_of(&network, rotation.as_ref());
        format!("{head}\n{}", campaign::text(&shown, listing, &dir.display().to_string()))
    });
    Ok(())
}

fn tell(output: Output, network: &Network, rotation: Option<&Rotation>) {
    answer(output, &json_of(network, rotation), || text_of(network, rotation));
}

/// A rotation in two lines, out of the book alone.
pub fn text_of(network: &Network, rotation: Option<&Rotation>) -> String {
    let Some(r) = rotation else { return format!("The key of network {} was never rotated.", network.name) };
    let by = clock::minute(r.since().saturating_add(DRAIN_S));
    let next = match (r.stage(), r.is_paused) {
        (Stage::Done, _) if r.starts_over => "another rotation, for somebody was revoked meanwhile".into(),
        (Stage::Done, _) => "nothing, the rotation is over".into(),
        (_, true) => "nothing goes on by itself; go on with: fivefold key resume".into(),
        (Stage::HandingOut, _) => format!("it switches by itself when {SWITCH_AT} of 100 devices have it"),
        (Stage::Draining, _) if r.is_urgent => {
            format!("the key before goes when nobody needs it, or at {by}")
        }
        (Stage::Draining, _) => format!("the key before is retired at {by}"),
        (Stage::RollingBack, _) => format!("over when nobody sends under key {}, or at {by}", r.index),
    };
    let shut_out = match r.stage() {
        Stage::RollingBack if r.is_urgent => "\nWhoever was to be shut out keeps the key that is gone back to.",
        _ => "",
    };
    format!(
        "Network {}: key {} follows key {}, {} since {}.\nNext: {next}{shut_out}",
        network.name,
        r.index,
        r.previous,
        r.stage(),
        clock::minute(r.since())
    )
}

/// The same for programs.
pub fn json_of(network: &Network, rotation: Option<&Rotation>) -> Value {
    let rotation = rotation.map(|r| {
        json!({
            "previous": r.previous, "index": r.index, "stage": r.stage().as_str(), "since": r.since(),
            "paused": r.is_paused, "urgent": r.is_urgent, "starts_over": r.starts_over, "started_at": r.started_at,
            "switched_at": r.switched_at, "rolled_back_at": r.rolled_back_at, "retired_at": r.retired_at,
        })
    });
    json!({ "network": network.name, "net": network.net.to_string(), "levels": network.profile.as_str(), "rotation": rotation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_core::id::{GatewayGroup, Net};

    fn network(profile: Profile) -> Network {
        Network { net: Net(7), name: "field-7".into(), pan: 1, profile, group: GatewayGroup(7), override_words: None }
    }

    #[test]
    fn only_a_network_with_e1_alone_cannot_hand_out_keys_and_is_told_what_to_do() {
        let can: Vec<_> = Profile::ALL.into_iter().filter(|p| check_rotate(&network(*p)).is_ok()).collect();
        assert_eq!(can.len(), 3);
        let refused = check_rotate(&network(Profile::DangerLinkOnly)).unwrap_err().to_string();
        assert!(refused.contains("fivefold network add") && refused.contains("by cable"), "{refused}");
    }

    #[test]
    fn an_early_end_wants_a_word_more() {
        let (network, start) = (network(Profile::ToCloud), 1_790_000_000);
        let draining = Rotation::begin(Net(7), 1, 2, start).switched(start).unwrap();
        assert!(check_retire(&draining, &network, start + DRAIN_S).is_ok());
        let refused = check_retire(&draining, &network, start + 1).unwrap_err().to_string();
        assert!(refused.contains("--now") && refused.contains("fivefold key show"), "{refused}");
    }

    #[test]
    fn every_stage_says_what_comes_next() {
        let handing_out = Rotation::begin(Net(7), 1, 2, 1_790_000_000);
        let draining = handing_out.switched(1_790_000_100).unwrap();
        let back = Rotation { is_urgent: true, ..draining.rolled_back(1_790_000_200).unwrap() };
        let over = draining.retired(1_790_000_300).unwrap();
        let paused = handing_out.paused().unwrap();
        for (rotation, says) in [
            (handing_out, "95 of 100"),
            (draining, "retired at 2026-"),
            (back, "keeps the key"),
            (over, "is over"),
            (paused, "key resume"),
        ] {
            let text = text_of(&network(Profile::ToCloud), Some(&rotation));
            assert!(text.contains(says) && text.lines().all(|l| l.len() <= 80), "{text}");
        }
    }
}
