//! `fivefold gateway run`: the gateway of a share, until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use fivefold_gateway::classic::http::tokens;
use fivefold_gateway::config::{Config, Destination};
use fivefold_gateway::daemon;
use fivefold_gateway::selfcheck::Own;
use fivefold_gateway::xbee::{Time, Xbee};
use serde_json::json;

use crate::notify;
use crate::output::{self, Output};

/// `fivefold gateway run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Run {
    /// The gateway's folder: gateway.toml, its certificate and its sealed secrets. Its store is made there.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Print the resolved configuration, open the secrets, and stop.
    #[arg(long)]
    pub check: bool,
    /// Write what is heard and said into this capture file (pcapng), for Wireshark.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// Runs the gateway.
///
/// # Errors
/// One sentence about why it cannot start, or go on.
pub fn run(args: &Run, output: Output) -> anyhow::Result<ExitCode> {
    if args.check {
        let config = Config::read(&args.dir, daemon::wall_clock())?;
        let secrets = config.secrets(config.open_vault()?)?;
        config.local_key(&secrets.vault)?;
        if let Some(lorawan) = &config.lorawan {
            lorawan.broker.tls()?;
            lorawan.broker.login()?;
        }
        config.xbee.as_ref().map(Xbee::settings).transpose()?;
        if config.insecure_http.is_some() {
            tokens::read(&config.folder)?;
        }
        Own::new(&config, Arc::new(secrets.vault), &secrets.keys).may_start(None, daemon::wall_clock())?;
        match output {
            Output::Human => println!("{config}"),
            Output::Json => println!("{:#}", resolved(&config)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    output::log(output);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ready = |config: &Config| {
        say_ready(config, output);
        notify::ready();
    };
    match runtime.block_on(daemon::run(&args.dir, args.pcap.as_deref(), ready, notify::heart())) {
        Err(error) if error.is_lasting() => Ok(notify::lasts(output, &error.into())),
        ended => Ok(ended.map(|()| ExitCode::SUCCESS)?),
    }
}

fn say_ready(config: &Config, output: Output) {
    match output {
        Output::Human => match &config.uplink {
            Destination::Cloud { cloud, .. } => {
                println!("Gateway {} listens on {} and sends to {cloud}.", config.name, config.bind);
            }
            Destination::None { .. } => {
                println!("Gateway {} listens on {}; there is no cloud, readings stay here.", config.name, config.bind);
            }
        },
        Output::Json => {
            println!("{}", json!({ "event": "ready", "gateway": config.name, "radio": config.bind.to_string() }))
        }
    }
}

fn resolved(config: &Config) -> serde_json::Value {
    let (cloud, state) = match &config.uplink {
        Destination::Cloud { cloud, .. } => (Some(cloud), None),
        Destination::None { state } => (None, Some(state)),
    };
    json!({
        "name": config.name,
        "gateway": config.identity.gateway.to_string(),
        "net": config.identity.net.to_string(),
        "group": config.group.to_string(),
        "radio": {
            "did": config.radio.did.to_string(),
            "sid": config.radio.sid.to_string(),
            "pan": format!("{:04x}", config.radio.pan.0),
            "bind": config.bind.to_string(),
            "air": config.air.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "coap": config.coap.map(|c| c.to_string()),
        "xbee": config.xbee.as_ref().map(|x| json!({
            "port": x.port, "baud": x.baud, "kind": x.kind.as_str(), "link_key_file": x.link_key_file,
            "answer_time": x.time == Time::Answered,
        })),
        "insecure_http": config.insecure_http.as_ref().map(|h| h.bind.to_string()),
        "cloud": cloud,
        "state": state,
        "store": { "path": config.store, "max_bytes": config.limits.spool_bytes },
        "messages_a_minute": config.limits.messages_a_minute,
        "metrics": config.metrics.map(|m| m.to_string()),
    })
}
