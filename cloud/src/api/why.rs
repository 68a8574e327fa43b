//! Why something was refused: by the name of the message, by code, or by sender.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::why::FrameId;
use fivefold_keep::why::{Kept, MOST, Question};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Answer, Problem, ask};
use crate::service::Service;

/// Which refusals.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Of one message or event: 16 hex digits.
    id: Option<String>,
    /// Under one code, e.g. `E3-03`.
    code: Option<String>,
    /// Of who has or claims this short id: 4 hex digits.
    sid: Option<String>,
    /// Refusals in one answer, 1 to 1000, the newest; 20 if not given.
    limit: Option<u32>,
}

impl Which {
    fn question(&self) -> Result<Question, Problem> {
        let bad = |public: String| Problem::new(StatusCode::BAD_REQUEST, "bad-query", public);
        let limit = self.limit.unwrap_or(20);
        if limit == 0 || limit > MOST {
            return Err(bad(format!("limit {limit} is not 1 to {MOST}")));
        }
        Ok(Question {
            id: self.id.as_ref().map(|id| id.parse::<FrameId>()).transpose().map_err(|e| bad(format!("id: {e}")))?,
            code: self.code.as_ref().map(|c| c.parse::<Code>()).transpose().map_err(|e| bad(format!("code: {e}")))?,
            sid: self.sid.as_ref().map(|s| s.parse::<Sid>()).transpose().map_err(|e| bad(format!("sid: {e}")))?,
            limit,
        })
    }
}

/// A refusal, explained.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RefusalShown {
    /// Which message, or which event: 16 hex digits.
    pub id: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// The code (docs/protocol.md 14).
    pub code: String,
    /// Which check it was.
    pub check: String,
    /// Why, exactly.
    pub reason: String,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub came: String,
    /// What an operator does now.
    pub advice: String,
    /// Network, where it is known.
    pub net: Option<String>,
    /// Gateway, where it is known.
    pub gateway: Option<String>,
    /// Short id of the sender, as far as it is known or claimed.
    pub sid: Option<String>,
}

impl From<Kept> for RefusalShown {
    fn from(Kept { id, at_ms, code, reason, expected, came, net, gateway, sid }: Kept) -> Self {
        // A code of a later release says nothing here.
        let about = code.parse::<Code>().ok().map(Code::about);
        let (check, advice) = about.map_or(("", ""), |about| (about.check, about.advice));
        let (check, advice) = (check.to_owned(), advice.to_owned());
        Self { id, at_ms, code, check, reason, expected, came, advice, net, gateway, sid }
    }
}

/// Why things were refused by the cloud in the last seven days, the newest first; of a flood, a sample.
#[utoipa::path(get, path = "/v1/why", params(Which), responses(
    (status = 200, body = [RefusalShown]), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn why(State(service): State<Arc<Service>>, Query(which): Query<Which>) -> Answer<Vec<RefusalShown>> {
    let question = which.question()?;
    ask(&service, move |_, reader| Ok(Json(reader.why(&question)?.into_iter().map(RefusalShown::from).collect()))).await
}
