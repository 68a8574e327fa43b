//! How far the rotation of a network's key has come, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use fivefold_core::time::Millis;
use fivefold_keep::rotation::Place;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Answer, Problem};
use crate::book::Book;
use crate::campaign::Member;
use crate::clock;
use crate::service::Service;

/// A gateway says at least once a minute that it is there, in milliseconds.
const SILENCE: u64 = 3 * 60_000;

/// A rotation and its devices. Times are Unix seconds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CampaignShown {
    /// Network, 8 hex digits.
    pub net: String,
    /// Its name.
    pub network: String,
    /// Index of the key before.
    pub previous: u8,
    /// Index of the new key.
    pub index: u8,
    /// `handing out`, `draining`, `rolling back` or `done`.
    pub stage: String,
    /// Since when.
    pub since: u64,
    /// Nothing goes on by itself.
    pub paused: bool,
    /// Somebody is to be shut out: it does not wait seven days where nobody needs them.
    pub urgent: bool,
    /// When it is over, another one begins.
    pub starts_over: bool,
    /// Devices that count: not revoked, on a radio with E1 of ours.
    pub devices: usize,
    /// Of these, so many have not said that they have the new key.
    pub not_told: usize,
    /// Have it, and send under the key before.
    pub has_it: usize,
    /// Send under it, and take frames under the key before.
    pub sends_under_it: usize,
    /// Have it alone.
    pub gave_up_the_old: usize,
    /// Are not where this stage wants them.
    pub late: usize,
    /// Devices that were revoked since it began and may know the key that is left: rotate once more.
    pub known_outside: Vec<String>,
    /// Gateways of the network that were not heard for minutes: they may not know of the rotation's last step.
    pub gateways_away: Vec<GatewayAway>,
    /// Those who are late, or all if asked for, by short id.
    pub members: Vec<MemberShown>,
}

/// A gateway that is not there.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GatewayAway {
    /// Its name.
    pub name: String,
    /// When it was heard last since the cloud was started, Unix seconds.
    pub heard: Option<u64>,
}

/// A device in a rotation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MemberShown {
    /// EUI-64, 16 hex digits.
    pub device: String,
    /// Short id, 4 hex digits.
    pub sid: String,
    /// `not-told`, `has-it`, `sends-under-it` or `gave-up-the-old`.
    pub place: String,
    /// Since when, Unix seconds.
    pub since: u64,
    /// Why it is late: `never-heard`, `silent`, `sleeps`, `refused`, `no-downlink`, `unanswered`, `being-told`, `paused`;
    /// null if it is not.
    pub why: Option<String>,
    /// The moment that the reason is about: heard last, refused last, told first.
    pub why_at: Option<u64>,
    /// The reason in words.
    pub because: Option<String>,
}

/// A place in a word for programs.
const fn place(place: Place) -> &'static str {
    match place {
        Place::Without => "not-told",
        Place::Has => "has-it",
        Place::Sends => "sends-under-it",
        Place::GaveUp => "gave-up-the-old",
    }
}

impl MemberShown {
    fn of(m: &Member) -> Self {
        Self {
            device: m.did.to_string(),
            sid: m.sid.to_string(),
            place: place(m.place).into(),
            since: m.since.0 / 1000,
            why: m.late.map(|w| w.as_str().into()),
            why_at: m.late.and_then(|w| w.at()).map(|at| at.0 / 1000),
            because: m.late.map(|w| w.to_string()),
        }
    }
}

/// Which devices are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// `true` for all; else those who are late.
    all: Option<bool>,
}

/// The last rotation of a network's key: where it stands, who is late, and why.
#[utoipa::path(get, path = "/v1/networks/{net}/rotation",
    params(("net" = String, Path, description = "The network: its id, 8 hex digits, or its name"), Which), responses(
    (status = 200, body = CampaignShown), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn rotation(
    State(service): State<Arc<Service>>,
    Path(net): Path<String>,
    Query(which): Query<Which>,
) -> Answer<CampaignShown> {
    let shown = tokio::task::spawn_blocking(move || show(&service, &net, which.all == Some(true), clock::now())).await;
    shown.unwrap_or_else(|error| {
        let bug = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "this is our fault; it is in the log");
        Err(Problem { private: Some(error.to_string()), ..bug })
    })
}

fn show(service: &Service, net: &str, all: bool, now: Millis) -> Answer<CampaignShown> {
    let missing = |code, public: String| Problem::new(StatusCode::NOT_FOUND, code, public);
    let book = service.cloud.book();
    let network = book.networks.iter().find(|n| n.name == net || n.net.to_string() == net);
    let network = network.ok_or_else(|| missing("unknown-network", format!("no network `{net}`")))?;
    let link = book.rotations.get(&network.net);
    let link =
        link.ok_or_else(|| missing("never-rotated", format!("the key of {} was never rotated", network.name)))?;
    let campaign = service.campaign(&book, link, now)?;
    let (r, count) = (&campaign.rotation, &campaign.count);
    let members = campaign.members.iter().filter(|m| all || m.late.is_some()).map(MemberShown::of).collect();
    let known_outside = service.known_outside(r).map_err(|error| {
        let public = "the registry cannot be read now; try again later";
        Problem {
            private: Some(error.to_string()),
            ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "registry", public)
        }
    })?;
    let at = |p: Place| count.at.get(p as usize).copied().unwrap_or(0);
    Ok(Json(CampaignShown {
        net: network.net.to_string(),
        network: network.name.clone(),
        previous: r.previous,
        index: r.index,
        stage: r.stage().as_str().into(),
        since: r.since(),
        paused: r.is_paused,
        urgent: r.is_urgent,
        starts_over: r.starts_over,
        devices: count.devices,
        not_told: at(Place::Without),
        has_it: at(Place::Has),
        sends_under_it: at(Place::Sends),
        gave_up_the_old: at(Place::GaveUp),
        late: campaign.late().count(),
        known_outside: known_outside.iter().map(ToString::to_string).collect(),
        gateways_away: away(service, &book, network.net, now),
        members,
    }))
}

/// Gateways that were not heard for longer than they are silent otherwise.
fn away(service: &Service, book: &Book, net: fivefold_core::id::Net, now: Millis) -> Vec<GatewayAway> {
    let ours = book.all_gateways.iter().filter(|g| g.net == net && g.revoked_at.is_none());
    let heard = ours.map(|g| (g, service.cloud.health(g.gateway).1));
    let away = heard.filter(|(_, at)| at.is_none_or(|at| now.since(at) > SILENCE));
    away.map(|(g, at)| GatewayAway { name: g.name.clone(), heard: at.map(|at| at.0 / 1000) }).collect()
}
